package host

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
	"verdecmd/settings"
)

// FuzzFiles: what an earlier run has left is taken as it was written or refused:
// a request with its own key, a note with the words of a master that no terminal
// obeys (S21).
func FuzzFiles(f *testing.F) {
	dir := f.TempDir()
	p, _, err := begin(dir, [32]byte{1}, "sat1", "192.0.2.10:8442")
	if err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(dir, pendingFile))
	if err != nil {
		f.Fatal(err)
	}
	other, _, err := begin(f.TempDir(), p.ca, p.name, p.manager)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add(bytes.Replace(good, []byte("Authority: 01"), []byte("Authority: zz"), 1))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte(`{"cluster":"c","id":"i","why":"superseded: ...","at":"2026-11-28T12:00:00Z"}`))
	f.Add([]byte(`{"cluster":"c","id":"i","why":"\u001b]0;x\u0007"}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := parsePending(b); err == nil {
			pub, err := wire.ParseRequest(p.csr)
			if err != nil || !p.key.PublicKey.Equal(pub) || p.key.Equal(other.key) {
				t.Errorf("a request that is not its key's: %v", err)
			}
		}
		if s, err := parseSuperseded(b); err == nil {
			text := s.Barred().Error()
			if s.Cluster == "" || s.ID == "" || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) {
				t.Errorf("got %+v, %q", s, text)
			}
		}
	})
}

// FuzzReply: whatever a master answers, the host has then the credentials that it
// had, or new ones that fit together and are its own key's (S21).
func FuzzReply(f *testing.F) {
	a, err := wire.NewAuthority(time.Now())
	if err != nil {
		f.Fatal(err)
	}
	dir := f.TempDir()
	p, _, err := begin(dir, a.Fingerprint(), "sat1", "m")
	if err != nil {
		f.Fatal(err)
	}
	id := wire.NewUUID()
	cert, err := a.Sign(wire.Identity{Role: wire.Satellite, ID: id, Name: "sat1"}, &p.key.PublicKey, nil, nil, time.Now(), time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	elsewhere, err := a.Issue(wire.Identity{Role: wire.Satellite, ID: id}, time.Now(), time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(cert.PEM, a.CertPEM, a.Cluster, id)
	f.Add(elsewhere, a.CertPEM, a.Cluster, id)
	f.Add(cert.PEM[:100], a.CertPEM, a.Cluster, id)
	f.Add(cert.PEM, append(bytes.Clone(a.CertPEM), a.CertPEM...), a.Cluster, "")
	f.Add([]byte{}, []byte{}, "", "")
	f.Fuzz(func(t *testing.T, certificate, roots []byte, cluster, id string) {
		err := installReply(dir, p, &pb.JoinReply{Certificate: certificate, Roots: roots, Cluster: cluster, Id: id})
		c, lerr := wire.Load(dir, wire.Satellite)
		switch {
		case err == nil && (lerr != nil || c.Identity.Cluster != cluster || c.Identity.ID != id || !came(dir, p)):
			t.Errorf("taken, and there is %v, %v", c, lerr)
		case lerr == nil && c.Check() != nil:
			t.Errorf("%v, %v", err, c.Check())
		case strings.HasPrefix(listing(t, dir), "."):
			t.Errorf("left: %s", listing(t, dir))
		}
	})
}

// FuzzMenu: whatever is typed, the menu ends with its input, keeps its settings
// file one that can be read, and shows nothing that a terminal obeys (S21).
func FuzzMenu(f *testing.F) {
	for _, in := range []string{"q\n", "m\nr\n127.0.0.1:1\nq\n", "s\n1\nx\ny\n", "2\n3\n-\n\nq", "s\naccel\ntcg\n\n", "\x1b[A\n\xff\xfe\n", "m\ns\nb\n", "s\nWIN4_SNAP_DIR\n/a b\"'$(x)`y`\n\nq\n"} {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if strings.Contains(string(in), "vd1-") || bytes.Count(in, []byte("\n")) > 40 {
			return
		}
		dir := t.TempDir()
		path := filepath.Join(dir, "settings")
		if err := os.WriteFile(path, []byte("WIN4_STATE_DIR="+dir+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // no master is looked for
		var out bytes.Buffer
		m := &menu{talk: newTalk(bytes.NewReader(in), &out), path: path}
		// The questions do not end with ctx, so that the input counts.
		_ = m.show(context.WithoutCancel(ctx), "x", "Quit", func() []item {
			return []item{{"Settings", "", m.settings, false}, {"Manager", m.state(), func(context.Context) error { return m.registered(ctx) }, false}}
		})
		if f, err := m.file(); err != nil {
			t.Errorf("the file: %v", err)
		} else if a, ok := f.Get(settings.StateDir); ok && a.Value != dir && !bytes.Contains(in, []byte(a.Value)) {
			t.Errorf("WIN4_STATE_DIR is %q", a.Value)
		}
		if s := out.String(); !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\n' || r >= 0x7f && r < 0xa0 }) {
			t.Errorf("shown: %q", s)
		}
	})
}
