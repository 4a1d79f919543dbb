package session

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// FuzzJournal: whatever the files of the journal hold, they are read, or the
// error names the file and what to do; what was read is written again as the
// same. A session is never taken for another one, a lease never for a longer one
// (S7, S9).
func FuzzJournal(f *testing.F) {
	good, err := json.Marshal(testEntry("/var/lib/win4linpro"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, []byte("3"), []byte(`{"At":1000000000,"Self":60000000000}`), []byte("MEQK7UNJ2GKG5PZ4QXQTYF3GQ2"))
	f.Add([]byte(`{"Spec":{"Session":"s7"`), []byte("many"), []byte("{"), []byte(""))
	f.Add([]byte(`{"Spec":{"Session":"s8"}}`), []byte("18446744073709551616"), []byte(`{"At":-1,"Self":-1}`), bytes.Repeat([]byte("x"), 65))
	f.Add([]byte("null"), []byte(" 7\n"), []byte("null"), []byte("\x00\xff"))
	dir := f.TempDir()
	j := journal{dir}
	if err := j.open(); err != nil {
		f.Fatal(err)
	}
	const up = time.Hour
	f.Fuzz(func(t *testing.T, session, epoch, lease, id []byte) {
		for name, data := range map[string][]byte{"sessions/s7.json": session, "epoch": epoch, "lease": lease, "id": id} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		named := func(name string, err error) {
			t.Helper()
			if !strings.Contains(err.Error(), filepath.Join(dir, name)) {
				t.Errorf("the error %q does not name the file %s", err, name)
			}
		}
		if all, err := j.all(); err != nil {
			named("sessions/s7.json", err)
		} else {
			if len(all) != 1 || all[0].Spec.Session != "s7" {
				t.Fatalf("got %+v", all)
			}
			if err := j.put(all[0]); err != nil {
				t.Fatalf("%s is read and cannot be written: %v", session, err)
			}
			once, _ := os.ReadFile(j.path("s7"))
			again, err := j.all()
			if err != nil {
				t.Fatal(err)
			}
			if err := j.put(again[0]); err != nil {
				t.Fatal(err)
			}
			if twice, _ := os.ReadFile(j.path("s7")); !bytes.Equal(once, twice) {
				t.Errorf("%s becomes %s", once, twice)
			}
		}
		if n, err := j.epoch(); err != nil {
			named("epoch", err)
		} else if err := j.setEpoch(n); err != nil {
			t.Error(err)
		} else if again, err := j.epoch(); again != n || err != nil {
			t.Errorf("epoch %d came back as %d, %v", n, again, err)
		}
		if r, err := j.lease(up); err != nil {
			named("lease", err)
		} else if r.At > up || r.At < 0 || r.Self < 0 {
			t.Errorf("lease %+v, %v after the start", r, up)
		}
		if name, err := j.identity(); err != nil {
			named("id", err)
		} else if name == "" || len(name) > 64 || strings.TrimSpace(string(id)) != name {
			t.Errorf("%q is the journal %q", id, name)
		}
	})
}
