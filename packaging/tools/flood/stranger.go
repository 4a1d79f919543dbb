package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// identity is who the flood says it is.
type identity struct {
	foreign tls.Certificate // of nobody
	own     *tls.Certificate
}

// newIdentity makes a certificate of nobody, and reads a satellite's where pki
// is not empty.
func newIdentity(pki string) (id identity, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return id, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return id, err
	}
	id.foreign = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	if pki == "" {
		return id, nil
	}
	text, err := os.ReadFile(filepath.Join(pki, "identity.pem"))
	if err != nil {
		return id, err
	}
	own, err := tls.X509KeyPair(text, text)
	if err != nil {
		return id, fmt.Errorf("%s: %w", pki, err)
	}
	id.own = &own
	return id, nil
}

// shake makes a TLS connection of c.
func shake(ctx context.Context, c net.Conn, cert tls.Certificate) (*tls.Conn, error) {
	t := tls.Client(c, &tls.Config{Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13})
	return t, t.HandshakeContext(ctx)
}

// drain reads until the other end closes.
func drain(c net.Conn) error {
	_, err := io.Copy(io.Discard, c)
	return err
}

func silent(_ context.Context, _ *flood, c net.Conn) error { return drain(c) }

// dripping sends a byte every half second.
type dripping struct {
	net.Conn
	ctx context.Context
}

func (d dripping) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := d.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
		select {
		case <-d.ctx.Done():
			return i, d.ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
	return len(p), nil
}

func slow(ctx context.Context, f *flood, c net.Conn) error {
	_, err := shake(ctx, dripping{c, ctx}, f.id.foreign)
	return err
}

// garbage also reads, so that answers do not hold it up.
func garbage(_ context.Context, _ *flood, c net.Conn) error {
	go drain(c)
	b := make([]byte, 64<<10)
	rand.Read(b)
	for {
		if _, err := c.Write(b); err != nil {
			return err
		}
	}
}

func foreign(ctx context.Context, f *flood, c net.Conn) error {
	t, err := shake(ctx, c, f.id.foreign)
	if err != nil {
		return err
	}
	return drain(t)
}

func plain(_ context.Context, _ *flood, c net.Conn) error {
	if _, err := c.Write(hello()); err != nil {
		return err
	}
	return drain(c)
}
