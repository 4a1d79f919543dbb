// Package setup has only tests: of the script beside them, with a PATH that
// holds nothing but stand-ins.
package setup

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const installLine = "apt-get -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 install "

func TestSetup(t *testing.T) {
	t.Parallel()
	const (
		all   = "git qemu-system-x86_64 qemu-img ip setpriv flock cpio xz mke2fs"
		goNew = "go:echo go1.26.0"
	)
	tests := map[string]struct {
		programs string   // that are there and do nothing
		scripts  []string // name:what it does
		wantErr  bool
		want     string // in the output
		wantRun  string // the last arguments of apt-get; empty: it is not called
	}{
		"all there":           {programs: all, scripts: []string{goNew}},
		"missing, as root":    {programs: strings.ReplaceAll(all, "qemu-img", ""), scripts: []string{goNew, "id:echo 0"}, want: installLine + "qemu-utils\n", wantRun: installLine + "qemu-utils"},
		"one package for two": {programs: strings.NewReplacer("setpriv", "", "flock", "").Replace(all), scripts: []string{goNew, "id:echo 0"}, wantRun: installLine + "util-linux"},
		"missing, with sudo":  {programs: strings.ReplaceAll(all, "cpio", ""), scripts: []string{goNew, "id:echo 1000", `sudo:shift; exec "$@"`}, wantRun: installLine + "cpio"},
		"missing, no rights":  {programs: strings.ReplaceAll(all, "cpio", ""), scripts: []string{goNew, "id:echo 1000", "sudo:exit 1"}, wantErr: true, want: "sudo apt-get update && sudo " + installLine + "cpio\n"},
		"no Go":               {programs: all, wantErr: true, want: "no go was found"},
		"an old Go":           {programs: all, scripts: []string{"go:echo go1.19.8"}, wantErr: true, want: "go1.19.8 was found"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bin := t.TempDir()
			ran := filepath.Join(bin, "ran")
			script := func(name, text string) {
				if err := writeFile(filepath.Join(bin, name), "#!/bin/sh\n"+text+"\n", 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for _, p := range strings.Fields(tt.programs) {
				script(p, "")
			}
			script("apt-cache", "")
			script("apt-get", `echo "apt-get $*" >`+ran)
			for _, s := range tt.scripts {
				name, text, _ := strings.Cut(s, ":")
				script(name, text)
			}
			for _, real := range []string{"/usr/bin/env", "/bin/cat", "/bin/true"} {
				if err := os.Symlink(real, filepath.Join(bin, filepath.Base(real))); err != nil {
					t.Fatal(err)
				}
			}
			// The script itself adds the directories of root's programs.
			text, err := os.ReadFile("setup")
			if err != nil {
				t.Fatal(err)
			}
			copied := strings.Replace(string(text), `PATH="$PATH:/usr/sbin:/sbin"`, `PATH="$PATH"`, 1)
			copied = strings.ReplaceAll(copied, "/etc/ssl/certs/ca-certificates.crt", "/bin/sh")

			cmd := exec.Command("/bin/sh", "-s", "--", "--need", "demo")
			cmd.Env = []string{"PATH=" + bin}
			cmd.Stdin = strings.NewReader(copied)
			out, err := cmd.CombinedOutput()
			if (err != nil) != tt.wantErr || !strings.Contains(string(out), tt.want) {
				t.Errorf("got %v and %q, want %q and an error %v", err, out, tt.want, tt.wantErr)
			}
			got, _ := os.ReadFile(ran)
			if strings.TrimSpace(string(got)) != tt.wantRun {
				t.Errorf("apt-get: got %q, want %q", got, tt.wantRun)
			}
			if tt.wantRun == "" && !tt.wantErr && len(out) != 0 {
				t.Errorf("nothing to do: got %q, want silence", out)
			}
		})
	}
}
