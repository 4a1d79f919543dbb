// An example client of verdecmd's admin socket in Go, with nothing but the
// standard library:
//
//	client SOCKET [COUNT]
//
// It lists the users with a session, shows a refusal, and follows events until
// COUNT of them came (without COUNT: for ever).
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

// refused is the error of a command that the master refused or that failed.
type refused struct{ code, end string }

func (r *refused) Error() string { return r.code + " " + r.end }

// event is one event with its code.
type event struct{ code, data string }

// master is one connection to the cluster master.
type master struct {
	conn     net.Conn
	lines    *bufio.Reader
	greeting string
	events   []event // those that came while a reply was awaited
}

func dial(path string) (*master, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	m := &master{conn: conn, lines: bufio.NewReader(conn)}
	if _, m.greeting, err = m.ask("hello"); err != nil { // and the connection stays
		return nil, err
	}
	_, _, err = m.ask("format json")
	return m, err
}

// line reads the next line: code, mark, and the rest.
func (m *master) line() (code string, mark byte, data string, err error) {
	line, err := m.lines.ReadString('\n')
	if err != nil {
		return "", 0, "", fmt.Errorf("the connection was lost: %w", err)
	}
	if len(line) < 5 {
		return "", 0, "", fmt.Errorf("%q is no line of a cluster master", line)
	}
	return line[:3], line[3], line[4 : len(line)-1], nil
}

// ask returns the rows and the last line of the reply, as they came.
func (m *master) ask(command string) (rows []string, end string, err error) {
	if _, err := fmt.Fprintln(m.conn, command); err != nil {
		return nil, "", err
	}
	for {
		code, mark, data, err := m.line()
		switch {
		case err != nil:
			return nil, "", err
		case code[0] == '6':
			m.events = append(m.events, event{code, data})
		case code[0] == '1': // progress
		case mark == '-':
			rows = append(rows, data)
		case code[0] == '2':
			return rows, data, nil
		default:
			return nil, "", &refused{code, data}
		}
	}
}

// next waits for an event.
func (m *master) next() (event, error) {
	for len(m.events) == 0 {
		code, _, data, err := m.line()
		if err != nil {
			return event{}, err
		}
		if code[0] == '6' {
			m.events = append(m.events, event{code, data})
		}
	}
	e := m.events[0]
	m.events = m.events[1:]
	return e, nil
}

// quote makes one word of a command of any text.
func quote(text string) string {
	return `"` + strings.NewReplacer(`"`, `\"`, `\`, `\\`, "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(text) + `"`
}

// run is the example; count is how many events to wait for.
func run(path string, count int) error {
	m, err := dial(path)
	if err != nil {
		return err
	}
	defer m.conn.Close()
	fmt.Println("greeting:", m.greeting)

	rows, data, err := m.ask("users")
	if err != nil {
		return err
	}
	for _, row := range rows {
		var user struct {
			User, State string
			Server      int
		}
		if err := json.Unmarshal([]byte(row), &user); err != nil {
			return err
		}
		fmt.Printf("%s on server %d: %s\n", user.User, user.Server, user.State)
	}
	var end struct{ Seq uint64 }
	if err := json.Unmarshal([]byte(data), &end); err != nil {
		return err
	}

	var no *refused
	if _, _, err := m.ask("user " + quote(`no "such" user`)); errors.As(err, &no) {
		var why struct{ Status, ID, Msg string }
		if err := json.Unmarshal([]byte(no.end), &why); err != nil {
			return err
		}
		fmt.Printf("refused: %s %s: %s: %s\n", no.code, why.Status, why.ID, why.Msg)
	} else if err != nil {
		return err
	}

	// Events after the instant of the list: nothing is missed or comes twice.
	if _, _, err := m.ask(fmt.Sprintf("events on since=%d", end.Seq)); err != nil {
		return err
	}
	fmt.Println("waiting for events after", end.Seq)
	for count != 0 {
		e, err := m.next()
		if err != nil {
			return err
		}
		switch e.code {
		case "650":
			var what struct{ Type string }
			if err := json.Unmarshal([]byte(e.data), &what); err != nil {
				return err
			}
			fmt.Println("event:", what.Type)
			count--
		case "651":
			fmt.Println("events were lost: list again")
		}
	}
	_, _, err = m.ask("quit")
	return err
}

func main() {
	count := -1
	if len(os.Args) > 2 {
		count, _ = strconv.Atoi(os.Args[2])
	}
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: client SOCKET [COUNT]")
		os.Exit(2)
	}
	if err := run(os.Args[1], count); err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(1)
	}
}
