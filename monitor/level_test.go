package monitor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// letters are the levels of PROTOCOL 11 and 12, and of what came later. A word
// after a slash is an argument that needs the level.
var letters = map[Level]string{
	Viewer: `help hello verbose servers server users user quit format progress level events ping version complete
		placement reservations images image versions replicas replica desktops desktop templates template templatemethod
		roamclusters roamcluster roamservers roamserver heartbeat alarms alarm tokens ocfs2 ocfs2nodes ocfs2config
		jobs job waitjob settings setting metrics
		audit checks revocations`,
	Operator: `offlineserver onlineserver abortuser shutdownuser logoffuser drainserver cancelreservation migrate
		testroamserver refreshroamservers ackalarm clearalarm canceljob`,
	Admin: `abortuser/force setting/value fenceserver forgetserver createreplica startreplica stopreplica deletereplica publish rollback
		deleteversion deploy undeploy addtemplate deletetemplate synctemplates createroamcluster editroamcluster deleteroamcluster
		createroamserver editroamserver deleteroamserver managerpassword createtoken deletetoken replaceserver
		createocfs2 addocfs2node deleteocfs2node pushocfs2 backup loglevel
		rotateca`,
}

// needs is the level of a command, or of one of its arguments.
func needs(t *testing.T, name string) Level {
	t.Helper()
	for level, words := range letters {
		if slices.Contains(strings.Fields(words), name) {
			return level
		}
	}
	t.Errorf("%s has no level in level_test.go: look it up in the protocol", name)
	return Admin
}

// PROTOCOL 8: each command and each argument has the level of the protocol, and
// what the protocol knows is there or is known to be missing.
func TestLevelsAreThoseOfTheProtocol(t *testing.T) {
	table := NewTable(nil)
	for _, cmd := range table.Commands() {
		if want := needs(t, cmd.Name); cmd.Level != want {
			t.Errorf("%s needs %s, want %s", cmd.Name, cmd.Level, want)
		}
		for i := range cmd.Args {
			if a := &cmd.Args[i]; a.Level > cmd.Level {
				if want := needs(t, cmd.Name+"/"+a.Name); a.Level != want {
					t.Errorf("%s %s needs %s, want %s", cmd.Name, a.Name, a.Level, want)
				}
			}
		}
	}
	for level, words := range letters {
		for _, name := range strings.Fields(words) {
			name, arg, _ := strings.Cut(name, "/")
			cmd, ok := table.Lookup(name)
			if !ok && !table.missing[name] {
				t.Errorf("%s is neither there nor known to be missing", name)
			}
			if ok && arg != "" && !slices.ContainsFunc(cmd.Args, func(a Arg) bool { return a.Name == arg && a.Level == level }) {
				t.Errorf("%s has no argument %s for the level %s alone", name, arg, level)
			}
		}
	}
}

// PROTOCOL 17, 7: every command with every level, with arguments that it takes: it
// is denied to who has less than the level and to nobody else, and what was denied
// has changed nothing.
func TestEveryCommandAtEveryLevel(t *testing.T) {
	for _, level := range []Level{Viewer, Operator, Admin} {
		t.Run(level.String(), func(t *testing.T) {
			f := newFake()
			s := serve(t, f, func(cfg *Config) {
				cfg.Peer = func(net.Conn) (Caller, error) { return Caller{UID: 4242}, nil }
				cfg.Levels.Default = level.String()
			}).dial(t)
			if level == Viewer {
				before := fmt.Sprint(f.servers, f.sessions, f.reservations, len(f.jobs), f.alarms, f.settings, f.loglevel, f.tokens, f.password)
				defer func() {
					if after := fmt.Sprint(f.servers, f.sessions, f.reservations, len(f.jobs), f.alarms, f.settings, f.loglevel, f.tokens, f.password); after != before {
						t.Errorf("a viewer has changed\n%s\nto\n%s", before, after)
					}
				}()
			}
			tried := map[string]bool{}
			for i, line := range everyCommand {
				name, rest := cutName(line)
				if _, ok := NewTable(nil).Lookup(name); !ok || name == "level" || name == "managerpassword" || i > 0 && everyCommand[i-1] == "managerpassword" {
					continue // no command, or the secret that follows one
				}
				want := needs(t, name)
				if name == "abortuser" && strings.HasSuffix(rest, " force") || name == "setting" && strings.Contains(rest, " ") {
					want = Admin
				}
				a := s.ask(line)
				if denied := a.code == "530"; denied != (want > level) {
					t.Errorf("%s at %s: got %s %s", line, level, a.code, a.end)
				}
				tried[name] = true
			}
			for _, cmd := range NewTable(nil).Commands() {
				if !tried[cmd.Name] && !slices.Contains([]string{"quit", "level", "managerpassword"}, cmd.Name) {
					t.Errorf("%s was not tried", cmd.Name)
				}
			}
			if a := s.ask("managerpassword"); level < Admin && a.code != "530" {
				t.Errorf("managerpassword at %s: got %s", level, a.code)
			}
		})
	}
}

// people is a directory whose users and groups change.
type people struct {
	groups map[string]int
	of     map[int][]int
	asked  *int
}

func (p people) UserID(string) (int, error) { return 0, errors.New("no such user") }

func (p people) GroupID(name string) (int, error) {
	*p.asked++
	if id, ok := p.groups[name]; ok {
		return id, nil
	}
	return 0, errors.New("no such group")
}

func (p people) UserName(uid int) (string, bool) { return fmt.Sprintf("user%d", uid), p.of[uid] != nil }

func (p people) Groups(uid int) []int { return p.of[uid] }

// down is a directory whose server does not answer about anybody but root.
type down chan struct{}

func (d down) UserID(string) (int, error)  { <-d; return 0, errors.New("no answer") }
func (d down) GroupID(string) (int, error) { <-d; return 0, errors.New("no answer") }
func (d down) Groups(int) []int            { <-d; return nil }

func (d down) UserName(uid int) (string, bool) {
	if uid != 0 {
		<-d
	}
	return "root", uid == 0
}

// A directory server that is down holds up nobody but those whom it knows, from
// the start on and after a change: root is answered meanwhile.
func TestDirectoryDown(t *testing.T) {
	d, tuner, n := make(down), &Tuner{}, 0
	ts := serve(t, newFake(), func(cfg *Config) {
		cfg.Directory, cfg.Tuner = d, tuner
		cfg.Levels = Levels{Operators: "@helpers", Default: "admin"}
		cfg.Peer = func(net.Conn) (Caller, error) { // they come one after the other
			if n++; n == 2 {
				return Caller{UID: 7}, nil
			}
			return Caller{}, nil
		}
	})
	up := sync.OnceFunc(func() { close(d) })
	t.Cleanup(up)
	root := func() *strict {
		t.Helper()
		s := ts.dial(t)
		s.nc.SetDeadline(time.Now().Add(mostWait))
		s.want("level", "212 ok level=admin uid=0 pid=0")
		return s
	}
	first := root()
	other := ts.dial(t)
	other.send("level\n")
	root()
	tuner.Set(Tuning{Levels: Levels{Operators: "helper"}})
	root()
	first.want("ping", "200 ok")
	up()
	if a := other.reply(); a.end != "ok level=viewer uid=7 pid=0" {
		t.Errorf("got %s", a.end)
	}
}

// PROTOCOL 8: the groups of the account count, those of the process, and its
// primary one; each alone.
func TestSupplementaryGroups(t *testing.T) {
	asked := 0
	d := people{groups: map[string]int{"admins": 500, "helpers": 600}, of: map[int][]int{1: {100, 500}, 2: {100}}, asked: &asked}
	l, err := Levels{Admins: "@admins", Operators: "@helpers", Default: "viewer"}.resolve(d)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		caller Caller
		want   Level
	}{
		"of the account":                {Caller{UID: 1, GID: 100}, Admin},
		"of the process":                {Caller{UID: 2, GID: 100, groups: []int{100, 600}}, Operator},
		"the primary one":               {Caller{UID: 2, GID: 500}, Admin},
		"none":                          {Caller{UID: 2, GID: 100, groups: []int{700}}, Viewer},
		"no account, but groups":        {Caller{UID: 9, GID: 9, groups: []int{600}}, Operator},
		"no account":                    {Caller{UID: 9, GID: 9}, Viewer},
		"two lists: the higher one":     {Caller{UID: 1, GID: 600}, Admin},
		"root is admin without a group": {Caller{}, Admin},
	} {
		if got := l.level(d, test.caller); got != test.want {
			t.Errorf("%s: got %s, want %s", name, got, test.want)
		}
	}
}

// PROTOCOL 8: a mistake gives the level viewer and is in the log, once. When the
// name is there after all, nobody has to say so.
func TestMistakeHeals(t *testing.T) {
	asked := 0
	d := people{groups: map[string]int{}, asked: &asked}
	log := &safeBuffer{}
	bubble(t, func(cfg *Config) {
		cfg.Directory = d
		cfg.Log = zerolog.New(log)
		cfg.Levels = Levels{Operators: "@helpers", Default: "viewer"}
		cfg.Peer = func(net.Conn) (Caller, error) { return Caller{UID: 7, groups: []int{600}}, nil }
	}, func(t *testing.T, dial func() *strict, stop func()) {
		dial().want("level", "212 ok level=viewer uid=7 pid=0")
		dial().want("level", "212 ok level=viewer uid=7 pid=0")
		if asked != 1 {
			t.Errorf("asked %d times at once", asked)
		}
		time.Sleep(lookAgain)
		dial().want("level", "212 ok level=viewer uid=7 pid=0")
		d.groups["helpers"] = 600
		time.Sleep(lookAgain)
		dial().want("level", "212 ok level=operator uid=7 pid=0")
		dial().want("level", "212 ok level=operator uid=7 pid=0")
		if asked != 3 {
			t.Errorf("asked %d times", asked)
		}
		stop()
	})
	if text := log.String(); strings.Count(text, "everybody but root may only look") != 1 || !strings.Contains(text, `VERDECMD_CONN_OPERATORS: \"helpers\"`) && !strings.Contains(text, `VERDECMD_CONN_OPERATORS: \"@helpers\"`) {
		t.Errorf("the log is\n%s", text)
	}
}

// The groups of the process at the other end come from the kernel.
func TestPeerGroups(t *testing.T) {
	dir, err := os.MkdirTemp("", "verdecmd") // reachable for others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755)
	path := filepath.Join(dir, "s")
	serveAt(t, newFake(), path, func(cfg *Config) { cfg.Levels = Levels{Operators: "@47110", Admins: "@47111", Default: "viewer"} })
	os.Chmod(path, 0o777)
	for groups, want := range map[string]string{"--clear-groups": "viewer", "--groups 47112,47110": "operator", "--groups 47110,47111": "admin"} {
		out, _ := shell(t, path, "echo level | setpriv --reuid 65534 --regid 65534 "+groups+" nc -N -U $S")
		if !strings.Contains(out, "212 ok level="+want+" uid=65534 pid=") {
			t.Errorf("%s: got %s", groups, out)
		}
	}
}
