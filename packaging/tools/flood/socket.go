package main

import (
	"bytes"
	"context"
	"net"
	"strings"
)

// lines sends commands that do not exist and words without an end.
func lines(_ context.Context, _ *flood, c net.Conn) error {
	go drain(c)
	b := []byte(strings.Repeat("nonsense \"1\" 2\n", 100) + strings.Repeat("x", 20000) + "\n" + strings.Repeat("a ", 300) + "\n\"\n")
	for {
		if _, err := c.Write(b); err != nil {
			return err
		}
	}
}

func sessions(_ context.Context, _ *flood, c net.Conn) error {
	if _, err := c.Write([]byte("hello\n")); err != nil {
		return err
	}
	return drain(c)
}

func deaf(_ context.Context, _ *flood, c net.Conn) error {
	b := bytes.Repeat([]byte("help\nservers\nmetrics\n"), 100)
	for {
		if _, err := c.Write(b); err != nil {
			return err
		}
	}
}
