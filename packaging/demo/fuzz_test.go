package demo

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// FuzzFiles: whatever an older demo has left, by this program or another, is
// used as a whole or refused by the file's name: no satellite lives outside of
// the demo's directory, no account is lost, none gets a number twice.
func FuzzFiles(f *testing.F) {
	f.Add([]byte(`{"Master":"127.77.0.1","Satellites":[{"Name":"sat1","Address":"127.77.0.2"},{"Name":"sat2","Address":"127.77.0.3"}],"Run":1,"Users":["alice"]}`),
		[]byte("publisher:x:20000:20000::/demo/h/publisher:/bin/sh\nalice:x:20001:20001::/demo/h/alice:/bin/sh\n"), uint8(3))
	f.Add([]byte(`{"Satellites":[{"Name":"../../etc","Address":"127.0.0.1"}],"Run":1}`), []byte("alice:x:-1:x::::\n"), uint8(1))
	f.Add([]byte(`{"Run":9}`), []byte("a:b:99999999999999999999:0:::\n:::::::"), uint8(0))
	f.Add([]byte(`{}`), []byte("# cut off"), uint8(2))
	f.Add([]byte(`null`), []byte("publisher:x:9223372036854775807:1:::"), uint8(2))
	dir := f.TempDir()
	l := layout{dir}
	if err := os.MkdirAll(filepath.Dir(l.passwd()), 0o755); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text, accounts []byte, n uint8) {
		if err := os.WriteFile(l.planFile(), text, 0o600); err != nil {
			t.Fatal(err)
		}
		p, ok, err := loadPlan(l)
		switch {
		case err != nil:
			if !strings.Contains(err.Error(), l.planFile()) {
				t.Errorf("%q does not name the file", err)
			}
		case !ok:
			t.Error("a plan that is there is not found")
		default:
			for _, s := range p.Satellites {
				if at := filepath.Join(dir, "s", s.Name); filepath.Dir(at) != filepath.Join(dir, "s") {
					t.Errorf("satellite %q would live in %s", s.Name, at)
				}
			}
			next, err := p.with(dir, int(n%5)+1, []string{"bob"}, func(string) error { return nil })
			if err != nil || next.Master == "" || next.Run != int(n%5)+1 || len(next.Satellites) < max(next.Run, len(p.Satellites)) {
				t.Fatalf("%+v becomes %+v, %v", p, next, err)
			}
			if err := p.save(l); err != nil {
				t.Fatal(err)
			}
			if again, ok, err := loadPlan(l); !ok || err != nil || !reflect.DeepEqual(again, p) {
				t.Errorf("%+v is written and read as %+v, %v", p, again, err)
			}
		}

		if err := os.WriteFile(l.passwd(), accounts, 0o600); err != nil {
			t.Fatal(err)
		}
		d := &demo{layout: l}
		owners, err := d.accounts(nil)
		if err != nil {
			if !strings.Contains(err.Error(), l.passwd()) {
				t.Errorf("%q does not name the file", err)
			}
			return
		}
		after, rerr := os.ReadFile(l.passwd())
		if rerr != nil {
			t.Fatal(rerr)
		}
		if !strings.HasPrefix(string(after), string(accounts)) {
			t.Errorf("%q became %q", accounts, after)
		}
		if o, ok := owners[publisher]; !ok || o.uid < 0 {
			t.Errorf("%q: the image belongs to %+v", accounts, o)
		}
		if again, err := d.accounts(nil); err != nil || !reflect.DeepEqual(again, owners) {
			t.Errorf("%q gives the owners %+v, read again %+v, %v", accounts, owners, again, err)
		}
	})
}
