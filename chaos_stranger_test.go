package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// chaosStranger: a desktop dies while its satellite is dead, and a process of
// the same user gets its number. The desktop is gone, and the stranger is not
// touched (S1, S7, V-95). A name space of numbers is needed to choose one.
func chaosStranger(t *testing.T, p plan) {
	c := newChaos(t, p, 0, 2, nil)
	d := c.configure(1, values{"WIN4_VERDE_PUBADDR": "10.77.0.11"}, "")
	c.host(d, d.name, "10.77.0.11")
	// The first process of the name space buries all, since it ignores that.
	first := exec.Command("nsenter", "--net=/run/netns/"+d.space, "unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--propagation", "private",
		"env", "--ignore-signal=CHLD", "sleep", "100000")
	check(t, first.Start())
	defer func() { first.Process.Kill(); first.Wait() }()
	inside := 0
	c.until("the name space", func() bool { inside = childOf(first.Process.Pid); return inside > 0 && comm(inside) == "sleep" })
	enter := []string{"nsenter", "--target=" + strconv.Itoa(inside), "--net", "--pid", "--mount"}
	d.enter = enter
	d.start()
	c.sats = []*daemon{d}
	c.until("the satellite", func() bool { return c.up(1) })
	c.number()
	c.win4(0, 1, "u1")
	c.win4(0, 1, "u2")
	c.settled(knownWithin)

	lives := c.lives()
	victim := lives[slices.IndexFunc(lives, func(l *life) bool { return l.user == "u1" })]
	c.note("kill -9 of the satellite, and of the desktop of u1, which has the number %d there", victim.pid)
	check(t, syscall.Kill(childOf(d.cmd.Process.Pid), syscall.SIGKILL))
	_ = d.cmd.Wait()
	for pid, line := range c.desktops() {
		if sessionOf(line) == victim.session {
			c.end(pid)
			c.until("its number", func() bool { _, err := os.Stat("/proc/" + strconv.Itoa(pid)); return err != nil })
		}
	}
	uid := strconv.Itoa(firstRealUID)
	stranger := exec.Command("nsenter", append(enter[1:], "sh", "-c", fmt.Sprintf(
		`echo %d >/proc/sys/kernel/ns_last_pid; setpriv --reuid=%s --regid=%s --clear-groups sleep 1000 & echo $!; wait`, victim.pid-1, uid, uid))...)
	out, err := stranger.StdoutPipe()
	check(t, err, stranger.Start())
	defer func() { stranger.Process.Kill(); stranger.Wait() }()
	var got int
	if _, err := fmt.Fscan(out, &got); err != nil || got != victim.pid {
		t.Fatalf("the stranger has the number %d, not %d: %v", got, victim.pid, err)
	}
	c.note("a stranger has the number now")
	d.start()
	c.until("the satellite's word", func() bool { return c.up(1) && len(c.table("users", "state=running")) == 2 }) // a heading and u2
	c.settled(knownWithin)
	if !alive(inside, got) {
		t.Error("S7: the stranger was touched")
	}
	c.until("V-95: the master's word that session "+victim.session+" has vanished", func() bool {
		return strings.Contains(c.m.log.String(), `"session":"`+victim.session+`","server":1,"how":"vanished"`)
	})
	c.win4(0, 1, "u1")
	if !alive(inside, got) {
		t.Error("S7: the stranger was touched at the next login")
	}
	lives = c.lives()
	if n := len(lives); n != 3 {
		t.Errorf("%d desktops have lived, want 3: %v", n, lives)
	}
	for _, v := range slices.Concat(oneDesktopEach(lives), allowedEach(lives, c.claimsOf(lives))) {
		t.Error(v)
	}
	c.survived("stranger")
}

// childOf is the first child of a process, 0 for none.
func childOf(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	f := strings.Fields(string(b))
	if len(f) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(f[0])
	return n
}

func comm(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(string(b))
}

// alive tells whether a process, by its number in the name space of another
// one, sleeps as it should: neither gone nor stopped.
func alive(inside, pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/proc/%d/stat", inside, pid))
	return err == nil && strings.Contains(string(b), "(sleep) S ")
}
