package qemu

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// V-19: QEMU is really started with the accelerator, not only looked at.
func TestTry(t *testing.T) {
	s := newSite(t)
	if err := s.driver().Try(t.Context()); err != nil {
		t.Errorf("the real one: %v", err)
	}
	dir, err := os.MkdirTemp("", "v")
	must(t, err, os.Chmod(dir, 0o755))
	t.Cleanup(func() { os.RemoveAll(dir) })
	for name, tt := range map[string]struct{ script, want string }{
		"fails":         {"echo 'failed to initialize kvm: Device or resource busy' >&2; exit 1", "Device or resource busy"},
		"says nothing":  {"cat >/dev/null", `answers ""`},
		"is no QEMU":    {"printf 'hello \\033[2J world'", `answers "hello  [2J world"`},
		"hangs":         {"exec sleep 60", "no answer"},
		"talks forever": {"exec yes", "no answer"},
	} {
		t.Run(name, func(t *testing.T) {
			bin := filepath.Join(dir, strings.ReplaceAll(name, " ", ""))
			must(t, os.WriteFile(bin, []byte("#!/bin/sh\n"+tt.script+"\n"), 0o755))
			s.cfg.Binary = bin
			limit := time.Minute
			if tt.want == "no answer" {
				limit = 200 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			if err := s.driver().Try(ctx); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	s.cfg.Binary = "qemu-system-none"
	if err := s.driver().Try(t.Context()); err == nil || !strings.Contains(err.Error(), "apt install") {
		t.Errorf("not there: got %v", err)
	}
}

// V-19: who may open the device is told, and that nobody but root may.
func TestDevice(t *testing.T) {
	s := newSite(t)
	s.cfg.AsRoot = true
	d := s.driver()
	d.host.device = filepath.Join(t.TempDir(), "kvm")
	if _, err := d.Device(); err == nil {
		t.Error("not there: got nil, want an error")
	}
	must(t, os.WriteFile(d.host.device, nil, 0o600))
	if _, err := d.Device(); err == nil || !strings.Contains(err.Error(), "mode 0600: no user can open it") {
		t.Errorf("of root alone: got %v", err)
	}
	must(t, os.Chmod(d.host.device, 0o660))
	if text, err := d.Device(); err != nil || !strings.Contains(text, "mode 0660") {
		t.Errorf("got %q, %v", text, err)
	}
	d.cfg.AsRoot = false
	if _, err := d.Device(); err != nil {
		t.Errorf("who runs the tests: %v", err)
	}
}
