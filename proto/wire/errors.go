package wire

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "verdecmd/proto"
)

// Kind is what sort of refusal or failure an error is; programs decide by it.
type Kind string

// The kinds that both ends know.
const (
	NotFound      Kind = "not-found"
	NoCapacity    Kind = "no-capacity"
	LostSession   Kind = "lost-session" // the user has a session on a server that does not answer
	Offline       Kind = "offline"      // the server takes no new sessions
	StaleLink     Kind = "stale-link"   // the attachment is no longer the newest
	NoReservation Kind = "no-reservation"
	OldEpoch      Kind = "old-epoch" // from a master that has been replaced
	NotReady      Kind = "not-ready" // the master still learns the cluster's state
	InUse         Kind = "in-use"
	BadRequest    Kind = "bad-request"
	Unreachable   Kind = "unreachable"
	Internal      Kind = "internal"
	Denied        Kind = "denied"    // the proof was not right: password, token, level of the certificate
	TooOften      Kind = "too-often" // for now: too many wrong tries
	Revoked       Kind = "revoked"   // the caller's identity is not of the cluster any more
)

// kinds is the one table between kinds and gRPC codes.
var kinds = map[Kind]codes.Code{
	NotFound:      codes.NotFound,
	NoCapacity:    codes.ResourceExhausted,
	LostSession:   codes.FailedPrecondition,
	Offline:       codes.FailedPrecondition,
	StaleLink:     codes.Aborted,
	NoReservation: codes.FailedPrecondition,
	OldEpoch:      codes.FailedPrecondition,
	NotReady:      codes.Unavailable,
	InUse:         codes.AlreadyExists,
	BadRequest:    codes.InvalidArgument,
	Unreachable:   codes.Unavailable,
	Internal:      codes.Internal,
	Denied:        codes.PermissionDenied,
	TooOften:      codes.ResourceExhausted,
	Revoked:       codes.Unauthenticated,
}

// maxText is the longest text of an error that is sent or believed, in bytes.
const maxText = 2048

// Error is an error of a known kind with a text for people. It crosses the
// link unchanged.
type Error struct {
	Kind  Kind
	Text  string
	cause error // context.Canceled, context.DeadlineExceeded or nil
}

func (e *Error) Error() string { return e.Text }

// Unwrap gives the end of the context that ended the call, if that was it.
func (e *Error) Unwrap() error { return e.cause }

// Errorf makes an Error.
func Errorf(k Kind, format string, args ...any) *Error {
	return &Error{Kind: k, Text: fmt.Sprintf(format, args...)}
}

// KindOf is the kind of err: that of an *Error anywhere in its chain, else
// Internal. It is empty for nil.
func KindOf(err error) Kind {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}

// Detail is err as a field of a message; nil for nil.
func Detail(err error) *pb.ErrorDetail {
	if err == nil {
		return nil
	}
	return &pb.ErrorDetail{Kind: string(KindOf(err)), Text: Clean(err.Error(), maxText)}
}

// FromDetail is the opposite of Detail. An unknown kind, from a newer peer,
// is Internal with the same text.
func FromDetail(d *pb.ErrorDetail) error {
	if d == nil {
		return nil
	}
	k := Kind(d.GetKind())
	if _, ok := kinds[k]; !ok {
		k = Internal
	}
	text := Clean(d.GetText(), maxText)
	if text == "" {
		text = string(k)
	}
	return &Error{Kind: k, Text: text}
}

// ToStatus makes the error of a gRPC handler out of any error. An error that
// is a gRPC status already stays as it is.
func ToStatus(err error) error {
	if err == nil {
		return nil
	}
	e, known := errors.AsType[*Error](err)
	if !known {
		if _, ok := status.FromError(err); ok {
			return err
		}
		switch {
		case errors.Is(err, context.Canceled):
			return status.Error(codes.Canceled, err.Error())
		case errors.Is(err, context.DeadlineExceeded):
			return status.Error(codes.DeadlineExceeded, err.Error())
		}
		e = &Error{Kind: Internal}
	}
	code, ok := kinds[e.Kind]
	if !ok {
		code = codes.Internal
	}
	d := Detail(err)
	s := status.New(code, d.Text)
	if with, err := s.WithDetails(d); err == nil {
		s = with
	}
	return s.Err()
}

// FromStatus is the opposite of ToStatus: an *Error with the kind and the
// text of the other end. What has no kind comes from the transport and is
// Unreachable, or Internal where the call arrived and cannot succeed.
func FromStatus(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	s, ok := status.FromError(err)
	if !ok {
		s = status.FromContextError(err)
	}
	for _, d := range s.Details() {
		if d, ok := d.(*pb.ErrorDetail); ok && d.GetKind() != "" {
			return FromDetail(d)
		}
	}
	e := &Error{Kind: Internal, Text: Clean(s.Message(), maxText)}
	switch s.Code() {
	case codes.OK:
		// A nil error is handled above; this is an error that says it is none.
	case codes.Canceled:
		e.Kind, e.cause = Unreachable, context.Canceled
	case codes.DeadlineExceeded:
		e.Kind, e.cause = Unreachable, context.DeadlineExceeded
	case codes.Unavailable:
		e.Kind = Unreachable
	case codes.InvalidArgument:
		e.Kind = BadRequest
	case codes.NotFound:
		e.Kind = NotFound
	}
	if e.Text == "" {
		e.Text = strings.ToLower(s.Code().String())
	}
	e.Text = explain(e.Text)
	return e
}

// explain takes away what gRPC packs around the words of TLS and TCP, and adds
// the fix to them.
func explain(text string) string {
	if packed, ok := strings.CutPrefix(text, "connection error: desc = "); ok {
		if inner, err := strconv.Unquote(packed); err == nil {
			text = strings.TrimPrefix(inner, "transport: ")
			text = strings.TrimPrefix(text, "Error while dialing: ")
			text = strings.TrimPrefix(text, "authentication handshake failed: ")
		}
	}
	for _, x := range []struct{ has, add string }{
		{"remote error: tls: bad certificate", "the other end refuses this machine's certificate; its log says why (enrol this machine again with \"verdecmd enrol\" on the master)"},
		{"remote error: tls: certificate required", "the other end wants a certificate and got none"},
		{"first record does not look like a TLS handshake", "what answers there is no verdecmd master; look at address and port"},
		{"error reading server preface", "the other end closed the connection at once; its log says why"},
		{"connection refused", "nothing listens there; look at address and port, and whether the master runs"},
	} {
		if strings.Contains(text, x.has) {
			return text + ": " + x.add
		}
	}
	return text
}

// Clean makes text from outside fit for messages, logs and replies: valid
// UTF-8, without which a message cannot be sent at all, no control characters,
// at most limit bytes.
func Clean(s string, limit int) string {
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp):
			return '?'
		}
		return r
	}, s)
	if len(s) > limit {
		s = s[:limit]
		for !utf8.ValidString(s) {
			s = s[:len(s)-1]
		}
	}
	return s
}
