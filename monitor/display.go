package monitor

import (
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/chzyer/readline"
	"golang.org/x/sys/unix"
)

const (
	red    = "\x1b[31m"
	yellow = "\x1b[33m"
	bold   = "\x1b[1m"
	plain  = "\x1b[0m"
)

var (
	badWords  = regexp.MustCompile(`\b(down|lost|failed|critical)\b`)
	warnWords = regexp.MustCompile(`\b(offline|draining|warning)\b`)
	headLine  = regexp.MustCompile(`^[A-Z]+( +[A-Z]+)*$`)
)

// print shows a line of a reply without its code.
func (c *console) print(l ReplyLine, line string) {
	text := l.Data
	switch {
	case l.Code >= 400:
		c.complain(text)
		return
	case !l.Last && l.Code == 210 && c.color:
		if headLine.MatchString(strings.TrimSpace(text)) || strings.HasPrefix(text, "#") {
			text = bold + text + plain
		} else {
			text = badWords.ReplaceAllString(text, red+"$1"+plain)
			text = warnWords.ReplaceAllString(text, yellow+"$1"+plain)
		}
	case l.End() && l.Code == 214 && strings.EqualFold(strings.TrimSpace(line), "help"):
		fmt.Fprintln(c.out, "Monitor")
		for _, m := range localCommands {
			fmt.Fprintln(c.out, helpLine(m[0], m[1]))
		}
	}
	if l.End() && text == "" {
		return
	}
	fmt.Fprintln(c.out, text)
}

func (c *console) printAll(lines []ReplyLine) {
	for _, l := range lines {
		c.print(l, "")
	}
}

// complain shows a failure.
func (c *console) complain(text string) {
	if c.color {
		text = red + text + plain
	}
	fmt.Fprintln(c.out, text)
}

// localCommands are those of the monitor itself.
var localCommands = [][2]string{
	{"watch [SECONDS] COMMAND", "repeat a command until a key is pressed (every 3 seconds)"},
	{"history", "show what was typed"},
	{"clear", "clear the screen"},
	{"exit", "the same as quit"},
}

func localHelp(topic string) string {
	for _, m := range localCommands {
		if name, _, _ := strings.Cut(m[0], " "); topic == name {
			return m[0] + "\n\n  " + upperFirst(m[1]) + "."
		}
	}
	return ""
}

// expand finds the command that a name abbreviates; ok is false where it does
// not say which one, and the person was told so.
func (c *console) expand(name string) (full string, ok bool) {
	var hits []string
	for _, cmd := range c.table.commands {
		if cmd.Name == name {
			return name, true
		}
		if strings.HasPrefix(cmd.Name, name) {
			hits = append(hits, cmd.Name)
		}
	}
	for _, m := range localCommands {
		own, _, _ := strings.Cut(m[0], " ")
		if own == name {
			return name, true
		}
		if strings.HasPrefix(own, name) {
			hits = append(hits, own)
		}
	}
	switch {
	case len(hits) == 0 || c.table.missing[name]:
		return name, true // the master knows what to say
	case len(hits) > 1:
		c.complain(fmt.Sprintf("%q may be %s.", name, orList(hits)))
		return "", false
	}
	if cmd := c.table.byName[hits[0]]; cmd != nil && cmd.Full {
		c.complain(fmt.Sprintf("Type %s in full.", hits[0]))
		return "", false
	}
	return hits[0], true
}

// watch repeats a command until a key is pressed.
func (c *console) watch(rest string) {
	period := 3 * time.Second
	first, line, _ := strings.Cut(strings.TrimSpace(rest), " ")
	if d, ok := parseTime(first); ok && d > 0 {
		period = max(d, 100*time.Millisecond)
	} else {
		line = strings.TrimSpace(rest)
	}
	name, args := cutName(line)
	full := ""
	if name != "" {
		var ok bool
		if full, ok = c.expand(name); !ok {
			return
		}
	}
	cmd := c.table.byName[full]
	if cmd == nil || cmd.Level > Viewer || full == "quit" || full == "waitjob" {
		c.complain("Usage: watch [SECONDS] COMMAND, where COMMAND only shows something.")
		return
	}
	line = strings.TrimRight(full+" "+args, " ")
	restore, err := keyMode(int(c.stdin.Fd()))
	if err != nil {
		c.complain("The terminal cannot be watched for a key.")
		return
	}
	defer restore()
	interrupt := make(chan os.Signal, 1)
	signal.Notify(interrupt, os.Interrupt)
	defer signal.Stop(interrupt)
	for {
		readline.ClearScreen(c.out)
		fmt.Fprintf(c.out, "Every %s: %s    %s    (any key ends)\n\n", strconv.FormatFloat(period.Seconds(), 'f', -1, 64)+" s", line, time.Now().Format("15:04:05"))
		c.execute(line)
		end := time.Now().Add(period)
		for time.Now().Before(end) {
			select {
			case <-interrupt:
				return
			default:
			}
			if keyPressed(int(c.stdin.Fd()), min(100*time.Millisecond, time.Until(end))) {
				return
			}
		}
	}
}

// keyMode makes single keys readable, without echo; Ctrl-C stays a signal.
func keyMode(fd int) (restore func(), err error) {
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	now := *before
	now.Lflag &^= unix.ICANON | unix.ECHO
	now.Cc[unix.VMIN], now.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &now); err != nil {
		return nil, err
	}
	return func() { unix.IoctlSetTermios(fd, unix.TCSETS, before) }, nil
}

// keyPressed waits for a key and takes it.
func keyPressed(fd int, wait time.Duration) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(p, int(wait.Milliseconds())+1); err != nil || n == 0 {
		return false
	}
	var key [64]byte
	n, _ := unix.Read(fd, key[:])
	return n >= 0
}
