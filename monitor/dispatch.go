package monitor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"
)

// execute answers one line. The error ends the connection.
func (c *conn) execute(line string, ended bool) error {
	if err := checkChars([]byte(line)); err != nil {
		c.answerError(err)
		return nil
	}
	name, rest := cutName(line)
	if name == "" {
		return nil
	}
	cmd := c.s.cfg.Table.byName[name]
	var words []word
	if cmd == nil || !cmd.Rest {
		var err *Error
		if words, err = splitWords(line); err != nil {
			c.s.stats.count(&c.s.stats.badLines)
			c.answerError(err)
			return nil
		}
		name = asciiLower(words[0].text) // it may be quoted
		if cmd = c.s.cfg.Table.byName[name]; cmd == nil {
			c.s.stats.count(&c.s.stats.badLines)
			c.answerError(c.s.cfg.Table.unknown(name, c.level))
			return nil
		}
	}
	call := Call{Level: c.level, Caller: c.caller, conn: c}
	refusal := c.permit(cmd, words, rest, &call)
	needs := cmd.needed(call.Args)
	if !ended && needs > Viewer {
		// Its writer may have been cut off in the middle of a name.
		c.answerError(refusef(503, "the line was not ended, and %s changes something: it was not executed", cmd.Name))
		return nil
	}
	start, level := time.Now(), c.level
	var reply Reply
	var err error
	if refusal != nil {
		reply = refusal.reply()
	} else {
		reply, err = c.run(cmd, &call)
	}
	duration := time.Since(start)
	c.s.stats.command(cmd.Name, reply.Code, duration)
	if needs > Viewer || reply.Code == 530 {
		if cmd.Hide != nil && (call.Args == nil || cmd.Hide(call.Args)) {
			line = cmd.Name + " ***"
		}
		c.audit(cmd.Name, line, level, reply.Code, start, duration)
	}
	if err != nil {
		return err
	}
	return c.finish(cmd, &reply, line)
}

// run executes a command; whatever goes wrong becomes its reply. The error is
// ErrStopping where the master stopped while the command waited.
func (c *conn) run(cmd *Entry, call *Call) (Reply, error) {
	reply, err := c.protected(cmd, call)
	if err == nil {
		return reply, nil
	}
	var refusal *Error
	switch {
	case errors.Is(err, ErrStopping):
		return Reply{Code: 421}, ErrStopping
	case errors.As(err, &refusal):
		return refusal.reply(), nil
	}
	return c.internal(cmd.Name, err, nil), nil
}

// permit checks the level and the arguments, and binds these.
func (c *conn) permit(cmd *Entry, words []word, rest string, call *Call) *Error {
	if cmd.Level > c.level {
		return denied(cmd.Level, c.level)
	}
	if cmd.Rest {
		call.Args = map[string]string{"line": rest}
		return nil
	}
	args, err := cmd.bind(words[1:])
	if err != nil {
		return err
	}
	call.Args = args
	if needs := cmd.needed(args); needs > c.level {
		return denied(needs, c.level)
	}
	return nil
}

// needed is the level for the command with these arguments.
func (cmd *Entry) needed(args map[string]string) Level {
	needs := cmd.Level
	for i := range cmd.Args {
		if a := &cmd.Args[i]; a.Level > needs {
			if _, ok := args[a.Name]; ok {
				needs = a.Level
			}
		}
	}
	return needs
}

func denied(needs, has Level) *Error {
	return &Error{
		Code:  530,
		Pairs: []Pair{{"needs", needs.String()}, {"level", has.String()}},
		Text:  fmt.Sprintf("This needs the level %s; yours is %s.", needs, has),
	}
}

// protected runs the command; a panic in it is an internal error and the
// master lives on.
func (c *conn) protected(cmd *Entry, call *Call) (reply Reply, err error) {
	defer func() {
		if v := recover(); v != nil {
			reply, err = c.internal(cmd.Name, fmt.Errorf("panic: %v", v), debug.Stack()), nil
		}
	}()
	ctx := WithCaller(c.s.work, c.caller)
	return cmd.Run(ctx, call)
}

// internal logs a fault of the master and makes the reply that refers to it.
func (c *conn) internal(name string, err error, stack []byte) Reply {
	var raw [4]byte
	rand.Read(raw[:])
	ref := hex.EncodeToString(raw[:])
	c.s.log.Error().Str("ref", ref).Str("command", name).Err(err).Bytes("stack", stack).Msg("a command met a fault of the master")
	return Reply{
		Code:  451,
		Pairs: []Pair{{"ref", ref}, {"msg", "internal error, see the log of the master"}},
		Text:  fmt.Sprintf("The master met an internal error; look for ref=%s in its log.", ref),
	}
}

// finish sends the reply. A fault in writing it is answered like one in the
// command.
func (c *conn) finish(cmd *Entry, reply *Reply, line string) (err error) {
	defer func() {
		if v := recover(); v != nil {
			r := c.internal(cmd.Name, fmt.Errorf("panic: %v", v), debug.Stack())
			c.answer(&r)
		}
	}()
	c.answer(reply)
	c.startEvents()
	return nil
}

// Secret asks the client for a line that is taken as it is, and that stands in
// no log. The error ends the command: the line was too long, or there was none.
func (c *Call) Secret(text string) (string, error) {
	c.conn.answer(&Reply{Code: 331, Text: text})
	line, ended, err := c.conn.in.next()
	switch {
	case errors.Is(err, errTooLong):
		return "", refusef(504, "the secret is longer than %d bytes", maxLine)
	case errors.Is(err, ErrStopping):
		return "", ErrStopping
	case err != nil || !ended:
		return "", refusef(444, "no secret came, nothing is changed")
	}
	return string(line), nil
}

func (c *conn) answerError(err *Error) {
	r := err.reply()
	c.answer(&r)
}

func (e *Error) reply() Reply { return Reply{Code: e.Code, Pairs: e.Pairs, Text: e.Text} }

// audit notes what was commanded: in the log, and with whoever keeps it. The
// reply goes out afterwards.
func (c *conn) audit(name, line string, level Level, code int, start time.Time, took time.Duration) {
	line = redact(line)
	c.s.log.Info().Int("pid", c.caller.PID).Int("uid", c.caller.UID).Str("caller", c.caller.Name).
		Str("line", line).Int("code", code).Dur("took", took).Msg("admin command")
	if c.s.cfg.Audit != nil {
		c.s.cfg.Audit(Audited{Time: start, Caller: c.caller, Level: level, Command: name, Line: line, Code: code, Took: took})
	}
}

func asciiLower(s string) string {
	b := []byte(s)
	for i, x := range b {
		if x >= 'A' && x <= 'Z' {
			b[i] = x + 'a' - 'A'
		}
	}
	return string(b)
}

// wait waits for a job and tells its progress, until it has finished, the
// limit has passed (0: none), the client is gone or the master stops. first
// is the text of the line 150.
func (c *Call) wait(ctx context.Context, b JobAdmin, j Job, limit time.Duration, first string) (Job, error) {
	if c.conn.style.progress && !j.Finished() {
		c.conn.tell(150, startedPairs(j), first)
	}
	wake, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.conn.s.stopping, cancel)()
	start := time.Now()
	for !j.Finished() {
		pause := c.conn.s.cfg.Progress
		if limit > 0 {
			pause = min(pause, limit-time.Since(start))
		}
		tick, end := context.WithTimeout(wake, pause)
		next, err := b.WaitJob(tick, j.ID)
		late := tick.Err() != nil
		end()
		switch {
		case err == nil && next.Finished():
			return next, nil
		case c.conn.s.stopping.Err() != nil:
			return j, ErrStopping
		case err != nil && !late:
			return j, err
		}
		if limit > 0 && time.Since(start) >= limit {
			return j, errLimit
		}
		if gone(c.conn.nc) {
			return j, errGone
		}
		if known, ok := b.Job(j.ID); ok {
			j = known
		}
		if c.conn.style.progress && !j.Finished() {
			c.conn.tell(110, progressPairs(j), progressText(j))
		}
	}
	return j, nil
}

var (
	errLimit = errors.New("the limit has passed")
	errGone  = &Error{Code: 443, Text: "the client is gone"} // nobody reads it
)

func startedPairs(j Job) []Pair {
	p := []Pair{{"job", j.ID}, {objectKey(j), j.Object}}
	if j.Limit > 0 {
		p = append(p, Pair{"limit", j.Limit})
	}
	return p
}

// objectKey is what a job works on, as a key: every action so far is named
// after it, shutdownuser after the user.
func objectKey(j Job) string {
	for _, kind := range []string{"user", "server"} {
		if len(j.Action) > len(kind) && j.Action[len(j.Action)-len(kind):] == kind {
			return kind
		}
	}
	return "object"
}

func progressPairs(j Job) []Pair {
	p := []Pair{{"job", j.ID}, {"elapsed", j.Elapsed}}
	if j.Limit > 0 {
		p = append(p, Pair{"limit", j.Limit})
	}
	if j.Percent > 0 {
		p = append(p, Pair{"percent", j.Percent})
	}
	return append(p, Pair{"msg", j.Message})
}

func progressText(j Job) string {
	msg := upperFirst(j.Message)
	if msg == "" {
		msg = "Working"
	}
	sep := ", "
	if strings.Contains(msg, ", ") { // a list, which the time is not a part of
		sep = "; "
	}
	if j.Limit > 0 {
		return fmt.Sprintf("%s%s%d of %d s.", msg, sep, int(j.Elapsed.Seconds()), int(j.Limit.Seconds()))
	}
	return fmt.Sprintf("%s%s%d s.", msg, sep, int(j.Elapsed.Seconds()))
}

// withJob is the final reply of a job; joined where another command had
// started it.
func withJob(j Job, joined bool) Reply {
	pairs := make([]Pair, 0, len(j.Pairs)+2)
	has := false
	for _, p := range j.Pairs {
		has = has || p.Key == "job"
		if p.Key == "msg" && !has {
			pairs = append(pairs, Pair{"job", j.ID})
			has = true
		}
		pairs = append(pairs, p)
	}
	if !has {
		pairs = append(pairs, Pair{"job", j.ID})
	}
	if joined {
		pairs = append(pairs, Pair{"joined", true})
	}
	return Reply{Code: j.Code, Pairs: pairs, Text: sentence(j.Text)}
}
