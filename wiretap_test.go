package main

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"verdecmd/proto/wire"
)

// wiretap takes every frame on every interface of some network name spaces, and
// puts what TCP carried together again.
type wiretap struct {
	t       *testing.T
	end     chan struct{}
	readers sync.WaitGroup

	mu     sync.Mutex // guards what follows
	frames [][]byte
	flows  map[string]map[uint32][]byte // by addresses and ports: payloads by their place
	lost   uint32
}

func newWiretap(t *testing.T) *wiretap {
	return &wiretap{t: t, end: make(chan struct{}), flows: map[string]map[uint32][]byte{}}
}

// in begins to take what passes in a name space.
func (c *wiretap) in(space string) {
	c.t.Helper()
	all := int(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL)))
	fd, err := within(space, func() (int, error) { return unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all) })
	check(c.t, err, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}))
	c.readers.Go(func() {
		defer unix.Close(fd)
		buf := make([]byte, 1<<18) // more than segments that are put together have
		for ended := false; ; {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			switch {
			case err == nil:
				c.take(bytes.Clone(buf[:n]))
			case ended: // and everything is read
				s, _ := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
				c.mu.Lock()
				c.lost += s.Drops
				c.mu.Unlock()
				return
			}
			select {
			case <-c.end:
				ended = true
			default:
			}
		}
	})
}

func (c *wiretap) take(frame []byte) {
	flow, seq, payload := segment(frame)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frames = append(c.frames, frame)
	if len(payload) == 0 {
		return
	}
	f := c.flows[flow]
	if f == nil {
		f = map[uint32][]byte{}
		c.flows[flow] = f
	}
	if len(payload) > len(f[seq]) {
		f[seq] = payload
	}
}

// segment takes a frame of TCP over IPv4 apart; the payload of others is empty.
func segment(frame []byte) (flow string, seq uint32, payload []byte) {
	if len(frame) < 34 || binary.BigEndian.Uint16(frame[12:]) != unix.ETH_P_IP || frame[23] != unix.IPPROTO_TCP {
		return "", 0, nil
	}
	ip := frame[14:]
	size, head := int(binary.BigEndian.Uint16(ip[2:])), 4*int(ip[0]&15)
	if size == 0 || size > len(ip) { // put together by the kernel
		size = len(ip)
	}
	if head+20 > size {
		return "", 0, nil
	}
	tcp := ip[head:size]
	from := min(4*int(tcp[12]>>4), len(tcp))
	return fmt.Sprintf("%v:%d to %v:%d", net.IP(ip[12:16]), binary.BigEndian.Uint16(tcp), net.IP(ip[16:20]), binary.BigEndian.Uint16(tcp[2:])),
		binary.BigEndian.Uint32(tcp[4:]), tcp[from:]
}

// stop ends the capture and returns all of it: each frame, and each direction of
// each connection in its order.
func (c *wiretap) stop() (out map[string][]byte) {
	c.t.Helper()
	close(c.end)
	c.readers.Wait()
	if c.lost > 0 {
		c.t.Errorf("%d frames were lost: the capture proves nothing", c.lost)
	}
	out = map[string][]byte{"the frames": bytes.Join(c.frames, nil)}
	for flow, parts := range c.flows {
		var seqs []uint32
		for seq := range parts {
			seqs = append(seqs, seq)
		}
		first := seqs[0]
		slices.SortFunc(seqs, func(a, b uint32) int { return cmp.Compare(int32(a-first), int32(b-first)) })
		var all []byte
		next := seqs[0]
		for _, seq := range seqs {
			p := parts[seq]
			if again := int32(next - seq); again > 0 { // sent again, and with more
				p = p[min(int(again), len(p)):]
			}
			all = append(all, p...)
			next = max(next, seq+uint32(len(parts[seq])))
		}
		out["the connection "+flow] = all
	}
	return out
}

// secrets are what nobody may see, each in all forms in which it could be.
type secrets map[string][][]byte

// text adds a password or another text.
func (s secrets) text(what, text string) {
	s[what] = append(s[what], []byte(text), []byte(hex.EncodeToString([]byte(text))))
	s.encoded(what, []byte(text))
}

// token adds a token: what counts is its secret.
func (s secrets) token(t *testing.T, what, text string) {
	t.Helper()
	token, err := wire.ParseToken(text)
	check(t, err)
	s[what] = append(s[what], []byte(text), []byte(hex.EncodeToString(token.Secret[:])), token.Secret[:])
	s.encoded(what, token.Secret[:])
}

// key adds the private key in a file of PEM.
func (s secrets) key(t *testing.T, what, path string) {
	t.Helper()
	rest, err := os.ReadFile(path)
	check(t, err)
	for block, rest := pem.Decode(rest); block != nil; block, rest = pem.Decode(rest) {
		if !strings.Contains(block.Type, "PRIVATE KEY") {
			continue
		}
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		check(t, err)
		number, err := key.(*ecdsa.PrivateKey).Bytes()
		check(t, err)
		at := bytes.Index(block.Bytes, number)
		if at < 0 {
			t.Fatalf("%s: the key is not in its file", path)
		}
		s[what] = append(s[what], number, []byte(hex.EncodeToString(number)), []byte(strings.ToUpper(hex.EncodeToString(number))))
		s.encoded(what, number)
		// Lines of PEM break it: what of it is in one line.
		for line := range strings.Lines(string(pem.EncodeToMemory(block))) {
			b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(line))
			if err != nil {
				continue
			}
			for n := 12; n <= len(number); n++ {
				if i := bytes.Index(b, number[n-12:n]); i >= 0 && i%3 == 0 {
					s[what] = append(s[what], []byte(base64.StdEncoding.EncodeToString(number[n-12:n])))
				}
			}
		}
		return
	}
	t.Fatalf("%s: no private key", path)
}

// encoded adds what base64 makes of a text, wherever in a longer one it stands.
func (s secrets) encoded(what string, b []byte) {
	for shift := range 3 {
		if part := b[min(shift, len(b)):]; len(part) >= 12 {
			part = part[:len(part)/3*3]
			s[what] = append(s[what], []byte(base64.StdEncoding.EncodeToString(part)), []byte(base64.URLEncoding.EncodeToString(part)))
		}
	}
}

// in tells which of the secrets are in some data, and where.
func (s secrets) in(data []byte) (out []string) {
	for what, forms := range s {
		for _, f := range forms {
			if i := bytes.Index(data, f); i >= 0 {
				out = append(out, fmt.Sprintf("%s, at %d", what, i))
				break
			}
		}
	}
	slices.Sort(out)
	return out
}
