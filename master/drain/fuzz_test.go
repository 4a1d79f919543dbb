package drain

import (
	"encoding/json"
	"slices"
	"testing"
)

// FuzzWork: what the database holds of a job is refused or says what is to be
// done, and is written again as the same (S19, S21).
func FuzzWork(f *testing.F) {
	for _, w := range []work{{Method: Wait}, {Method: Logoff, Sessions: []string{"s1", "s20"}}} {
		b, err := json.Marshal(w)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"method":"live"}`))
	f.Add([]byte(`{"method":"wait","sessions":[null,""]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := decode(b)
		if err != nil {
			if err.Error() == "" {
				t.Error("an empty error")
			}
			return
		}
		once, err := json.Marshal(w)
		if err != nil {
			t.Fatalf("%s is read and cannot be written: %v", b, err)
		}
		again, err := decode(once)
		if err != nil || again.Method != w.Method || !slices.Equal(again.Sessions, w.Sessions) {
			t.Errorf("%s becomes %+v, %v", once, again, err)
		}
		p := NewPlan(Plan{Method: w.Method}, w.Sessions)
		if s := p.Next(start, view("alice")); s.Percent < 0 || s.Percent > 100 {
			t.Errorf("%d%%", s.Percent)
		}
	})
}
