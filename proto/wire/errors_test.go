package wire

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "verdecmd/proto"
)

func TestErrorsCross(t *testing.T) {
	for k, code := range kinds {
		err := fmt.Errorf("login of bob: %w", Errorf(k, "text of %s", k))
		st := ToStatus(err)
		if got := status.Code(st); got != code {
			t.Errorf("%s: code %v, want %v", k, got, code)
		}
		back := FromStatus(st)
		if KindOf(back) != k || back.Error() != err.Error() {
			t.Errorf("%s: came back as %s %q, want %q", k, KindOf(back), back, err)
		}
		if d := FromDetail(Detail(err)); KindOf(d) != k || d.Error() != err.Error() {
			t.Errorf("%s as a detail: came back as %s %q", k, KindOf(d), d)
		}
	}
	if ToStatus(nil) != nil || FromStatus(nil) != nil || Detail(nil) != nil || FromDetail(nil) != nil || KindOf(nil) != "" {
		t.Error("nil is not nil")
	}
}

func TestErrorsOfOthers(t *testing.T) {
	tests := map[string]struct {
		err  error // given to FromStatus
		kind Kind
		is   error
		text string
	}{
		"plain error of a handler": {err: ToStatus(errors.New("disk")), kind: Internal, text: "disk"},
		"end of the context":       {err: ToStatus(context.DeadlineExceeded), kind: Unreachable, is: context.DeadlineExceeded, text: "deadline"},
		"cancelled":                {err: status.Error(codes.Canceled, ""), kind: Unreachable, is: context.Canceled, text: "canceled"},
		"a context's own error":    {err: context.Canceled, kind: Unreachable, is: context.Canceled, text: "canceled"},
		"transport":                {err: status.Error(codes.Unavailable, "connection refused"), kind: Unreachable, text: "look at address and port"},
		"message too large":        {err: status.Error(codes.ResourceExhausted, "too large"), kind: Internal, text: "too large"},
		"no such method":           {err: status.Error(codes.Unimplemented, "unknown method"), kind: Internal, text: "unknown method"},
		"status kept by ToStatus":  {err: ToStatus(status.Error(codes.NotFound, "x")), kind: NotFound, text: "x"},
		"kind of a newer version":  {err: withDetail("new-kind", "words"), kind: Internal, text: "words"},
		"line ends and escapes":    {err: withDetail("offline", "a\nb\x1b[31m\u2028"), kind: Offline, text: "a b?[31m?"},
		"kind without text":        {err: withDetail("offline", ""), kind: Offline, text: "offline"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := FromStatus(test.err)
			if KindOf(got) != test.kind || !strings.Contains(got.Error(), test.text) || test.is != nil && !errors.Is(got, test.is) {
				t.Errorf("got %s %q, want %s %q", KindOf(got), got, test.kind, test.text)
			}
		})
	}
	long := ToStatus(Errorf(NotFound, "%s\xff", strings.Repeat("é", 5000)))
	if got := FromStatus(long); KindOf(got) != NotFound || len(got.Error()) > maxText || !utf8.ValidString(got.Error()) {
		t.Errorf("long text with a bad byte: got %s with %d bytes", KindOf(got), len(got.Error()))
	}
}

func withDetail(kind, text string) error {
	s, err := status.New(codes.Aborted, "m").WithDetails(&pb.ErrorDetail{Kind: kind, Text: text})
	if err != nil {
		panic(err)
	}
	return s.Err()
}

func FuzzFromStatus(f *testing.F) {
	for k := range kinds {
		s, _ := status.FromError(ToStatus(Errorf(k, "text")))
		b, err := proto.Marshal(s.Proto())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var p spb.Status
		if proto.Unmarshal(b, &p) != nil {
			return
		}
		err := FromStatus(status.ErrorProto(&p))
		if err == nil {
			return
		}
		e, ok := err.(*Error)
		if _, known := kinds[KindOf(err)]; !ok || !known {
			t.Fatalf("got kind %q", KindOf(err))
		}
		if e.Text == "" || !utf8.ValidString(e.Text) || strings.ContainsAny(e.Text, "\n\r\x1b\x00") || len(e.Text) > 2*maxText {
			t.Fatalf("got text %q", e.Text)
		}
		again := FromStatus(ToStatus(e))
		if KindOf(again) != e.Kind {
			t.Fatalf("%q came back as %s", e.Kind, KindOf(again))
		}
	})
}

func FuzzParseIdentity(f *testing.F) {
	f.Add("verde://6ba7b810-9dad-11d1-80b4-00c04fd430c8/satellite/6ba7b811-9dad-11d1-80b4-00c04fd430c8")
	f.Add("verde://6ba7b810-9dad-11d1-80b4-00c04fd430c8/master/6ba7b811-9dad-11d1-80b4-00c04fd430c8")
	f.Add("verde://x@6ba7b810-9dad-11d1-80b4-00c04fd430c8:1/satellite/../master/6ba7b811-9dad-11d1-80b4-00c04fd430c8?a#b")
	f.Add("https://example.com/")
	f.Fuzz(func(t *testing.T, s string) {
		i, err := ParseIdentity(s)
		if err != nil {
			return
		}
		if i.URI().String() != s {
			t.Fatalf("%q has a second form %q", s, i.URI())
		}
		if i.Role != Master && i.Role != Satellite || len(i.ID) != 36 || len(i.Cluster) != 36 {
			t.Fatalf("%q gives %+v", s, i)
		}
	})
}

func TestParseIdentity(t *testing.T) {
	const c, m = "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "6ba7b811-9dad-11d1-80b4-00c04fd430c8"
	tests := map[string]string{ // to a part of the error
		"verde://" + c + "/satellite/" + m:        "",
		"verde://" + c + "/master/" + m:           "",
		"spiffe://" + c + "/master/" + m:          `does not begin with "verde://"`,
		"verde://" + c + "/admin/" + m:            "the role is neither",
		"verde://" + c + "/Master/" + m:           "the role is neither",
		"verde:///master/" + m:                    "the cluster is no UUID",
		"verde://" + c + "/master/":               "the machine is no UUID",
		"verde://" + c + "/master/" + m + "/":     "is not verde://CLUSTER/ROLE/ID",
		"verde://" + c + "/master/" + m + "\n":    "the machine is no UUID",
		"verde://" + c + "/master/" + m + "?x=y":  "the machine is no UUID",
		"verde://u@" + c + "/master/" + m:         "the cluster is no UUID",
		"verde://" + c + "/master/%2e%2e" + m[6:]: "the machine is no UUID",
		strings.ToUpper("verde://" + c):           "does not begin",
		"":                                        "does not begin",
	}
	for uri, want := range tests {
		_, err := ParseIdentity(uri)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", uri, err, want)
		}
	}
}

// What gRPC packs around the words of TCP and TLS is for programmers.
func TestExplain(t *testing.T) {
	for text, want := range map[string]string{
		`connection error: desc = "transport: Error while dialing: dial tcp 192.0.2.1:8442: connect: connection refused"`: "dial tcp 192.0.2.1:8442: connect: connection refused: nothing listens there; look at address and port, and whether the master runs",
		`connection error: desc = "transport: authentication handshake failed: master m belongs to \"x\""`:                `master m belongs to "x"`,
		`connection error: desc = "cut of`: `connection error: desc = "cut of`,
		"no such user":                     "no such user",
	} {
		if got := explain(text); got != want {
			t.Errorf("%s\n got %s\nwant %s", text, got, want)
		}
	}
}
