package account

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const testPasswd = `# users of the demo
root:x:0:0:root:/root:/bin/bash
alice:x:1001:100:Alice,,,:/home/alice:/bin/sh
bad line
bob:x:1002:100::/home/bob:
carol:x:many:100::/home/carol:
alice:x:9999:100:again:/home/other:
CORP\dave:x:1004:100::/home/dave:/bin/sh
erin@example.com:x:1005:100::home/erin:/bin/sh

`

const testGroup = `users:x:100:alice,bob
admins:x:50:alice
broken
video:x:44:bob,alice
video2:x:44:alice
`

func testFiles(t *testing.T) *Lookup {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"passwd": testPasswd, "group": testGroup} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return New(filepath.Join(dir, "passwd"))
}

// One line with a mistake does not hide the others (WIN4_PASSWD_FILE).
func TestPasswdFile(t *testing.T) {
	l := testFiles(t)
	alice := User{Name: "alice", UID: 1001, GID: 100, Groups: []uint32{44, 50}, Home: "/home/alice", Shell: "/bin/sh"}
	if got, err := l.ByName("alice"); err != nil || !reflect.DeepEqual(got, alice) {
		t.Errorf("alice: got %+v, %v", got, err)
	}
	if got, err := l.ByUID(1001); err != nil || !reflect.DeepEqual(got, alice) {
		t.Errorf("uid 1001: got %+v, %v", got, err)
	}
	if got, err := l.ByName(`CORP\dave`); err != nil || got.UID != 1004 {
		t.Errorf("dave: got %+v, %v", got, err)
	}
	for _, name := range []string{"carol", "erin@example.com", "nobody-there"} {
		_, err := l.ByName(name)
		if !errors.Is(err, ErrUnknownUser) || !strings.Contains(err.Error(), "4 lines are wrong, first: ") || !strings.Contains(err.Error(), "passwd:4: 1 fields, wants 7") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := l.ByUID(9999); !errors.Is(err, ErrUnknownUser) {
		t.Errorf("second line of alice: got %v", err)
	}
	got, err := l.Names("", 10)
	if want := []string{`CORP\dave`, "alice", "bob", "root"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("names: got %q, %v, want %q", got, err, want)
	}
	if got, _ := l.Names("a", 10); !slices.Equal(got, []string{"alice"}) {
		t.Errorf("names with a: got %q", got)
	}
	if got, _ := l.Names("", 2); len(got) != 2 {
		t.Errorf("two names: got %q", got)
	}
}

// V-85, V-86: by name or by number, unknown is an error.
func TestUIDAndGID(t *testing.T) {
	l := testFiles(t)
	tests := map[string]struct {
		of   func(string) (uint32, error)
		text string
		want uint32
		err  error
	}{
		"user by name":         {l.UID, "bob", 1002, nil},
		"user by number":       {l.UID, "4711", 4711, nil},
		"root":                 {l.UID, "0", 0, nil},
		"unknown user":         {l.UID, "mallory", 0, ErrUnknownUser},
		"no number":            {l.UID, "4294967295", 0, ErrBadName},
		"negative":             {l.UID, "-1", 0, ErrBadName},
		"group by name":        {l.GID, "admins", 50, nil},
		"group by number":      {l.GID, "33", 33, nil},
		"unknown group":        {l.GID, "broken", 0, ErrUnknownGroup},
		"impossible group":     {l.GID, "a b", 0, ErrBadName},
		"user is not a group":  {l.GID, "bob", 0, ErrUnknownGroup},
		"empty user is no one": {l.UID, "", 0, ErrBadName},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := tt.of(tt.text)
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("got %d, %v, want %d, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestFilesThatAreNotThere(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "passwd")
	l := New(path)
	if _, err := l.ByName("alice"); err == nil || errors.Is(err, ErrUnknownUser) || !strings.Contains(err.Error(), path) {
		t.Errorf("no passwd: got %v", err)
	}
	// What could not be asked is not remembered.
	if err := os.WriteFile(path, []byte("alice:x:1:1::/:\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if u, err := l.ByName("alice"); err != nil || u.Groups != nil {
		t.Errorf("no group: got %+v, %v", u, err)
	}
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{"alice", `CORP\alice`, "alice@example.com", "müller", "a", "x1001", "1001x", "a-b.c_d$", strings.Repeat("a", 64)} {
		if err := CheckName(name); err != nil {
			t.Errorf("%q: got %v", name, err)
		}
	}
	for _, name := range []string{"", "-rf", ".", "..", ".hidden", "+", "a/b", "a:b", "a b", "a\n", "a\x00", "a\x1b", "\xff", "1001", "a\u00a0b", "a\u202eb", strings.Repeat("a", 65)} {
		if err := CheckName(name); !errors.Is(err, ErrBadName) {
			t.Errorf("%q: got %v, want ErrBadName", name, err)
		}
	}
}

func TestParsePasswdLine(t *testing.T) {
	tests := map[string]struct{ line, want string }{
		"good":             {"a:x:1:2:c:/h:/s", ""},
		"too few fields":   {"a:x:1:2:c:/h", "6 fields"},
		"too many":         {"a:x:1:2:c:/h:/s:", "8 fields"},
		"uid -1":           {"a:x:4294967295:2:c:/h:/s", "uid: "},
		"uid with a sign":  {"a:x:+1:2:c:/h:/s", "uid: "},
		"uid empty":        {"a:x::2:c:/h:/s", "uid: "},
		"gid too large":    {"a:x:1:99999999999:c:/h:/s", "gid: "},
		"home relative":    {"a:x:1:2:c:h:/s", "home directory"},
		"home empty":       {"a:x:1:2:c::/s", "home directory"},
		"name of NIS":      {"+::::::", "begins with +"},
		"name is a number": {"1:x:1:2:c:/h:/s", "it is a number"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := parsePasswdLine(tt.line)
			if (err != nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// FuzzParsePasswd: whatever the bytes, what comes out is usable.
func FuzzParsePasswd(f *testing.F) {
	f.Add([]byte(testPasswd))
	f.Add([]byte(testGroup))
	f.Add([]byte("a:x:1:1::/\x00:"))
	f.Fuzz(func(t *testing.T, data []byte) {
		users, problems := parsePasswd("passwd", data)
		seen := map[string]bool{}
		for _, u := range users {
			if CheckName(u.Name) != nil || !filepath.IsAbs(u.Home) || u.UID == 1<<32-1 || seen[u.Name] {
				t.Errorf("got %+v", u)
			}
			seen[u.Name] = true
		}
		if lines := strings.Count(string(data), "\n") + 1; len(users)+len(problems) > lines {
			t.Errorf("got %d users and %d problems of %d lines", len(users), len(problems), lines)
		}
		for _, g := range parseGroup(data) {
			if CheckName(g.name) != nil {
				t.Errorf("got group %+v", g)
			}
		}
		parseInitgroups(data, 0)
	})
}

// counting is a source that counts how often it is asked.
type counting struct {
	asked int
	users map[string]User
	err   error
	slow  time.Duration
}

func (c *counting) byName(name string) (User, error) {
	c.asked++
	time.Sleep(c.slow)
	u, ok := c.users[name]
	if !ok && c.err == nil {
		return u, ErrUnknownUser
	}
	return u, c.err
}

func (c *counting) byUID(uint32) (User, error)       { return User{}, ErrUnknownUser }
func (c *counting) group(string) (uint32, error)     { return 0, ErrUnknownGroup }
func (c *counting) names() ([]string, error)         { return nil, c.err }
func (c *counting) several([]string) ([]User, error) { return nil, c.err }

func TestAnswersAreKept(t *testing.T) {
	tests := map[string]struct {
		user   string
		err    error
		after  time.Duration
		asked  int // by two questions
		twoErr error
	}{
		"known":                 {"alice", nil, keep - 1, 1, nil},
		"known, too old":        {"alice", nil, keep, 2, nil},
		"unknown":               {"bob", nil, keepUnknown - 1, 1, ErrUnknownUser},
		"unknown, too old":      {"bob", nil, keepUnknown, 2, ErrUnknownUser},
		"no answer is not kept": {"bob", os.ErrDeadlineExceeded, 0, 2, os.ErrDeadlineExceeded},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &counting{users: map[string]User{"alice": {Name: "alice", Groups: []uint32{1}}}, err: tt.err}
				l := &Lookup{from: c, cache: map[string]answer{}}
				u, _ := l.ByName(tt.user)
				if len(u.Groups) > 0 {
					u.Groups[0] = 99 // the caller's own copy
				}
				time.Sleep(tt.after)
				u, err := l.ByName(tt.user)
				if !errors.Is(err, tt.twoErr) || len(u.Groups) > 0 && u.Groups[0] != 1 {
					t.Errorf("got %+v, %v, want %v", u, err, tt.twoErr)
				}
				if c.asked != tt.asked {
					t.Errorf("asked %d times, want %d", c.asked, tt.asked)
				}
			})
		})
	}
}

func TestManyAtOnceAskOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counting{users: map[string]User{"alice": {Name: "alice"}}, slow: time.Second}
		l := &Lookup{from: c, cache: map[string]answer{}}
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if _, err := l.ByName("alice"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if c.asked != 1 {
			t.Errorf("asked %d times, want once", c.asked)
		}
	})
}

func TestCacheIsBounded(t *testing.T) {
	l := &Lookup{from: &counting{}, cache: map[string]answer{}}
	for i := range keepMost + 10 {
		_, _ = l.ByName(fmt.Sprintf("user%d", i))
	}
	if got := len(l.cache); got > keepMost {
		t.Errorf("got %d answers, want at most %d", got, keepMost)
	}
}
