package host

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode"

	"google.golang.org/protobuf/proto"

	pb "verdecmd/proto"
)

// shown tells whether a survey can be shown on a terminal and compared.
func shown(t *testing.T, s Survey) {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.ContainsFunc(b, unicode.IsControl) || len(s.Accounts) > maxList || len(s.Bridges) > maxList || len(s.Settings) > maxTexts {
		t.Fatalf("got %s", b)
	}
	m := fit()
	for _, f := range Check(m, []Survey{s}) {
		if bytes.ContainsFunc([]byte(f.Measured+f.Fix), unicode.IsControl) {
			t.Fatalf("got %q", f)
		}
		if f.Hard && f.Check != checkAccounts { // another host keeps no desktops away from this one
			t.Fatalf("got a hard %q", f)
		}
	}
}

// A file that somebody has edited or cut off.
func FuzzDocument(f *testing.F) {
	var doc bytes.Buffer
	if err := writeJSON(&doc, Result{Findings: Check(fit(), nil), Survey: fit().Survey}); err != nil {
		f.Fatal(err)
	}
	f.Add(doc.Bytes())
	f.Add(doc.Bytes()[:doc.Len()/2])
	f.Add([]byte(`{"survey":{"hostname":"\u001b[2J","version":"1","accounts":[{"name":"a","uid":-1}]}}`))
	f.Add([]byte(`{"survey":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, err := parseDocument(data); err == nil {
			shown(t, s)
		}
	})
}

// What the master tells of another host, which that host says of itself.
func FuzzSurvey(f *testing.F) {
	b, err := proto.Marshal(toProto(fit().Survey))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		var s pb.Survey
		if proto.Unmarshal(data, &s) == nil {
			shown(t, fromProto(&s))
		}
	})
}
