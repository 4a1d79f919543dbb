package account

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Several users cost few questions; one that is answered under another name is
// found under the name that was asked for.
func TestSeveral(t *testing.T) {
	l := New("")
	asked := filepath.Join(t.TempDir(), "asked")
	l.from = fakeGetent(t, `
echo "$*" >>`+asked+`
case "$*" in
"passwd CORP\\Bob") echo 'bob:*:1002:100::/home/bob:/bin/sh'; exit 0;;
initgroups*) echo "$2 100"; exit 0;;
esac
shift
for name; do case $name in alice) echo 'alice:*:1001:100::/home/alice:/bin/sh';; u*) echo "$name:*:2000:100::/h:/bin/sh";; esac; done
exit 2
`)
	got, err := l.Several([]string{"nobody-there", "alice", "alice", "-x", "17", `CORP\Bob`, ""})
	if err != nil || len(got) != 2 || got["alice"].UID != 1001 || got[`CORP\Bob`].Name != "bob" {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := os.Remove(asked); err != nil {
		t.Fatal(err)
	}
	var many []string
	for i := range 5 * batch {
		many = append(many, fmt.Sprint("u", i))
	}
	got, err = l.Several(many)
	if text, _ := os.ReadFile(asked); err != nil || len(got) != len(many) || strings.Count(string(text), "\n") != 5 {
		t.Errorf("got %d users, %v; asked\n%s", len(got), err, text)
	}
	for i := range 2 * singly {
		many[i] = fmt.Sprint("gone", i)
	}
	_ = os.Remove(asked)
	if _, err := l.Several(many); err != nil {
		t.Error(err)
	}
	if text, _ := os.ReadFile(asked); strings.Count(string(text), "\n") != 5+singly {
		t.Errorf("asked for those who are not there:\n%s", text)
	}
	l.from = fakeGetent(t, "echo boom >&2; exit 3\n")
	if _, err := l.Several([]string{"alice"}); err == nil || !strings.Contains(err.Error(), "boom") {
		t.Errorf("a directory server that is broken: got %v", err)
	}
}

func TestSeveralOfAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(file, []byte("alice:x:1001:1001::/home/alice:/bin/sh\nbob:x:1002:1002::/home/bob:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := New(file).Several([]string{"bob", "carol"})
	if names := slices.Collect(maps.Keys(got)); err != nil || !slices.Equal(names, []string{"bob"}) || got["bob"].UID != 1002 {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := New(file + ".none").Several([]string{"bob"}); err == nil {
		t.Error("a file that is not there: got nil, want an error")
	}
}
