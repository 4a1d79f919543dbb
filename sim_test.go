package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
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
		w.masters[arg(1)] = &simMaster{name: arg(1), store: &simStore{Mem: copyStore(w.t, w.masters["master"].store.Mem)}}
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
	case "unplug": // the program dies, and nobody hears of it
		w.net.vanish(arg(1))
		sat(1).kill()
	case "poweroff":
		sat(1).powerOff()
	case "cut", "hole", "heal":
		w.net.change(arg(1), second(words[1:], "master"), func(p *simPath) {
			p.cut = words[0] == "cut"
			p.hole(words[0] == "hole")
		})
	case "oneway": // SATELLITE up|down: nothing arrives in this direction
		w.net.change(arg(1), "master", func(p *simPath) { p.cut, p.up, p.down = false, arg(2) == "up", arg(2) == "down" })
	case "repeat": // SATELLITE [no]: each call and each message comes twice
		w.net.change(arg(1), "master", func(p *simPath) { p.repeat = second(words[1:], "") != "no" })
	case "late": // SATELLITE TIME: calls and their answers take so long
		w.net.change(arg(1), "master", func(p *simPath) { p.late = w.duration(arg(2)) })
	case "flap": // SATELLITE N TIME: N times cut off for TIME and back for TIME
		for range w.number(arg(2)) {
			w.net.change(arg(1), "master", func(p *simPath) { p.cut = true })
			time.Sleep(w.duration(arg(3)))
			w.net.change(arg(1), "master", func(p *simPath) { p.cut = false })
			time.Sleep(w.duration(arg(3)))
		}
	case "suspend":
		sat(1).suspend()
	case "resume":
		sat(1).resume()
	case "burst": // N: so many users log in at one instant, one after the other satellite
		return w.burst(w.number(arg(1)))
	case "killincommit": // before|after: the master dies in its next commit, not on the disk yet or just so
		// time goes on when nothing else is left to do: its events have been heard then
		w.masters["master"].dieInCommit(w, arg(1) == "after", func() { time.Sleep(time.Nanosecond) })
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
		w.mu.Lock()
		life := m.life
		w.mu.Unlock()
		reply := m.ask(strings.Join(words, " "))
		w.mu.Lock()
		defer w.mu.Unlock()
		if m.life != life {
			return []string{"no answer: the master is dead"}
		}
		return reply
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
	case "quiet": // TIME: wait, and note no events
		w.hush(true)
		time.Sleep(w.duration(arg(1)))
		synctest.Wait()
		w.hush(false)
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

func (w *simWorld) hush(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.quiet = on
}

// burst logs users in at one instant and counts where they are sent.
func (w *simWorld) burst(n int) []string {
	w.hush(true)
	names := slices.Sorted(maps.Keys(w.sats))
	got := map[string]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			s := w.sats[names[i%len(names)]]
			o, err := s.self.Open(context.Background(), simUser(fmt.Sprintf("user%d", i), filepath.Join(w.dir, "home")), "local", func(string) {})
			to := s.name
			if err != nil {
				to = err.Error()
			} else if o.Referred != nil {
				to = o.Referred.Name
			}
			mu.Lock()
			defer mu.Unlock()
			got[to]++
		})
	}
	wg.Wait()
	synctest.Wait()
	w.hush(false)
	var out []string
	for _, to := range slices.Sorted(maps.Keys(got)) {
		out = append(out, fmt.Sprintf("%d logins: %s", got[to], to))
	}
	return out
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
	if m := w.masters[name]; m != nil && m.cancel != nil { // died in a commit
		m.kill(w)
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
