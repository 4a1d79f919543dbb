package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"verdecmd/satellite/desktop"
)

// nobody is who QEMU runs as when it is tried: it needs nothing of anybody's.
const nobody = 65534

// Try starts QEMU with the accelerator that desktops get, as an unprivileged
// user with its group, and with a board but nothing on it; it is ended as soon
// as it answers. A device that opens is not enough (V-19): another hypervisor
// may hold the processor, or the board may be missing.
func (d *Driver) Try(ctx context.Context) error {
	path, err := exec.LookPath(d.cfg.Binary)
	if err != nil {
		return d.missing(err)
	}
	accel, _, err := d.accelerator()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path, "-nodefaults", "-no-user-config", "-S", "-display", "none",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-machine", machineType, "-accel", accel, "-cpu", d.cpu(accel), "-m", "32M", "-qmp", "stdio")
	cmd.Dir, cmd.WaitDelay = "/", time.Second
	if d.cfg.AsRoot {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		if accel == "kvm" {
			group, err := d.host.kvmGroup()
			if err != nil {
				return err
			}
			cmd.SysProcAttr.Credential.Groups = []uint32{group}
		}
	}
	cmd.Stdin = strings.NewReader(`{"execute":"qmp_capabilities"}{"execute":"query-status"}{"execute":"quit"}`)
	var out, errOut tail
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	switch said := strings.TrimSpace(errOut.String()); {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: no answer", d.cfg.Binary)
	case err != nil:
		return fmt.Errorf("%s: %v: %s", d.cfg.Binary, err, printable(said))
	case !strings.Contains(out.String(), `"running": false`) && !strings.Contains(out.String(), `"SHUTDOWN"`):
		return fmt.Errorf("%s answers %q", d.cfg.Binary, printable(out.String()))
	}
	return nil
}

// tail keeps the last part of what is written.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	const most = 4096
	t.b = append(t.b, p...)
	t.b = t.b[max(0, len(t.b)-most):]
	return len(p), nil
}

func (t *tail) String() string { return string(t.b) }

// printable is the end of a text of another program, in one line.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	return s[max(0, len(s)-300):]
}

// Device says who owns the accelerator's device and which group may open it.
// The error tells what keeps desktops from it.
func (d *Driver) Device() (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(d.host.device, &st); err != nil {
		return "", fmt.Errorf("%s: %w", d.host.device, err)
	}
	group := strconv.FormatUint(uint64(st.Gid), 10)
	if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	text := fmt.Sprintf("%s has group %s and mode %04o", d.host.device, group, st.Mode&0o777)
	if _, err := d.host.kvmGroup(); err != nil && d.cfg.AsRoot {
		return text, fmt.Errorf("%s: no user can open it", text)
	}
	if !d.cfg.AsRoot {
		if f, err := os.OpenFile(d.host.device, os.O_RDWR, 0); err != nil {
			return text, errors.Join(desktop.ErrNoAccel, err)
		} else {
			f.Close()
		}
	}
	return text, nil
}
