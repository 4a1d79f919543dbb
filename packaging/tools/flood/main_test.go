package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"
)

func TestFrame(t *testing.T) {
	got := frame(nil, rst, 0, 5, []byte{0, 0, 0, 8})
	want := []byte{0, 0, 4, 3, 0, 0, 0, 0, 5, 0, 0, 0, 8}
	if !bytes.Equal(got, want) {
		t.Errorf("got % x, want % x", got, want)
	}
	if got, want := field(nil, "te", "trailers"), []byte("\x00\x02te\x08trailers"); !bytes.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What the flood prints is what has happened: connections made, those that the
// other side closed, bytes.
func TestCounts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				io.CopyN(io.Discard, c, 1000)
				c.Close()
			}()
		}
	}()
	f := &flood{address: l.Addr().String(), sources: 3, once: true}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for i := range 4 {
		f.worker(ctx, kinds["garbage"], i)
	}
	if f.made.Load() != 4 || f.closed.Load() != 4 || f.bytes.Load() < 4000 || f.failed.Load() != 0 {
		t.Errorf("made %d, closed %d, failed %d, bytes %d; want 4, 4, 0, 4000 or more", f.made.Load(), f.closed.Load(), f.failed.Load(), f.bytes.Load())
	}
}
