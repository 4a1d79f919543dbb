package monitor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/chzyer/readline"
	"golang.org/x/sys/unix"
)

var errNotConnected = errors.New("not connected")

// console is the interactive monitor.
type console struct {
	prompting sync.Mutex // held while the prompt is worked out and set

	o     *options
	stdin *os.File
	out   io.Writer // prints above the prompt
	color bool
	table *Table // the declarations, for abbreviations and for completion without the master
	rl    *readline.Instance
	stop  chan struct{} // closed at the end
	ended chan struct{} // closed when the process is told to end
	typed []string      // lines of this session, for history
	tab   tabState

	mu    sync.Mutex
	wire  *wire        // guarded by mu; nil while the master is away
	state consoleState // guarded by mu
}

// consoleState is what is repeated on a new connection.
type consoleState struct {
	verbose  bool
	format   string
	progress string // "" as verbose says
	level    string // "" not lowered
	events   string // the words after "events on", without since; only if on
	listens  bool
	seq      uint64 // of the last event that was shown; 0: none
}

func newConsole(o *options, stdin *os.File, stdout io.Writer, cl *Client) *console {
	c := &console{o: o, stdin: stdin, out: stdout, color: o.colored(stdout), table: NewTable(nil), stop: make(chan struct{}), ended: make(chan struct{})}
	c.state = consoleState{verbose: true, format: o.format}
	if o.readOnly {
		c.state.level = "viewer"
	}
	c.wire = c.newWire(cl)
	return c
}

func (c *console) newWire(cl *Client) *wire {
	return &wire{cl: cl, event: c.event, lost: c.lost}
}

// run talks with the person until quit and returns the exit code.
func (c *console) run() int {
	// readline makes the history file with 0666 less the umask, and makes it
	// anew whenever it shortens it.
	unix.Umask(0o077)
	rl, err := readline.NewEx(&readline.Config{
		Prompt: c.prompt(), HistoryFile: historyFile(), HistoryLimit: 1000, DisableAutoSaveHistory: true, HistorySearchFold: true,
		AutoComplete: c, Stdin: c.stdin, Stdout: c.out, InterruptPrompt: "^C", EOFPrompt: "",
	})
	if err != nil {
		fmt.Fprintf(os.Stderr, "verdecmon: terminal: %v\n", err)
		return exitUsage
	}
	defer func() {
		select {
		case <-c.ended: // Close would wait for a key
			rl.Terminal.ExitRawMode()
		default:
			rl.Close()
		}
	}()
	c.rl, c.out = rl, rl.Stdout()
	defer close(c.stop)
	go c.obey()
	c.wire.start()
	for i, line := range c.settings() {
		reqs, err := c.wire.send(line)
		if err != nil {
			break
		}
		lines, ok := reqs[0].last()
		if ok && (line == "hello" || lines[len(lines)-1].Code >= 400) {
			c.printAll(lines)
		}
		if ok && i == 0 && lines[0].Code == 421 {
			return exitNotNow
		}
	}
	for {
		c.setPrompt()
		line, err := rl.Readline()
		select {
		case <-c.ended:
			err = io.EOF
		default:
		}
		switch {
		case errors.Is(err, readline.ErrInterrupt):
			continue
		case err != nil:
			c.bye()
			return 0
		}
		if c.handle(line) {
			return 0
		}
	}
}

// obey ends the monitor, with the terminal as it was, when the process is told
// to end.
func (c *console) obey() {
	told := make(chan os.Signal, 1)
	signal.Notify(told, unix.SIGTERM, unix.SIGHUP)
	defer signal.Stop(told)
	select {
	case <-c.stop:
	case <-told:
		close(c.ended)
		c.rl.Operation.Close()
	}
}

// bye is Ctrl-D: like quit.
func (c *console) bye() {
	c.mu.Lock()
	w := c.wire
	c.mu.Unlock()
	if w == nil {
		return
	}
	w.mu.Lock()
	w.closed = true // its end is no loss
	w.mu.Unlock()
	w.cl.Send("quit")
	w.cl.Close()
}

func historyFile() string {
	path, set := os.LookupEnv("VERDECMON_HISTORY")
	if !set {
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		path = home + "/.verdecmon_history"
	}
	if at, err := os.Stat(path); err == nil && at.Mode().IsRegular() {
		os.Chmod(path, 0o600) // it may be older than we
	}
	return path
}

// settings are the lines that bring a new connection to the present state,
// with hello after verbose.
func (c *console) settings() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.state
	lines := []string{"verbose " + offOn(s.verbose)}
	if s.format != "" {
		lines = append(lines, "format "+s.format)
	}
	if s.progress != "" {
		lines = append(lines, "progress "+s.progress)
	}
	if s.level != "" {
		lines = append(lines, "level "+s.level)
	}
	lines = append(lines, "hello")
	if s.listens {
		on := "events on" + s.events
		if s.seq != 0 {
			on += fmt.Sprintf(" since=%d", s.seq)
		}
		lines = append(lines, on+" numbered")
	}
	return lines
}

// setPrompt gives the line editor the prompt of this moment. Two goroutines do
// so: who comes later must not set what was true earlier.
func (c *console) setPrompt() {
	c.prompting.Lock()
	defer c.prompting.Unlock()
	c.rl.SetPrompt(c.prompt())
}

func (c *console) prompt() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.wire == nil:
		return "verdecmd(offline)> "
	case c.state.level != "":
		return "verdecmd(" + c.state.level + ")> "
	}
	return "verdecmd> "
}

// handle executes one line; it returns true where the monitor is to end.
func (c *console) handle(line string) bool {
	name, rest := cutName(line)
	if name == "" {
		return false
	}
	if secretive(name) {
		c.remember(name)
	} else {
		c.remember(line)
	}
	full, ok := c.expand(name)
	if !ok {
		return false
	}
	if full != name {
		line = strings.TrimRight(full+" "+rest, " ")
		fmt.Fprintln(c.out, line)
	}
	switch full {
	case "exit":
		line = "quit"
	case "clear":
		readline.ClearScreen(c.out)
		return false
	case "history":
		for i, l := range c.typed {
			fmt.Fprintf(c.out, "%5d  %s\n", i+1, l)
		}
		return false
	case "watch":
		c.watch(rest)
		return false
	case "help":
		if topic := localHelp(strings.TrimSpace(rest)); topic != "" {
			fmt.Fprintln(c.out, topic)
			return false
		}
	}
	if asks(full) && !c.confirm(line) {
		return false
	}
	return c.execute(line)
}

// secretive tells whether a name is managerpassword, is short for it, or seems to
// be meant for it: what somebody has typed behind it may be the secret.
func secretive(name string) bool {
	name = asciiLower(name)
	return strings.HasPrefix("managerpassword", name) || strings.HasPrefix(name, "managerp")
}

func (c *console) remember(line string) {
	if isBlank(line[0]) || len(c.typed) > 0 && c.typed[len(c.typed)-1] == line {
		return
	}
	c.typed = append(c.typed, line)
	if len(c.typed) > 1000 {
		c.typed = c.typed[1:]
	}
	c.rl.SaveHistory(line) // an unwritable file is not an error
}

// asks tells whether a command is confirmed first.
func asks(name string) bool {
	return strings.HasPrefix(name, "delete") || name == "forgetserver" || name == "rollback" || name == "templatemethod"
}

func (c *console) confirm(line string) bool {
	c.rl.SetPrompt("Really " + line + "? [y/N] ")
	answer, err := c.rl.Readline()
	answer = strings.ToLower(strings.TrimSpace(answer))
	return err == nil && (answer == "y" || answer == "yes")
}

// execute sends a line and shows its reply.
func (c *console) execute(line string) (quit bool) {
	c.mu.Lock()
	w := c.wire
	c.mu.Unlock()
	if w == nil {
		c.complain("The master is away; the command was not sent.")
		return strings.EqualFold(strings.TrimSpace(line), "quit")
	}
	interrupt := make(chan os.Signal, 1)
	signal.Notify(interrupt, os.Interrupt)
	defer signal.Stop(interrupt)
	sent := line
	if listens(line) {
		sent += " numbered" // so that a break of the connection loses none
	}
	reqs, err := w.send(sent)
	if err != nil {
		c.complain("The master is away; the command was not sent.")
		return false
	}
	var late <-chan time.Time
	if c.o.timeout > 0 {
		late = time.After(time.Duration(c.o.timeout * float64(time.Second)))
	}
	job := ""
	var kept []ReplyLine
	for {
		select {
		case l, ok := <-reqs[0].lines:
			if !ok {
				if len(kept) == 0 || !kept[len(kept)-1].End() {
					c.complain(lostHint(line))
				}
				return false
			}
			if m := jobNumber.FindStringSubmatch(l.Data); l.Code == 150 && m != nil {
				job = m[1]
			}
			if l.Code == 331 {
				c.print(l, line)
				if !c.secret(w) {
					return false
				}
				continue
			}
			kept = append(kept[:0], l)
			if l.End() {
				l.Data = c.learn(line, l)
			}
			c.print(l, line)
			if l.Code == 221 {
				w.close()
				return true
			}
		case <-interrupt:
			c.detach(w, reqs[0], job)
			return false
		case <-late:
			c.detach(w, reqs[0], job)
			return false
		case <-c.ended:
			w.close()
			return true
		}
	}
}

var jobNumber = regexp.MustCompile(`job[ =":]+([0-9]+)`)

// lostHint says how to find out what became of a command without a reply.
func lostHint(line string) string {
	look := "jobs"
	if words, err := splitWords(line); err == nil && len(words) > 1 {
		switch name := asciiLower(words[0].text); {
		case strings.HasSuffix(name, "user"):
			look = "user " + words[1].text
		case strings.HasSuffix(name, "server"):
			look = "server " + words[1].text
		}
	}
	return fmt.Sprintf("The connection was lost before the reply. Check with %q whether it was done.", look)
}

// detach leaves a waiting command alone: it goes on while a new connection
// with the same settings takes the place of this one.
func (c *console) detach(w *wire, r *request, job string) {
	w.close()
	r.abandon()
	if job != "" {
		fmt.Fprintf(c.out, "\nStill running as job %s; see \"job %s\".\n", job, job)
	} else {
		fmt.Fprintln(c.out, "\nNot waiting any more; what was started goes on.")
	}
	c.mu.Lock()
	c.wire = nil
	c.mu.Unlock()
	if cl, err := Dial(c.o.socket); err == nil {
		c.adopt(cl, false)
		return
	}
	go c.reconnect()
}

// secret reads what a command asks for, twice and without echo.
func (c *console) secret(w *wire) bool {
	one, err1 := c.rl.ReadPassword("Secret: ")
	two, err2 := c.rl.ReadPassword("Again: ")
	text := string(one)
	if err1 != nil || err2 != nil || text != string(two) {
		c.complain("Not the same; nothing is changed.")
		text = "" // an empty line changes nothing
	}
	return w.cl.Send(text) == nil
}

// listens tells whether a line switches events on.
func listens(line string) bool {
	words, err := splitWords(line)
	if err != nil || len(words) < 2 || asciiLower(words[0].text) != "events" {
		return false
	}
	on := false
	for _, w := range words[1:] {
		on = on || w.text == "on"
		if w.text == "numbered" || w.text == "--" {
			return false
		}
	}
	return on
}

// learn follows the settings of the connection, to repeat them. It returns the
// last line of the reply as it is to be shown.
func (c *console) learn(line string, end ReplyLine) string {
	words, err := splitWords(line)
	if err != nil || len(words) < 2 || end.Code/100 != 2 {
		return end.Data
	}
	value := words[1].text
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.state
	switch asciiLower(words[0].text) {
	case "verbose":
		s.verbose, s.progress, s.format = value == "on", "", "tsv"
		if s.verbose {
			s.format = "text"
		}
	case "format":
		s.format = value
	case "progress":
		s.progress = value
	case "level":
		s.level = value
		if value == "admin" {
			s.level = ""
		}
	case "events":
		s.listens, s.events = false, ""
		for _, w := range words[1:] {
			if w.text == "on" {
				s.listens = true
			} else if strings.HasPrefix(w.text, "types=") {
				s.events = " " + Quote(w.text)
			}
		}
		seq, shown := eventNumber(end)
		if s.listens {
			s.seq = max(s.seq, seq) // an event may have come before this
		}
		return shown
	}
	return end.Data
}
