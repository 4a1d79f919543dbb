package guesttest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// bootLimit is generous: an emulated processor on a busy machine.
const bootLimit = 5 * time.Minute

// TestGuest goes through the life of a desktop that has everything.
func TestGuest(t *testing.T) {
	t.Parallel()
	g := boot(t, "verdecmd.write=hello")
	g.waitSerial("GUEST UP alice")
	g.agent(`{"execute":"guest-ping"}`)

	got, err := os.ReadFile(filepath.Join(g.dir, "home", "hello"))
	if err != nil || string(got) != "alice\n" {
		t.Errorf("file written by the guest into the home: got %q, %v, want the user's name", got, err)
	}
	if want := "GUEST DISK boots=1"; !strings.Contains(g.serial(), want) {
		t.Errorf("serial console: got %q, want %q in it", g.serial(), want)
	}
	g.waitSerial("lease of 10.0.2.")

	// The clock on the screen goes on.
	first := g.screen()
	g.until("the picture changes", func() bool { return g.screen() != first })

	g.press("GUEST DOWN power-button")
	g.waitExit()
}

func TestGuestWithoutAgent(t *testing.T) {
	t.Parallel()
	g := boot(t, "verdecmd.noagent verdecmd.poweroffafter=1")
	g.waitSerial("GUEST UP alice")
	g.waitExit()
}

func TestGuestIgnoresPower(t *testing.T) {
	t.Parallel()
	g := boot(t, "verdecmd.ignorepower")
	g.waitSerial("GUEST UP alice")
	g.agent(`{"execute":"guest-ping"}`)
	g.press("GUEST IGNORES power-button")
	g.tell(`{"execute":"guest-shutdown"}`)
	g.waitSerial("GUEST IGNORES -h")
	g.agent(`{"execute":"guest-ping"}`)
}

func TestGuestHangs(t *testing.T) {
	t.Parallel()
	g := boot(t, "verdecmd.hang")
	g.waitSerial("GUEST HANG")
}

// TestBuildRepeats: the same inputs give the same bytes, and a guest that is up
// to date is left alone.
func TestBuildRepeats(t *testing.T) {
	t.Parallel()
	first, again := Dir(t), t.TempDir()
	build := func() {
		if out, err := exec.Command(filepath.Join(moduleTop(t), "packaging/guest/build"), again).CombinedOutput(); err != nil {
			t.Fatalf("build: %v\n%s", err, out)
		}
	}
	build()
	for _, name := range []string{"desktop.conf", "vmlinux", "initrd", "disk.qcow2"} {
		if out, err := exec.Command("cmp", filepath.Join(first, name), filepath.Join(again, name)).CombinedOutput(); err != nil {
			t.Errorf("two builds differ: %s", out)
		}
		if info, err := os.Stat(filepath.Join(again, name)); err == nil && info.Mode() != 0o444 {
			t.Errorf("%s: got mode %v, want 0444", name, info.Mode())
		}
	}
	before, err := os.Stat(filepath.Join(again, "initrd"))
	if err != nil {
		t.Fatal(err)
	}
	build()
	if after, err := os.Stat(filepath.Join(again, "initrd")); err != nil || !os.SameFile(before, after) {
		t.Errorf("a build without a change replaced the files (%v)", err)
	}
}

// guest is one QEMU with the devices that a desktop has.
type guest struct {
	t    *testing.T
	dir  string
	exit chan struct{}
	err  error // of the process, once exit is closed
}

func boot(t *testing.T, words string) *guest {
	t.Helper()
	image := Dir(t)
	dir, err := os.MkdirTemp("", "guest") // short: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	g := &guest{t: t, dir: dir, exit: make(chan struct{})}
	if err := os.Mkdir(filepath.Join(dir, "home"), 0o755); err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(dir, "disk")
	if out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", filepath.Join(image, "disk.qcow2"), overlay).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v\n%s", err, out)
	}
	cmd := exec.Command("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-accel", "tcg,tb-size=64", "-cpu", "qemu64", "-M", "q35",
		"-m", conf(t, image, "WIN4_MEMORY"), "-vga", "std", "-display", "none",
		"-kernel", filepath.Join(image, conf(t, image, "WIN4_KERNEL")), "-initrd", filepath.Join(image, conf(t, image, "WIN4_INITRD")),
		"-append", conf(t, image, "WIN4_APPEND")+" "+words,
		"-serial", "file:"+filepath.Join(dir, "serial"), "-qmp", "unix:"+filepath.Join(dir, "qmp")+",server=on,wait=off",
		"-blockdev", "driver=qcow2,node-name=d0,file.driver=file,file.filename="+overlay, "-device", "virtio-blk-pci,drive=d0",
		"-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,romfile=",
		"-device", "virtio-serial-pci", "-chardev", "socket,path="+filepath.Join(dir, "agent")+",server=on,wait=off,id=ga",
		"-device", "virtserialport,chardev=ga,name=org.qemu.guest_agent.0",
		"-fsdev", "local,id=home,path="+filepath.Join(dir, "home")+",security_model=none", "-device", "virtio-9p-pci,fsdev=home,mount_tag=home",
		"-device", "virtio-rng-pci", "-fw_cfg", "name=opt/org.verdecmd/name,string=alice")
	stderr := new(strings.Builder)
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		if err := cmd.Wait(); err != nil {
			g.err = fmt.Errorf("%v: %s", err, stderr)
		}
		close(g.exit)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-g.exit
	})
	return g
}

// conf returns a value of the image's desktop.conf.
func conf(t *testing.T, image, key string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(image, "desktop.conf"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			return strings.Trim(v, `"`)
		}
	}
	t.Fatalf("desktop.conf has no %s", key)
	return ""
}

func (g *guest) serial() string {
	text, _ := os.ReadFile(filepath.Join(g.dir, "serial"))
	return string(text)
}

func (g *guest) until(what string, done func() bool) {
	g.t.Helper()
	limit := time.NewTimer(bootLimit)
	defer limit.Stop()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for !done() {
		select {
		case <-g.exit:
			if done() {
				return
			}
			g.t.Fatalf("waiting until %s: QEMU ended (%v), serial console: %q", what, g.err, g.serial())
		case <-limit.C:
			g.t.Fatalf("not within %v: %s; serial console: %q", bootLimit, what, g.serial())
		case <-look.C:
		}
	}
}

func (g *guest) waitSerial(want string) {
	g.t.Helper()
	g.until(fmt.Sprintf("serial console says %q", want), func() bool { return strings.Contains(g.serial(), want) })
}

// press presses the power button until the guest says what it does: who listens
// to the button may not be there yet.
func (g *guest) press(want string) {
	g.t.Helper()
	var last time.Time
	g.until(fmt.Sprintf("serial console says %q", want), func() bool {
		if strings.Contains(g.serial(), want) {
			return true
		}
		if time.Since(last) > 10*time.Second {
			last = time.Now()
			g.qmp(`{"execute":"system_powerdown"}`)
		}
		return false
	})
}

func (g *guest) waitExit() {
	g.t.Helper()
	select {
	case <-g.exit:
		if g.err != nil {
			g.t.Errorf("QEMU's end: %v", g.err)
		}
	case <-time.After(bootLimit):
		g.t.Fatalf("QEMU still runs; serial console: %q", g.serial())
	}
}

// screen returns the picture as PNG.
func (g *guest) screen() string {
	g.t.Helper()
	name := filepath.Join(g.dir, "screen")
	g.qmp(fmt.Sprintf(`{"execute":"screendump","arguments":{"filename":%q,"format":"png"}}`, name))
	picture, err := os.ReadFile(name)
	if err != nil {
		g.t.Fatal(err)
	}
	return string(picture)
}

// qmp sends one command to QEMU and fails on an error reply.
func (g *guest) qmp(command string) {
	g.t.Helper()
	g.call("qmp", `{"execute":"qmp_capabilities"}`, command)
}

// agent sends one command to the guest agent and fails on an error reply.
func (g *guest) agent(command string) {
	g.t.Helper()
	g.call("agent", command)
}

// tell sends a command that the agent does not answer.
func (g *guest) tell(command string) {
	g.t.Helper()
	c := g.dial("agent")
	defer c.Close()
	if _, err := fmt.Fprintln(c, command); err != nil {
		g.t.Fatal(err)
	}
}

func (g *guest) dial(socket string) net.Conn {
	g.t.Helper()
	c, err := net.Dial("unix", filepath.Join(g.dir, socket))
	if err != nil {
		g.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(bootLimit))
	return c
}

func (g *guest) call(socket string, commands ...string) {
	g.t.Helper()
	c := g.dial(socket)
	defer c.Close()
	replies := bufio.NewScanner(c)
	for _, command := range commands {
		if _, err := fmt.Fprintln(c, command); err != nil {
			g.t.Fatal(err)
		}
		for replies.Scan() {
			var reply struct{ Return, Error json.RawMessage }
			if err := json.Unmarshal(replies.Bytes(), &reply); err != nil {
				g.t.Fatalf("%s: got %q, want JSON", socket, replies.Text())
			}
			if reply.Error != nil {
				g.t.Fatalf("%s %s: %s", socket, command, reply.Error)
			}
			if reply.Return != nil {
				break // else the greeting or an event
			}
		}
		if err := replies.Err(); err != nil {
			g.t.Fatalf("%s %s: %v", socket, command, err)
		}
	}
}
