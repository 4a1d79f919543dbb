package master

import "testing"

// Who is in the files is named without the system: this one has none to ask.
func TestNamesInFiles(t *testing.T) {
	d := directory{}
	for uid, want := range map[int]string{0: "root", 1: "daemon"} {
		if got, ok := d.UserName(uid); !ok || got != want {
			t.Errorf("user %d: got %q, %v, want %q", uid, got, ok, want)
		}
	}
	if id, err := d.UserID("daemon"); id != 1 || err != nil {
		t.Errorf("daemon: got %d, %v", id, err)
	}
}
