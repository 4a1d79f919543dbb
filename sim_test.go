package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"verdecmd/master/cluster"
	"verdecmd/master/store"
	"verdecmd/satellite/desktop"
	"verdecmd/satellite/desktop/fake"
)

var update = flag.Bool("update", false, "write what came of the simulations into testdata/sim")

// TestSim plays the stories in testdata/sim: real masters and satellites in a
// bubble. The names of the files and their first lines tell what they prove.
func TestSim(t *testing.T) {
	files, err := filepath.Glob("testdata/sim/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			dir := simDir(t)
			var got []byte
			synctest.Test(t, func(t *testing.T) { got = play(t, dir, string(want)) })
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s; if it is right, go test . -run Sim -update writes it", firstDifference(string(got), string(want)))
			}
		})
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	step := ""
	for i := 0; ; i++ {
		if i >= len(g) || i >= len(w) || g[i] != w[i] {
			at := func(lines []string) string {
				return strings.Join(lines[min(i, len(lines)):min(i+6, len(lines))], "\n\t")
			}
			return fmt.Sprintf("line %d, after %q:\n got:\n\t%s\nwant:\n\t%s", i+1, step, at(g), at(w))
		}
		if strings.HasPrefix(g[i], "$ ") {
			step = g[i]
		}
	}
}

// play carries out the steps of a story and returns it with what came of them.
func play(t *testing.T, dir, story string) []byte {
	w := newSimWorld(t, dir)
	var out bytes.Buffer
	for line := range strings.Lines(story) {
		if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
			out.WriteString(line)
			continue
		}
		step, ok := strings.CutPrefix(strings.TrimSpace(line), "$ ")
		if !ok {
			continue
		}
		fmt.Fprintf(&out, "$ %s\n", step)
		rest := w.step(step)
		synctest.Wait()
		out.WriteString(w.take())
		for _, l := range rest {
			out.WriteString(strings.TrimRight("         "+w.mask(l), " ") + "\n")
		}
		w.desktops()
	}
	w.end()
	return out.Bytes()
}

// step does one step; what it returns is shown below the events.
func (w *simWorld) step(line string) []string {
	words := strings.Fields(line)
	background := words[len(words)-1] == "&"
	if background {
		words = words[:len(words)-1]
	}
	arg := func(i int) string {
		if i >= len(words) {
			w.t.Fatalf("%s: a word is missing", line)
		}
		return words[i]
	}
	sat := func(i int) *simSat {
		s := w.sats[arg(i)]
		if s == nil {
			w.t.Fatalf("%s: no such satellite", line)
		}
		return s
	}
	run := func(f func()) {
		if background {
			w.steps.Go(f)
		} else {
			f()
		}
	}
	switch words[0] {
	case "master": // starts it, or again
		w.masterStep(words[1:])
	case "killmaster":
		w.masters[second(words, "master")].kill(w)
	case "copymaster": // NEW: on a copy of the database of the first
		w.masters[arg(1)] = &simMaster{name: arg(1), store: copyStore(w.t, w.masters["master"].store)}
		w.startMaster(arg(1))
	case "satellite": // starts it, or again
		if s := w.sats[arg(1)]; s != nil {
			s.begin()
			return nil
		}
		gib := 16
		if len(words) > 2 {
			gib = w.number(words[2])
		}
		w.addSatellite(arg(1), uint64(gib)<<30)
	case "killsatellite":
		sat(1).kill()
	case "stopsatellite":
		sat(1).stop()
	case "poweroff":
		sat(1).powerOff()
	case "cut", "hole", "heal":
		w.net.change(arg(1), second(words[1:], "master"), func(p *simPath) { p.cut, p.hole = words[0] == "cut", words[0] == "hole" })
	case "delay":
		w.net.change(arg(1), "master", func(p *simPath) { p.delay = w.duration(arg(2)) })
	case "guest": // USER: how the desktops of a user behave from now on
		w.guest(arg(1), words[2:])
	case "hang", "thaw", "crash", "guestoff":
		w.inside(words[0], arg(1))
	case "login": // USER SATELLITE
		s := sat(2)
		self := s.self
		run(func() {
			text := s.login(context.Background(), self, arg(1))
			w.note(false, "%s", text)
		})
	case "admin": // [@MASTER] COMMAND
		words, m := words[1:], w.masters["master"]
		if name, ok := strings.CutPrefix(words[0], "@"); ok {
			words, m = words[1:], w.masters[name]
		}
		if background {
			on := m.admin
			run(func() { w.note(false, "%s", strings.Join(ask(on, strings.Join(words, " ")), " | ")) })
			return nil
		}
		return m.ask(strings.Join(words, " "))
	case "full": // the master's disk takes nothing; "full no" ends it
		var err error = store.ErrNoSpace
		if second(words, "") == "no" {
			err = nil
		}
		w.masters["master"].store.Fail(err)
	case "desktops":
		return w.desktops()
	case "lie": // from now on an administrator affirms what is not so
		w.lie = true
	case "wait":
		time.Sleep(w.duration(arg(1)))
	default:
		w.t.Fatalf("%s: unknown step", line)
	}
	return nil
}

func second(words []string, def string) string {
	if len(words) > 1 {
		return words[1]
	}
	return def
}

func (w *simWorld) number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

func (w *simWorld) duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// masterStep starts a master: [NAME] [lease=SELF/REPLACE] [hold].
func (w *simWorld) masterStep(words []string) {
	name := "master"
	for _, x := range words {
		if v, ok := strings.CutPrefix(x, "lease="); ok {
			self, replace, _ := strings.Cut(v, "/")
			w.limits.Lost, w.limits.LeaseReplace, w.leaseSelf = cluster.Lease, w.duration(replace), w.duration(self)
		} else if x == "hold" {
			w.limits.Lost, w.limits.LeaseReplace, w.leaseSelf = cluster.Hold, 0, 0
		} else {
			name = x
		}
	}
	w.startMaster(name)
}

// guest sets how the desktops of a user behave: boot=TIME never-ready
// ignores-power ignores-quit shutdown=TIME start=TIME fails.
func (w *simWorld) guest(user string, words []string) {
	b := fake.Behaviour{Boot: 2 * time.Second, Shutdown: time.Second}
	for _, x := range words {
		key, value, _ := strings.Cut(x, "=")
		switch key {
		case "start":
			b.Start = w.duration(value)
		case "boot":
			b.Boot = w.duration(value)
		case "shutdown":
			b.Shutdown = w.duration(value)
		case "never-ready":
			b.NeverReady = true
		case "ignores-power":
			b.IgnorePower = true
		case "ignores-quit":
			b.IgnoreQuit = true
		case "fails":
			b.StartErr = desktop.ErrNoSpace
		default:
			w.t.Fatalf("guest: %s", x)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.guests[user] = b
}

// inside makes something happen inside the desktop of a user.
func (w *simWorld) inside(what, user string) {
	for _, s := range w.sats {
		for _, id := range s.host.Running() {
			w.mu.Lock()
			mine := w.users[id] == user
			w.mu.Unlock()
			if !mine {
				continue
			}
			switch what {
			case "hang", "thaw":
				s.host.Hang(id, what == "hang")
			case "crash":
				s.host.Crash(id)
			case "guestoff":
				s.host.PowerOff(id)
			}
		}
	}
}

// copyStore is an administrator who copies the database and starts a second
// master on it.
func copyStore(t testing.TB, from *store.Mem) *store.Mem {
	to := store.NewMem()
	err := from.View(t.Context(), func(s store.Snapshot) error {
		for _, bucket := range []string{"sessions", "condemned", "meta", "servers", "job", "job-meta", "event"} {
			var changes []store.Change
			for id, b := range s.All(bucket) {
				changes = append(changes, store.Change{Key: store.Key{Bucket: bucket, ID: id}, Value: b})
			}
			for c := range slices.Chunk(changes, store.MaxChanges) {
				if err := to.Commit(t.Context(), 1, nil, c); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for to.Epoch() <= from.Epoch() {
		to.Restart()
	}
	return to
}
