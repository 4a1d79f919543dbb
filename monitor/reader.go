package monitor

import (
	"bytes"
	"errors"
	"io"
	"net"
)

// errTooLong tells of a line that was skipped because of its length.
var errTooLong = errors.New("line too long")

// lineReader takes command lines from a connection. It holds one line at a
// time, whatever the client sends.
type lineReader struct {
	nc   net.Conn
	buf  [maxLine + 2]byte // a line with CR LF
	r, w int
	skip bool // inside a line that is too long
	eof  bool
	// block is called before each read of the connection. It writes what is
	// due and sets the deadline.
	block func() error
	// arrived is called after each read that brought something, failed with
	// the error of each other one; it returns nil where reading is to go on.
	arrived func()
	failed  func(error) error
}

// next returns the next line without its end. It is valid until the next
// call. ended is false for what stood before the end of the stream without a
// line end; after that the error is io.EOF.
func (l *lineReader) next() (line []byte, ended bool, err error) {
	searched := l.r
	for {
		if i := bytes.IndexByte(l.buf[searched:l.w], '\n'); i >= 0 {
			line = l.buf[l.r : searched+i]
			l.r = searched + i + 1
			if n := len(line); n > 0 && line[n-1] == '\r' {
				line = line[:n-1]
			}
			if l.skip || len(line) > maxLine {
				l.skip = false
				return nil, true, errTooLong
			}
			return line, true, nil
		}
		if l.eof {
			line = l.buf[l.r:l.w]
			l.r = l.w
			if l.skip || len(line) > maxLine {
				l.skip = false
				return nil, false, errTooLong
			}
			if len(line) == 0 {
				return nil, false, io.EOF
			}
			return line, false, nil
		}
		if l.r > 0 {
			copy(l.buf[:], l.buf[l.r:l.w])
			l.r, l.w = 0, l.w-l.r
		}
		if l.w == len(l.buf) {
			l.skip = true
			l.w = 0
		}
		searched = l.w
		if err := l.block(); err != nil {
			return nil, false, err
		}
		n, err := l.nc.Read(l.buf[l.w:])
		l.w += n
		if n > 0 {
			l.arrived()
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				l.eof = true
			} else if err := l.failed(err); err != nil {
				return nil, false, err
			}
		}
	}
}
