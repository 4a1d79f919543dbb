package master

import (
	"os"
	"path/filepath"
	"testing"
)

// A copy that is acknowledged is where an administrator finds it: not in the
// directory for temporary files that a service has of its own.
func TestPrivateTmp(t *testing.T) {
	t.Parallel()
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "mountinfo")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	own := file("30 1 8:1 /tmp/systemd-private-0123-verdecmd.service-x/tmp /tmp rw - ext4 /dev/sda1 rw\n")
	plain := file("30 1 0:25 / /tmp rw - tmpfs tmpfs rw\n")
	for _, tt := range []struct {
		dir, mountinfo string
		want           bool
	}{
		{"/tmp", own, true}, {"/tmp/x", own, true}, {"/var/tmp", own, true}, {"/tmpfiles", own, false}, {"/var/lib/win4linpro", own, false},
		{"/tmp", plain, false}, {"/tmp", "/nonexistent", false},
	} {
		if got := private(tt.dir, tt.mountinfo); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.dir, got, tt.want)
		}
	}
}
