package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Floods of every kind against a real master with two real satellites, and
// honest ones beside them: rows A, D and E of the threat model, S18, S21. The
// flood is a process of its own; the programs are built as users get them.
//
// VERDECMD_FLOOD_SECONDS is how long each kind lasts (1.5), for longer
// trials, and VERDECMD_FLOOD_KINDS which there are.
func TestFlood(t *testing.T) {
	// Alone on the machine as far as this package goes: times are measured, for
	// the log. How long something may take here is what a slow machine needs.
	last := 1500 * time.Millisecond
	if s := os.Getenv("VERDECMD_FLOOD_SECONDS"); s != "" {
		n, err := strconv.Atoi(s)
		check(t, err)
		last = time.Duration(n) * time.Second
	}
	kinds := "silent slow garbage foreign plain idle noise reset ping settings headers unread words lines sessions deaf local"
	if s := os.Getenv("VERDECMD_FLOOD_KINDS"); s != "" {
		kinds = s
	}
	r := newReal(t)
	bin := r.path("bin")
	check(t, os.Mkdir(bin, 0o755))
	build := func(dir, name, what string) {
		cmd := exec.Command("go", "build", "-trimpath", "-o", bin+"/"+name, what)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("building %s: %v\n%s", name, err, out)
		}
	}
	build(".", "verdecmd", ".")
	build("packaging/tools", "flood", "./flood")
	check(t, os.Symlink("verdecmd", bin+"/win4"))

	path := "PATH=" + bin + ":$PATH"
	// The master raises a low limit of open files by itself.
	m := r.master(values{"VERDECMD_CONN_MAX": "2048", "WIN4_VERDE_RESERVATION_TIMEOUT": "5"}, "ulimit -Sn 1024\n"+path)
	r.satellite(1, nil, path)
	r.satellite(2, nil, path)
	// Each kind is a machine of its own: one that comes too often is refused.
	for _, name := range append(strings.Fields(kinds), "sat3", "sat4") {
		r.run(0, bin+"/verdecmd", "enrol", name, "--settings", r.path("m"), "--out", r.path("k"+name))
	}
	h := &honest{r: r, bin: bin}
	h.start(t)
	f := &flooded{t: t, r: r, m: m, h: h, bin: bin, last: last}
	f.calm()
	patient := f.patient()
	for _, kind := range strings.Fields(kinds) {
		f.flood(kind)
	}
	patient()
	if peak := m.memory("VmHWM"); peak > 512<<20 {
		t.Errorf("the master took %d MiB, want less than 512", peak>>20)
	}
	for n := 1; n <= 2; n++ {
		r.until(fmt.Sprintf("the link of satellite %d", n), func() bool { return r.link(n) == "up" })
	}
	for line := range strings.Lines(m.log.String()) {
		down := strings.Contains(line, "satellite's link is down") && (strings.Contains(line, `"sat1"`) || strings.Contains(line, `"sat2"`) || strings.Contains(line, `"sat3"`))
		if down || strings.Contains(line, "panicked") {
			t.Errorf("log of the master: %s", line)
		}
	}
}

// flooded is a master under trial.
type flooded struct {
	t    *testing.T
	r    *real
	m    *daemon
	h    *honest
	bin  string
	last time.Duration

	files, goroutines int // before
}

// processor is the time that a daemon has had of the processors.
func (d *daemon) processor(t *testing.T) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.cmd.Process.Pid))
	check(t, err)
	w := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:]))
	user, err1 := strconv.Atoi(w[11])
	system, err2 := strconv.Atoi(w[12])
	check(t, err1, err2)
	return time.Duration(user+system) * 10 * time.Millisecond
}

func (f *flooded) routines() int {
	f.t.Helper()
	n, err := f.h.figure("go_goroutines")
	check(f.t, err)
	return n
}

// calm notes how the master is without a flood.
func (f *flooded) calm() {
	f.t.Helper()
	time.Sleep(f.last) // what is measured is time
	f.h.did(f.t)
	took, wrong := f.h.times()
	f.show("nobody", "", took)
	if len(wrong) > 0 {
		f.t.Errorf("without a flood: %q", wrong)
	}
	f.files, f.goroutines = f.m.files(), f.routines()
}

func (f *flooded) show(kind, said string, took map[string][]time.Duration) {
	f.t.Helper()
	var b strings.Builder
	for _, deed := range []string{refers, logins, asks, comes} {
		d := took[deed]
		fmt.Fprintf(&b, "; %s %d: p50 %v p99 %v", deed, len(d), quantile(d, 0.5), quantile(d, 0.99))
	}
	f.t.Logf("%s%s %s", kind, b.String(), said)
}

// flood lets one kind come, and looks at what it did and what it left behind.
func (f *flooded) flood(kind string) {
	t := f.t
	t.Helper()
	before, lines, cpu := f.m.memory("VmRSS"), f.warnings(), f.m.processor(t)
	f.h.times()
	began := time.Now()
	last := f.last
	if kind == "silent" {
		last *= 2 // until ten thousand are there
	}
	// Nice: strangers do not take the master's own processors.
	args := []string{"nice", "-n", "10", f.bin + "/flood", "-kind", kind, "-address", "127.0.0.1:" + f.r.port, "-socket", f.r.path("sock"),
		"-pki", f.r.path("k" + kind), "-for", last.String()}
	if kind == "local" { // a user of the first satellite's computer, at its socket for logins
		args = []string{"nice", "-n", "10", "setpriv", "--reuid=31001", "--regid=31001", "--clear-groups", f.bin + "/flood", "-kind", "words", "-socket", f.r.path("sat1"), "-for", last.String()}
	}
	said := strings.TrimSpace(f.r.run(0, args...))
	lasted := time.Since(began)
	share := float64(f.m.processor(t)-cpu) / float64(lasted)
	peak := f.m.memory("VmRSS")
	f.h.did(t)
	took, wrong := f.h.times()

	// S18, row A: what strangers opened is gone; the honest ones open and close
	// a few files all the time.
	ended := time.Now()
	back := func() bool {
		return f.m.files() <= f.files+f.files/20+8 && f.routines() <= f.goroutines+f.goroutines/20+24
	}
	for !back() {
		if time.Since(ended) > mostWait {
			t.Errorf("%s: %v after the end the master has %d files and %d goroutines, before it had %d and %d", kind, mostWait, f.m.files(), f.routines(), f.files, f.goroutines)
			break
		}
		time.Sleep(100 * time.Millisecond) // what is measured is time
	}
	gone := time.Since(ended)
	after := f.m.memory("VmRSS")
	wrote := f.warnings() - lines
	f.show(kind, fmt.Sprintf("| %s | all gone after %.1f s; %.2f processors; memory %d, %d, %d MiB; %d warnings", said, gone.Seconds(), share, before>>20, peak>>20, after>>20, wrote), took)

	var made int
	for word := range strings.FieldsSeq(said) {
		if n, ok := strings.CutPrefix(word, "made="); ok {
			made, _ = strconv.Atoi(n)
		}
	}
	if made == 0 {
		t.Errorf("%s: the flood reached nothing: %s", kind, said)
	}
	if len(wrong) > 0 {
		t.Errorf("%s: honest ones were refused %d times: %.500q", kind, len(wrong), wrong)
	}
	// A pause of the machine makes one time long, but not half of them.
	for deed, most := range map[string]time.Duration{refers: time.Second, asks: time.Second, logins: 5 * time.Second, comes: 5 * time.Second} {
		d := took[deed]
		if half, all := quantile(d, 0.5), quantile(d, 0.99); len(d) >= 5 && half > most || all > 6*most+10*time.Second {
			t.Errorf("%s: %s: %d times, p50 %v, want less than %v; p99 %v", kind, deed, len(d), half, most, all)
		}
	}
	// S21: what is left of memory is not more than 64 KiB for each bad one, but
	// for what the run-time of the language keeps for later.
	if left := after - before; left > 64<<10*made+32<<20 {
		t.Errorf("%s: %d MiB are left of %d connections", kind, left>>20, made)
	}
	// Ten in ten seconds of each of two kinds, and a line a second of the socket.
	if most := 40 + 4*int(time.Since(began).Seconds()); wrote > most {
		t.Errorf("%s: %d warnings in the log, want at most %d", kind, wrote, most)
	}
}

// warnings counts the lines of the log that tell of something wrong. That the
// coming satellite goes is not.
func (f *flooded) warnings() (n int) {
	for line := range strings.Lines(f.m.log.String()) {
		if (strings.Contains(line, `"level":"warn"`) || strings.Contains(line, `"level":"error"`)) && !strings.Contains(line, "link is down") {
			n++
		}
	}
	return n
}

// patient lets a few strangers stay as long as they may: all are gone within a
// minute, though they would stay for ever. The wait is for the function returned.
func (f *flooded) patient() (wait func()) {
	f.t.Helper()
	type outcome struct{ kind, said string }
	all := make(chan outcome, 2)
	kinds := []string{"silent", "slow"}
	for _, kind := range kinds {
		go func() {
			said, _ := f.r.try(f.bin+"/flood", "-kind", kind, "-address", "127.0.0.1:"+f.r.port, "-n", "20", "-once", "-for", "60s")
			all <- outcome{kind, said}
		}()
	}
	f.files, f.goroutines = f.files+40, f.goroutines+100 // as long as they are there
	return func() {
		for range kinds {
			if o := <-all; !strings.Contains(o.said, "made=20 ") || !strings.Contains(o.said, "closed=20 ") {
				f.t.Errorf("20 %s strangers, after a minute: %s", o.kind, o.said)
			}
		}
	}
}
