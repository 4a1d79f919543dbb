package guard

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"verdecmd/satellite/desktop"
)

// TestMain is also the guardian: its journal is a directory with files that
// hold process numbers.
func TestMain(m *testing.M) {
	if len(os.Args) == 6 && os.Args[1] == Role && os.Args[2] == DirFlag {
		parent, _ := strconv.Atoi(os.Getenv(ParentEnv))
		err := Guard(context.Background(), Config{
			Memory:  os.NewFile(MemoryFD, "memory"),
			Journal: func() ([]Desktop, error) { return listed(os.Args[3]) },
			Kill:    func(d Desktop) error { return killOnce(d.Process.PID) },
			Exists:  func(d Desktop) error { return desktop.ErrGone },
			Alone:   func() bool { return os.Getppid() != parent },
			Log:     zerolog.New(os.Stderr),
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func listed(dir string) (out []Desktop, err error) {
	files, err := os.ReadDir(filepath.Join(dir, "list"))
	for _, f := range files {
		pid, _ := strconv.Atoi(f.Name())
		out = append(out, Desktop{Session: "s" + f.Name(), Process: desktop.Process{PID: pid}})
	}
	return out, err
}

func killOnce(pid int) error {
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		return desktop.ErrGone
	}
	return nil
}

// S1: the guardian outlives its keeper's programs, is replaced when it is killed
// or stands still, and ends what is listed when the lease is over.
func TestKeeper_S1(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "list"), 0o700); err != nil {
		t.Fatal(err)
	}
	victim := exec.Command("sleep", "300")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = victim.Process.Kill(); _ = victim.Wait() })
	if err := os.WriteFile(filepath.Join(dir, "list", strconv.Itoa(victim.Process.Pid)), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	keeper := func(dir, journal string) *Keeper {
		k, err := NewKeeper(dir, journal, zerolog.New(&log))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { k.end(); k.mem.close() })
		return k
	}
	// work keeps until a new guardian has shown itself, and returns its process.
	work := func(k *Keeper, not int) int {
		t.Helper()
		for end := time.Now().Add(time.Minute); time.Now().Before(end); wait(t) {
			k.keep(bootTime())
			if k.pid != 0 && k.pid != not && k.Awake() == nil {
				k.keep(bootTime())
				return k.pid
			}
		}
		t.Fatalf("no guardian: %v, log %s", k.Awake(), log.String())
		return 0
	}
	journal := rand.Text()
	k := keeper(dir, journal)
	k.keep(bootTime())
	if k.pid != 0 {
		t.Error("a guardian before anybody has told of a lease")
	}
	lease := bootTime() + time.Hour
	k.Lease(lease)
	first := work(k, 0)
	if err := unix.Kill(first, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := work(k, first)
	if err := unix.Kill(second, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	k.keep(bootTime() + frozenFor + time.Second)
	third := work(k, second)
	if got := guardians(journal); !slices.Equal(got, []int{third}) {
		t.Errorf("guardians %v, want only %d", got, third)
	}

	// A journal that somebody has put in the place of ours has a guardian of its own.
	stranger := keeper(dir, rand.Text())
	stranger.Lease(lease)
	work(stranger, 0)
	if got := guardians(journal); !slices.Equal(got, []int{third}) {
		t.Errorf("guardians %v, want %d to stay", got, third)
	}
	stranger.end()

	// Another start of the program: its keeper knows nothing of the first one's,
	// and the directory has got another name.
	moved := filepath.Join(t.TempDir(), "moved")
	if err := os.Symlink(dir, moved); err != nil {
		t.Fatal(err)
	}
	next := keeper(moved, journal)
	next.Lease(lease)
	fourth := work(next, 0)
	if os.Geteuid() == 0 {
		// The latter, for else /proc with hidepid makes desktops look gone.
		want := rights(t, os.Getpid()) & (1<<unix.CAP_KILL | 1<<unix.CAP_SYS_PTRACE)
		if got := rights(t, fourth); got != want {
			t.Errorf("the guardian has the capabilities %x, want %x", got, want)
		}
	}
	var status unix.WaitStatus
	if pid, err := unix.Wait4(third, &status, 0, nil); pid != third || status.Signal() != unix.SIGKILL {
		t.Errorf("the guardian of the earlier program: %d, %v, %v", pid, status, err)
	}
	k.pid = 0
	if err := unix.Kill(victim.Process.Pid, 0); err != nil {
		t.Errorf("under a lease the desktop is gone: %v", err)
	}

	next.Lease(bootTime() - After - time.Second)
	if err := victim.Wait(); err == nil || victim.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the desktop's end: %v", err)
	}
	next.Lease(0)
	next.keep(bootTime())
	if got := guardians(journal); len(got) != 0 || next.pid != 0 {
		t.Errorf("without a lease: guardians %v (the last was %d)", got, fourth)
	}
}

// rights are the capabilities of a process.
func rights(t *testing.T, pid int) (caps uint64) {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err == nil {
		_, after, _ := strings.Cut(string(raw), "\nCapEff:\t")
		caps, err = strconv.ParseUint(after[:min(16, len(after))], 16, 64)
	}
	if err != nil {
		t.Fatal(err)
	}
	return caps
}

// wait lets real processes go on for a moment.
func wait(t *testing.T) {
	t.Helper()
	select {
	case <-time.After(20 * time.Millisecond):
	case <-t.Context().Done():
	}
}

func guardians(journal string) (out []int) {
	k := &Keeper{journal: journal}
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		if pid, _ := strconv.Atoi(filepath.Base(p)); k.ours(pid) {
			out = append(out, pid)
		}
	}
	return out
}

// What is not known for sure is not taken off the list: a journal that cannot be
// read, or is gone, leaves the guardian with what it has read before.
func TestJournalThatFails_S1(t *testing.T) {
	tests := map[string]struct {
		journal error
		alone   bool
		exists  error
		kills   int
		done    bool
	}{
		"a disk that fails":                {journal: errors.New("input/output error"), alone: true, kills: 1},
		"a journal that is gone":           {journal: fs.ErrNotExist, alone: true, kills: 1},
		"an entry that somebody removed":   {alone: true, kills: 1},
		"an end that nobody can tell":      {alone: true, exists: errors.New("too many open files"), kills: 1},
		"gone with all that it named":      {journal: fs.ErrNotExist, alone: true, exists: desktop.ErrGone, done: true},
		"gone, and its program still here": {journal: fs.ErrNotExist, exists: desktop.ErrGone},
		"a session that has ended":         {exists: desktop.ErrGone},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			mem, err := newMemory()
			if err != nil {
				t.Fatal(err)
			}
			defer mem.close()
			kills := 0
			g := &guardian{mem: mem, told: map[string]bool{}, known: true, desktops: []Desktop{{Session: "s1"}}, cfg: Config{
				Journal: func() ([]Desktop, error) { return nil, tt.journal },
				Kill:    func(Desktop) error { kills++; return nil },
				Exists:  func(Desktop) error { return tt.exists },
				Alone:   func() bool { return tt.alone }, Log: zerolog.Nop(),
			}}
			once, cancel := context.WithCancel(t.Context())
			read := g.cfg.Journal
			g.cfg.Journal = func() ([]Desktop, error) { cancel(); return read() }
			g.read(once, nil)
			mem.setEnd(1)
			if got := g.look(hour); got != tt.done || kills != tt.kills || mem.beat() != hour {
				t.Errorf("got done %v, %d kills, seen at %v; want %v, %d, %v", got, kills, mem.beat(), tt.done, tt.kills, hour)
			}
		})
	}
}

// A guardian that has read no journal yet does not show itself: nobody may rely
// on it.
func TestFirstLook(t *testing.T) {
	mem, err := newMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer mem.close()
	g := &guardian{mem: mem, cfg: Config{Alone: func() bool { return false }}}
	if done := g.look(hour); done || mem.beat() != 0 {
		t.Errorf("got done %v, seen at %v", done, mem.beat())
	}
}

// Memory of another size is not memory of ours.
func TestMemory(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openMemory(f); err == nil || !strings.Contains(err.Error(), "0 bytes, not 4096") {
		t.Errorf("got %v", err)
	}
	m, err := newMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	if err := m.file.Truncate(0); err == nil {
		t.Error("who shortens the memory would end the other by SIGBUS")
	}
}
