package account

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// fakeGetent is a program that takes the place of getent.
func fakeGetent(t *testing.T, script string) nss {
	t.Helper()
	path := filepath.Join(t.TempDir(), "getent")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return nss{program: path, limit: time.Minute}
}

// A directory server may answer with another way to write the name; that one
// counts from then on.
func TestNSS(t *testing.T) {
	l := New("")
	l.from = fakeGetent(t, `
case "$*" in
"passwd CORP\\Alice"|"passwd alice"|"passwd 70001") echo 'alice:*:70001:70000:Alice:/home/alice:/bin/bash';;
"passwd 70002") echo 'alice:*:70001:70000:Alice:/home/alice:/bin/bash';;
"initgroups alice") echo 'alice                 70000 70010 27 27';;
"group staff") echo 'staff:*:70010:alice';;
"group odd") echo 'odd';;
"passwd odd") echo 'odd:*:x:y::/:';;
"passwd empty") ;;
"passwd broken") echo 'nss: boom' >&2; exit 3;;
"passwd") printf 'daemon:x:1:1::/:\nnobody:x:65534:1::/:\nzoe:x:1001:1::/:\nalice:x:1000:1::/:\n';;
*) exit 2;;
esac
`)
	alice := User{Name: "alice", UID: 70001, GID: 70000, Groups: []uint32{27, 70010}, Home: "/home/alice", Shell: "/bin/bash"}
	if got, err := l.ByName(`CORP\Alice`); err != nil || !reflect.DeepEqual(got, alice) {
		t.Errorf("by name: got %+v, %v", got, err)
	}
	if got, err := l.ByUID(70001); err != nil || !reflect.DeepEqual(got, alice) {
		t.Errorf("by uid: got %+v, %v", got, err)
	}
	if _, err := l.ByUID(70002); !errors.Is(err, ErrUnknownUser) {
		t.Errorf("uid of another: got %v", err)
	}
	if _, err := l.ByName("mallory"); !errors.Is(err, ErrUnknownUser) {
		t.Errorf("unknown: got %v", err)
	}
	if gid, err := l.GID("staff"); err != nil || gid != 70010 {
		t.Errorf("group: got %d, %v", gid, err)
	}
	if _, err := l.GID("nogroup-there"); !errors.Is(err, ErrUnknownGroup) {
		t.Errorf("unknown group: got %v", err)
	}
	for name, want := range map[string]string{"odd": "cannot be used: getent passwd:1: uid", "empty": "cannot be used: it is empty", "broken": "exit status 3: nss: boom"} {
		if _, err := l.ByName(name); err == nil || errors.Is(err, ErrUnknownUser) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
	}
	if _, err := l.GID("odd"); err == nil || errors.Is(err, ErrUnknownGroup) {
		t.Errorf("odd group: got %v", err)
	}
	if got, err := l.Names("", 9); err != nil || !slices.Equal(got, []string{"alice", "zoe"}) {
		t.Errorf("names: got %q, %v", got, err)
	}
}

// A directory server that is down costs its time and is not "unknown user".
func TestNSSWithoutAnswer(t *testing.T) {
	n := fakeGetent(t, "exec sleep 60\n")
	n.limit = 50 * time.Millisecond
	l := New("")
	l.from = n
	_, err := l.ByName("alice")
	if err == nil || errors.Is(err, ErrUnknownUser) || !strings.Contains(err.Error(), "no answer within 50ms: is the directory server down?") {
		t.Errorf("got %v", err)
	}
	l.from = nss{program: "getent-that-is-not-there", limit: askFor}
	if _, err := l.ByName("alice"); err == nil || !strings.Contains(err.Error(), "install the package libc-bin") {
		t.Errorf("no getent: got %v", err)
	}
}

func TestNSSBoundsTheOutput(t *testing.T) {
	l := New("")
	l.from = fakeGetent(t, "exec yes\n")
	if _, err := l.ByName("alice"); err == nil || !strings.Contains(err.Error(), "more than 16777216 bytes") {
		t.Errorf("got %v", err)
	}
}

// The real getent of the computer that runs the test.
func TestNSSOfThisComputer(t *testing.T) {
	l := New("")
	u, err := l.ByName("root")
	if err != nil || u.UID != 0 || u.Name != "root" || u.Home == "" {
		t.Errorf("root: got %+v, %v", u, err)
	}
	if _, err := l.ByName("no-such-user-here"); !errors.Is(err, ErrUnknownUser) {
		t.Errorf("unknown: got %v", err)
	}
	if u, err := l.ByUID(0); err != nil || u.UID != 0 {
		t.Errorf("uid 0: got %+v, %v", u, err)
	}
	if gid, err := l.GID("root"); err != nil || gid != 0 {
		t.Errorf("group root: got %d, %v", gid, err)
	}
}
