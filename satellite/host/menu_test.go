package host

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"verdecmd/settings"
)

// F-08: Manager > Register in a text menu, by numbers and letters, at a plain
// terminal.
func TestMenuAtATerminal_F08(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	h := newNewcomer(t)
	c := newChair(t)
	done := make(chan error, 1)
	go func() { done <- h.start(t.Context(), c.tty, c.tty, "config") }()
	c.until("1  Manager    this computer is not registered yet")
	c.until("2  Settings   " + h.settings)
	c.until("q  Quit")
	c.until("Choose: ")
	c.types("m\n")
	c.until("1  Register ")
	c.until("Choose: ")
	c.types("register\n")
	c.until("Manager's address: ")
	c.types(m.address + "\n")
	c.until("Is this the fingerprint of your cluster? [y/N] ")
	c.types("n\n")
	c.until("Not confirmed: nothing was sent, and nothing was changed here.")
	c.until("Choose: ")
	c.types("1\n")
	c.until("Manager's address: ")
	c.types(m.address + "\n")
	c.until("[y/N] ")
	c.types("y\n")
	c.until("Manager's password: ")
	c.types("a good password\n")
	c.until("is registered: server 1")
	c.until("Choose: ")
	c.types("1\n")
	c.until("This host is registered already")
	c.until("Register it anew? [y/N] ")
	c.types("n\n")
	c.until("Choose: ")
	c.types("show\n")
	c.until("Cluster      " + m.a.Cluster)
	c.until("Choose: ")
	c.types("\n") // back
	c.until("1  Manager    registered as ")
	c.until("Choose: ")
	c.types("q\n")
	if err := <-done; err != nil {
		t.Error(err)
	}
	if strings.Contains(c.screen(), "a good password") {
		t.Errorf("the password is on the screen:\n%s", c.screen())
	}
}

// The settings of a satellite with value and source; what is typed is checked by
// the kind of the setting before it is written.
func TestMenuSettings(t *testing.T) {
	t.Parallel()
	h := newNewcomer(t, "WIN4_VERDE_MAX_SESSIONS=40", "# kept")
	in := strings.Join([]string{"settings",
		"max_sessions", "many", "50",
		"WIN4_ACCEL", "fast", "auto",
		"2", "",
		"nothing",
		"", "2",
		"WIN4_VERDE_MAX_SESSIONS", "-",
		"b", "7", "q"}, "\n") + "\n"
	out, err := h.do(in, "config")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"WIN4_VERDE_MAX_SESSIONS          40                             line 3",
		"WIN4_VERDE_MAX_SESSIONS          50                             line 3",
		"WIN4_ACCEL                       kvm                            default",
		"WIN4_ACCEL                       auto                           line 5",
		`WIN4_VERDE_MAX_SESSIONS is "many": wants a whole number.`,
		`WIN4_ACCEL is "fast": wants kvm, auto or tcg.`,
		"There is no setting \"nothing\" in the list.",
		"It is a number, 0 to 100000; by default 0. A change counts when the satellite is restarted.",
		"Written.",
		`There is no "7" here: type a number, or the beginning of a name.`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if got := h.text(); !strings.HasSuffix(got, "\n# kept\nWIN4_ACCEL=\"auto\"\n") || strings.Contains(got, "MAX_SESSIONS") {
		t.Errorf("settings:\n%s", got)
	}
	if strings.Contains(out, settings.ClusterMaster) || strings.Contains(out, settings.Socket+" ") {
		t.Error("a setting of the master alone is in the list")
	}
}

// The end of the input is the end of the menu, wherever it comes; mistakes in the
// file are shown and can be put right.
func TestMenuInPipes(t *testing.T) {
	t.Parallel()
	for _, in := range []string{"", "m\n", "m\nr\n", "s\n", "s\n1\n", "x"} {
		h := newNewcomer(t)
		if out, err := h.do(in, "config"); err == nil || !strings.Contains(err.Error(), "there was no answer") {
			t.Errorf("%q: %v\n%s", in, err, out)
		}
	}
	h := newNewcomer(t, "WIN4_ACCEL=fast")
	out, err := h.do("m\nr\n\ns\naccel\nauto\n\nq\n", "config")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"the settings have a mistake", "line 3, wrong", "No program starts with this file: ", `WIN4_ACCEL is "fast": wants kvm, auto or tcg`, "Written."} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Count(out, "No program starts with this file") != 1 {
		t.Errorf("the mistake is put right:\n%s", out)
	}
	long := newNewcomer(t)
	if out, err := long.do(strings.Repeat("x", 10000)+"\n\xff\nq\n", "config"); err != nil || !strings.Contains(out, "That is no text, or more than 4096 bytes of it.") {
		t.Errorf("a line without end: %v\n%s", err, out)
	}
}

// Everything over a pipe: the manager's password is a line like the others.
func TestMenuRegisterInPipes(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	h := newNewcomer(t)
	out, err := h.do("1\n1\n"+m.address+"\ny\na good password\nb\nq\n", "config")
	if err != nil || !strings.Contains(out, "is registered: server 1") || strings.Contains(out, "a good password") {
		t.Errorf("%v\n%s", err, out)
	}
}

// Ctrl-C ends what is under way and shows what is typed again; in the menu it
// ends the program.
func TestMenuCtrlC(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	h := newNewcomer(t)
	c := newChair(t)
	stop := make(chan os.Signal, 1)
	menu := &menu{examiner: h.examiner(), talk: newTalk(c.tty, c.tty), path: h.settings, stop: stop}
	done := make(chan error, 1)
	go func() { done <- menu.run(t.Context()) }()
	c.until("Choose: ")
	c.types("1\n")
	c.until("Choose: ")
	c.types("1\n")
	c.until("address: ")
	c.types(m.address + "\n")
	c.until("[y/N] ")
	c.types("y\n")
	c.until("password: ")
	stop <- syscall.SIGINT
	c.until("Interrupted.")
	c.until("Choose: ")
	c.types("show\n") // seen again
	c.until("show")
	c.until("is missing: ")
	c.until("Choose: ")
	stop <- syscall.SIGINT
	c.until("Interrupted.")
	c.until("Choose: ")
	stop <- syscall.SIGINT
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "canceled") {
			t.Errorf("got %v", err)
		}
	case <-time.After(time.Minute):
		t.Errorf("it goes on:\n%s", c.screen())
	}
	if got := listing(t, h.pki()); got != "" || len(m.joins()) > 0 {
		t.Errorf("left: %s, %d requests", got, len(m.joins()))
	}
}

// F-11: after registering, and from the menu, the host is checked and it is said
// whether it is ready or what is missing.
func TestChecks(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		found []Finding
		want  []string
	}{
		"all passes": {nil, []string{"1 pass, 0 warn, 0 fail.", "This host is ready."}},
		"a warning":  {[]Finding{{Check: "clock", Level: Warn, Measured: "3 s off", Wanted: "less", Fix: "set it"}}, []string{"warn  clock  3 s off", "fix: set it", "This host is ready."}},
		"a failure":  {[]Finding{{Check: "bridges", Level: Fail, Measured: "no br0"}}, []string{"fail  bridges  no br0", "fix: none known", "Ready but for what failed above"}},
		"a hard one": {[]Finding{{Check: "accelerator", Level: Fail, Measured: "none", Hard: true}}, []string{"keeps desktops away from this host", "Not ready: the master lets no desktops on to this host"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newNewcomer(t)
			h.found = test.found
			m := newManager(t)
			file, _ := m.token(1)
			registered, err := h.do("", "register", "--manager", m.address, "--token-file", file)
			if err != nil {
				t.Fatalf("%v\n%s", err, registered)
			}
			checked, err := h.do("c\nq\n", "config")
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range test.want {
				if !strings.Contains(registered, want) || !strings.Contains(checked, want) {
					t.Errorf("no %q in\n%s\n--- or in\n%s", want, registered, checked)
				}
			}
			if strings.Contains(registered, "pass  version") || h.checked.Load() != 2 || strings.Index(registered, test.want[0]) < strings.Index(registered, "is registered") {
				t.Errorf("checked %d times:\n%s", h.checked.Load(), registered)
			}
		})
	}
}
