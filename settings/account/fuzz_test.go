package account

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

// FuzzGroups: whatever the system's directory answers and whatever a group file
// holds, a user's groups are sorted numbers, each once, never the user's own and
// never the one that means "nobody given".
func FuzzGroups(f *testing.F) {
	f.Add([]byte("alice  1000 27 100 27\n"), []byte(testGroup), uint32(1000))
	f.Add([]byte("alice 4294967295 -1 +5 x"), []byte("wheel:x:10:alice,alice,\nwheel:x:10:alice\n"), uint32(0))
	f.Add([]byte(""), []byte(":::"), uint32(1))
	dir := f.TempDir()
	passwdFile := filepath.Join(dir, "passwd")
	f.Fuzz(func(t *testing.T, answer, file []byte, own uint32) {
		check := func(what string, groups []uint32) {
			for i, g := range groups {
				if g == own || g == 1<<32-1 || i > 0 && g <= groups[i-1] {
					t.Errorf("%s of %q, own %d: got %v", what, answer, own, groups)
				}
			}
		}
		check("getent", parseInitgroups(answer, own))

		if own == 1<<32-1 || len(file) > maxFile {
			return
		}
		if err := os.WriteFile(passwdFile, []byte("alice:x:1000:"+strconv.FormatUint(uint64(own), 10)+"::/home/alice:\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "group"), file, 0o600); err != nil {
			t.Fatal(err)
		}
		u, err := passwd{file: passwdFile}.byName("alice")
		if err != nil {
			t.Fatal(err)
		}
		check("group file", u.Groups)
		for _, g := range parseGroup(file) {
			if gid, err := (passwd{file: passwdFile}).group(g.name); err != nil || !slices.ContainsFunc(parseGroup(file), func(x group) bool { return x.name == g.name && x.gid == gid }) {
				t.Errorf("group %q: got %d, %v", g.name, gid, err)
			}
		}
	})
}
