package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"verdecmd/satellite/desktop"
)

const greeting = `{"QMP":{"version":{},"capabilities":["oob"]}}` + "\n"

// script is a QEMU that sends before anything is asked what greet says, and
// answers each line with what answer returns.
func script(t *testing.T, greet string, answer func(command string, id uint64) string) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		if _, err := io.WriteString(theirs, greet); err != nil {
			return
		}
		sc := bufio.NewScanner(theirs)
		for sc.Scan() {
			var m struct {
				Execute string
				ID      uint64
			}
			if err := json.Unmarshal(sc.Bytes(), &m); err != nil {
				t.Errorf("we sent %q: %v", sc.Text(), err)
			}
			out := fmt.Sprintf(`{"return":{},"id":%d}`+"\n", m.ID)
			if m.Execute != "qmp_capabilities" {
				out = answer(m.Execute, m.ID)
			}
			if out == "hang up" {
				return
			}
			if _, err := io.WriteString(theirs, out); err != nil {
				return
			}
		}
	}()
	return ours
}

func ok(_ string, id uint64) string { return fmt.Sprintf(`{"return":{"a":1},"id":%d}`+"\n", id) }

func TestQMP(t *testing.T) {
	tests := map[string]struct {
		greet  string
		answer func(string, uint64) string
		err    string // part of newQMP's or call's error; empty: none
	}{
		"answers":                          {greet: greeting, answer: ok},
		"an event before the greeting":     {greet: `{"event":"RESUME"}` + "\n" + greeting, answer: ok},
		"an event and a stranger's answer": {greet: greeting, answer: func(c string, id uint64) string { return `{"event":"X","data":{}}` + "\n" + ok(c, id+77) + ok(c, id) }},
		"refuses": {greet: greeting, answer: func(_ string, id uint64) string {
			return fmt.Sprintf(`{"error":{"class":"GenericError","desc":"no such thing"},"id":%d}`+"\n", id)
		}, err: "QMP query-status: QEMU: no such thing"},
		"hangs up":                    {greet: greeting, answer: func(string, uint64) string { return "hang up" }, err: "closed"},
		"says nothing at all":         {greet: "", answer: ok, err: "no greeting"},
		"does not answer":             {greet: greeting, answer: func(string, uint64) string { return "" }, err: "no answer"},
		"garbage":                     {greet: "SSH-2.0-OpenSSH\r\n", answer: ok, err: "not QMP"},
		"an endless line":             {greet: greeting, answer: func(string, uint64) string { return strings.Repeat("x", 3<<20) }, err: "too long"},
		"another type than asked for": {greet: greeting, answer: func(_ string, id uint64) string { return fmt.Sprintf(`{"return":[1,2],"id":%d}`+"\n", id) }, err: "cannot unmarshal"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				q, err := newQMP(ctx, script(t, tt.greet, tt.answer), func(qmpEvent) {})
				if err == nil {
					defer q.close()
					var r struct{ A int }
					if err = q.call(ctx, "query-status", nil, &r); err == nil && r.A != 1 {
						t.Errorf("got %+v, want 1", r)
					}
				}
				if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got error %v, want %q", err, tt.err)
				}
			})
		})
	}
}

// A caller that gave up leaves nothing behind, and the next one gets its own
// answer.
func TestQMPLateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, err := newQMP(t.Context(), script(t, greeting, func(c string, id uint64) string {
			time.Sleep(2 * time.Second)
			return ok(c, id)
		}), func(qmpEvent) {})
		if err != nil {
			t.Fatal(err)
		}
		defer q.close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := q.call(ctx, "one", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want a time-out", err)
		}
		if err := q.call(t.Context(), "two", nil, nil); err != nil {
			t.Errorf("after that: %v", err)
		}
		q.mu.Lock()
		defer q.mu.Unlock()
		if len(q.pending) != 0 {
			t.Errorf("got %d pending calls, want 0", len(q.pending))
		}
	})
}

// FuzzQMP: whatever QEMU sends, reading ends, and no call waits for ever (S21).
func FuzzQMP(f *testing.F) {
	f.Add([]byte(greeting + `{"return":{},"id":1}` + "\n" + `{"event":"SHUTDOWN","data":{"guest":true}}` + "\n"))
	f.Add([]byte(greeting + greeting + `{"id":-1}` + "\n" + `{"error":null,"id":1}`))
	f.Add([]byte("[[[[[[[[\n\x00\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		ours, theirs := net.Pipe()
		go io.Copy(io.Discard, theirs)
		go func() {
			theirs.Write(data)
			theirs.Close()
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		r := (&Driver{}).running(desktop.Spec{}, nil)
		r.ctx, r.cancel = context.WithCancel(ctx)
		r.cancel() // what events lead to is not started
		q, err := newQMP(ctx, ours, r.event)
		if err == nil {
			_ = q.call(ctx, "query-status", nil, &struct{}{})
			q.close()
		}
		if ctx.Err() != nil {
			t.Fatal("still waiting for a peer that is gone")
		}
	})
}

// FuzzAgent: the same for a guest agent, which is the guest.
func FuzzAgent(f *testing.F) {
	f.Add([]byte("\xff{\"return\":1}\n{\"return\":{}}\n"))
	f.Add([]byte("\xff\xff\xff{}\n\xff{\"error\":{\"class\":\"x\",\"desc\":\"y\"}}\n"))
	f.Add([]byte("\xff[]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		ours, theirs := net.Pipe()
		go io.Copy(io.Discard, theirs)
		go func() {
			theirs.Write(data)
			theirs.Close()
		}()
		defer ours.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if a, err := newAgent(ctx, ours); err == nil {
			t.Fatalf("%q passed for an answer to a random number: %+v", data, a)
		}
		a := &agent{conn: ours, r: bufio.NewReader(io.LimitReader(strings.NewReader(string(data)), maxLine))}
		_ = a.receive(nil)
		_ = a.receive(new(int64))
		if ctx.Err() != nil {
			t.Fatal("still waiting for a peer that is gone")
		}
	})
}

// guestAgent answers like qemu-ga; before is sent ahead of the first answer.
func guestAgent(t *testing.T, before string, answer func(command string) string) net.Conn {
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		sc := bufio.NewScanner(theirs)
		for sc.Scan() {
			var m struct {
				Execute   string
				Arguments struct{ ID int64 }
			}
			if err := json.Unmarshal([]byte(strings.TrimLeft(sc.Text(), "\xff")), &m); err != nil {
				t.Errorf("we sent %q: %v", sc.Text(), err)
				return
			}
			out := answer(m.Execute)
			if m.Execute == "guest-sync-delimited" {
				out = before + fmt.Sprintf("\xff{\"return\": %d}\n", m.Arguments.ID)
			}
			if _, err := io.WriteString(theirs, out); err != nil {
				return
			}
		}
	}()
	return ours
}

func TestAgent(t *testing.T) {
	yes := func(string) string { return `{"return": {}}` + "\n" }
	tests := map[string]struct {
		before string
		answer func(string) string
		err    string
	}{
		"answers":                        {answer: yes},
		"old answers before ours":        {before: "{\"return\":{}}\n\xff{\"return\":17}\n{\"error\":{\"desc\":\"old\"}}\n", answer: yes},
		"refuses":                        {answer: func(string) string { return `{"error":{"class":"x","desc":"not supported"}}` + "\n" }, err: "not supported"},
		"is silent":                      {answer: func(string) string { return "" }, err: "timeout"},
		"answers neither yes nor no":     {answer: func(string) string { return "{}\n" }, err: "neither"},
		"answers with no end":            {answer: func(string) string { return strings.Repeat("a", 2<<20) }, err: "EOF"},
		"never comes to its sync answer": {before: strings.Repeat("\xff{\"return\":1}\n", 100000), answer: yes, err: "EOF"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn := guestAgent(t, tt.before, tt.answer)
				defer conn.Close()
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				a, err := newAgent(ctx, conn)
				if err == nil {
					err = errors.Join(a.ping(ctx), a.setTime(ctx, time.Now()))
				}
				if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got error %v, want %q", err, tt.err)
				}
			})
		})
	}
	if _, err := newAgent(t.Context(), nil); err == nil {
		t.Error("an agent without a time limit: got nil, want an error")
	}
}
