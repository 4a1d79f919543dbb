package monitor

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// ReplyLine is one line of the master: what a client reads.
type ReplyLine struct {
	Code int
	Last bool   // the mark is a blank: the reply ends here
	Data string // what follows code and mark
}

// Event tells whether the line is an event, which belongs to no reply.
func (l ReplyLine) Event() bool { return l.Code/100 == 6 }

// Preliminary tells whether the line tells the progress of a waiting command.
func (l ReplyLine) Preliminary() bool { return l.Code/100 == 1 }

// End tells whether the line is the last one of a reply.
func (l ReplyLine) End() bool { return l.Last && l.Code >= 200 && l.Code < 600 }

// String is the line as it came.
func (l ReplyLine) String() string {
	mark := "-"
	if l.Last {
		mark = " "
	}
	return fmt.Sprintf("%03d%s%s", l.Code, mark, l.Data)
}

// errNoReply tells of a line that is not one of this protocol.
var errNoReply = errors.New("this is not the reply of a cluster master")

// ParseReplyLine reads a line without its end.
func ParseReplyLine(line string) (ReplyLine, error) {
	if len(line) < 4 || !isDigits(line[:3]) || line[0] < '1' || line[0] > '6' || line[3] != ' ' && line[3] != '-' {
		return ReplyLine{}, errNoReply
	}
	l := ReplyLine{
		Code: int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0'),
		Last: line[3] == ' ', Data: line[4:],
	}
	if !l.Last && (l.Event() || l.Preliminary()) {
		return ReplyLine{}, errNoReply
	}
	return l, nil
}

// Client is one connection to a master. One goroutine may read while another
// sends.
type Client struct {
	nc net.Conn
	r  *bufio.Reader
}

// Dial connects to the socket at path.
func Dial(path string) (*Client, error) {
	if len(path) > MaxSocketPath {
		return nil, fmt.Errorf("the path of the socket has %d bytes, allowed are %d", len(path), MaxSocketPath)
	}
	nc, err := net.DialTimeout("unix", path, 10*time.Second)
	if err != nil {
		return nil, err
	}
	return &Client{nc: nc, r: bufio.NewReaderSize(nc, maxReply+2)}, nil
}

// Send writes command lines, which are without line ends.
func (c *Client) Send(lines ...string) error {
	_, err := c.nc.Write([]byte(strings.Join(lines, "\n") + "\n"))
	return err
}

// Read returns the next line of the master.
func (c *Client) Read() (ReplyLine, error) {
	raw, err := c.r.ReadSlice('\n')
	if err != nil {
		if errors.Is(err, bufio.ErrBufferFull) {
			err = errNoReply
		}
		return ReplyLine{}, err
	}
	return ParseReplyLine(string(raw[:len(raw)-1]))
}

// Close ends the connection. Jobs that were started go on.
func (c *Client) Close() error { return c.nc.Close() }
