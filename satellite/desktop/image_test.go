package desktop

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// write makes a file and the directories above it.
func write(t testing.TB, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func link(t testing.TB, target, path string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.Symlink(target, path)); err != nil {
		t.Fatal(err)
	}
}

func TestResolve(t *testing.T) {
	conf := func(text string) func(*testing.T, string) {
		return func(t *testing.T, root string) { write(t, root+"/alice/win4/desktop.conf", text) }
	}
	tests := map[string]struct {
		name string // default win4
		make func(t *testing.T, root string)
		want Image // paths below root
		err  error
		text []string // all of it in the error
	}{
		"a published version, through two links": {
			make: func(t *testing.T, root string) {
				write(t, root+"/pub/win4.d/7/desktop.conf", "# seven\nexport WIN4_MEMORY=\"1G\"\nWIN4_CPUS=2\nWIN4_KERNEL='vmlinux'\nWIN4_APPEND=\"quiet a=b\"\nWIN4_INITRD=initrd\nWIN4_REQUIRES='kvm gpu'\nWIN4_AGENT=no\n")
				for _, f := range []string{"disk.qcow2", "vmlinux", "initrd"} {
					write(t, root+"/pub/win4.d/7/"+f, "x")
				}
				link(t, "win4.d/7", root+"/pub/win4")
				link(t, root+"/pub/win4", root+"/alice/win4")
			},
			want: Image{Name: "win4", Version: 7, Dir: "/pub/win4.d/7", OS: "linux", MemoryMiB: 1024, CPUs: 2,
				Disk: "/pub/win4.d/7/disk.qcow2", Kernel: "/pub/win4.d/7/vmlinux", Initrd: "/pub/win4.d/7/initrd",
				Append: "quiet a=b", Requires: []string{"kvm", "gpu"}},
		},
		"a plain directory, everything by default": {
			make: func(t *testing.T, root string) {
				write(t, root+"/alice/win4/desktop.conf", "")
				write(t, root+"/alice/win4/disk.qcow2", "x")
			},
			want: Image{Name: "win4", Dir: "/alice/win4", OS: "linux", MemoryMiB: 2048, CPUs: 1, Agent: true, Disk: "/alice/win4/disk.qcow2"},
		},
		"Windows boots by itself": {
			make: func(t *testing.T, root string) {
				write(t, root+"/alice/win4/desktop.conf", "WIN4_OS=windows\nWIN4_DISK=c.qcow2\n")
				write(t, root+"/alice/win4/c.qcow2", "x")
			},
			want: Image{Name: "win4", Dir: "/alice/win4", OS: "windows", MemoryMiB: 2048, CPUs: 1, Agent: true, Disk: "/alice/win4/c.qcow2"},
		},
		"no disk": {
			make: func(t *testing.T, root string) {
				write(t, root+"/alice/win4/desktop.conf", "WIN4_DISK=''\nWIN4_KERNEL=k\n")
				write(t, root+"/alice/win4/k", "x")
			},
			want: Image{Name: "win4", Dir: "/alice/win4", OS: "linux", MemoryMiB: 2048, CPUs: 1, Agent: true, Kernel: "/alice/win4/k"},
		},
		"nothing there": {
			make: func(*testing.T, string) {},
			err:  ErrNoImage, text: []string{"/alice/win4", "does not exist", "ln -s"},
		},
		"dead link": {
			make: func(t *testing.T, root string) { link(t, "/nowhere/win4", root+"/alice/win4") },
			err:  ErrNoImage, text: []string{"/alice/win4", "/nowhere/win4"},
		},
		"link to itself": {
			make: func(t *testing.T, root string) { link(t, "win4", root+"/alice/win4") },
			err:  ErrNoImage, text: []string{"/alice/win4: ", "links"},
		},
		"a file, not a directory": {
			make: func(t *testing.T, root string) { write(t, root+"/alice/win4", "x") },
			err:  ErrNoImage, text: []string{"/alice/win4", "not a directory"},
		},
		"no desktop.conf": {
			make: func(t *testing.T, root string) { write(t, root+"/alice/win4/disk.qcow2", "x") },
			err:  ErrNoImage, text: []string{"/alice/win4/desktop.conf"},
		},
		"desktop.conf is a link": {
			make: func(t *testing.T, root string) {
				write(t, root+"/secret", "WIN4_DISK=x")
				link(t, root+"/secret", root+"/alice/win4/desktop.conf")
			},
			err: ErrNoImage, text: []string{"desktop.conf", "is a link"},
		},
		"desktop.conf is a pipe, nobody waits": {
			make: func(t *testing.T, root string) {
				write(t, root+"/alice/win4/disk.qcow2", "x")
				if err := unix.Mkfifo(root+"/alice/win4/desktop.conf", 0o644); err != nil {
					t.Fatal(err)
				}
			},
			err: ErrNoImage, text: []string{"not a regular file"},
		},
		"the disk is a link out": {
			make: func(t *testing.T, root string) {
				write(t, root+"/secret", "x")
				write(t, root+"/alice/win4/desktop.conf", "")
				link(t, root+"/secret", root+"/alice/win4/disk.qcow2")
			},
			err: ErrNoImage, text: []string{"/alice/win4/disk.qcow2", "is a link"},
		},
		"a name that leads out": {
			name: "../bob/win4",
			make: func(*testing.T, string) {},
			err:  ErrNoImage, text: []string{"no name of a desktop"},
		},
		"no disk where one is named": {make: conf(""), err: ErrNoImage, text: []string{"/alice/win4/disk.qcow2", "WIN4_DISK"}},
		"desktop.conf is huge":       {make: conf(strings.Repeat("#\n", 40000)), err: ErrBadConfig, text: []string{"desktop.conf", "65536"}},
		"the disk is elsewhere":      {make: conf("\nWIN4_DISK=../secret"), err: ErrBadConfig, text: []string{"desktop.conf:2", "WIN4_DISK", "plain name"}},
		"a hidden file":              {make: conf("WIN4_KERNEL=.k"), err: ErrBadConfig, text: []string{"desktop.conf:1", "leading dot"}},
		"too much memory":            {make: conf("WIN4_MEMORY=99999G"), err: ErrBadConfig, text: []string{"desktop.conf:1", "WIN4_MEMORY"}},
		"initrd alone":               {make: conf("\n\nWIN4_INITRD=i"), err: ErrBadConfig, text: []string{"desktop.conf:3", "WIN4_KERNEL"}},
		"words alone":                {make: conf("WIN4_APPEND=i"), err: ErrBadConfig, text: []string{"desktop.conf:1", "WIN4_KERNEL"}},
		"nothing to boot":            {make: conf("WIN4_DISK="), err: ErrBadConfig, text: []string{"desktop.conf:1", "nothing to boot"}},
		"a command":                  {make: conf("WIN4_DISK=$(id)"), err: ErrBadConfig, text: []string{"desktop.conf:1"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			tt.make(t, root)
			if tt.name == "" {
				tt.name = "win4"
			}
			got, err := Resolve(root+"/alice", tt.name)
			if !errors.Is(err, tt.err) {
				t.Fatalf("got error %v, want %v", err, tt.err)
			}
			for _, s := range tt.text {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("got error %q, want %q in it", err, s)
				}
			}
			for _, p := range []*string{&got.Dir, &got.Disk, &got.Kernel, &got.Initrd} {
				*p = strings.TrimPrefix(*p, root)
			}
			for _, l := range []*[]string{&got.Requires, &got.Avoid} {
				if len(*l) == 0 {
					*l = nil
				}
			}
			if err == nil && !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// What root reads for a user is what the user may read (RELIABILITY 1.1 B).
func TestUserDo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir, err := os.MkdirTemp("", "do") // t.TempDir lies in a directory that is closed to others
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	write(t, dir+"/secret", "x")
	write(t, dir+"/shared", "x")
	if err := errors.Join(os.Chmod(dir+"/secret", 0o600), os.Chmod(dir, 0o777), os.Chown(dir+"/shared", 0, 4711), os.Chmod(dir+"/shared", 0o640)); err != nil {
		t.Fatal(err)
	}
	u := User{Name: "u", UID: 64000, GID: 64001, Groups: []uint32{4711}}
	err = u.Do(func() error {
		if _, err := os.ReadFile(dir + "/secret"); !errors.Is(err, os.ErrPermission) {
			t.Errorf("reading a file of root: got %v, want permission denied", err)
		}
		if _, err := os.ReadFile(dir + "/shared"); err != nil {
			t.Errorf("reading a file of the user's group: %v", err)
		}
		return os.WriteFile(dir+"/made", nil, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir+"/made", &st); err != nil || st.Uid != 64000 || st.Gid != 64001 {
		t.Errorf("got owner %d:%d, %v, want 64000:64001", st.Uid, st.Gid, err)
	}
	if _, err := os.ReadFile(dir + "/secret"); err != nil {
		t.Errorf("afterwards root is root again: %v", err)
	}
}

// Whatever stands in a desktop.conf, the answer is an error or an image whose
// files are plain names (S21).
func FuzzDesktopConf(f *testing.F) {
	f.Add([]byte("WIN4_DISK=disk.qcow2\nWIN4_MEMORY=512\nexport WIN4_OS='windows'\n"))
	f.Add([]byte("WIN4_DISK=../../etc/shadow\n"))
	f.Add([]byte("WIN4_KERNEL=\"a b\"\\\nc\nWIN4_APPEND='x,y=\"z\"'\n# end"))
	f.Add([]byte("\xff\x00=`"))
	f.Fuzz(func(t *testing.T, data []byte) {
		img, err := parseConfig("desktop.conf", data)
		if err != nil {
			if !errors.Is(err, ErrBadConfig) {
				t.Fatalf("got %v, want ErrBadConfig", err)
			}
			return
		}
		for _, name := range []string{img.Disk, img.Kernel, img.Initrd} {
			if strings.ContainsAny(name, "/\x00") || strings.HasPrefix(name, ".") {
				t.Fatalf("got file name %q", name)
			}
		}
		if img.MemoryMiB < 32 || img.CPUs < 1 || img.Disk == "" && img.Kernel == "" {
			t.Fatalf("got %+v", img)
		}
	})
}
