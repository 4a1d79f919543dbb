package qemu

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"verdecmd/satellite/desktop"
)

func plainSpec() desktop.Spec {
	return desktop.Spec{
		Session: "s40", UUID: "4fd7d6f1-c0de-4d0e-8000-000000000040", Dir: "/snap/s40",
		User:  desktop.User{Name: "alice", UID: 1001, GID: 1001, Home: "/home/alice"},
		Image: desktop.Image{OS: "linux", Agent: true, Disk: "/pub/win4.d/7/disk.qcow2", Kernel: "/pub/win4.d/7/vmlinux", Initrd: "/pub/win4.d/7/initrd", Append: "quiet a=b,c"},
		Name:  "alice", MAC: "52:54:00:12:34:56", MemoryMiB: 512, CPUs: 2,
	}
}

// values are what follows an option, each time it is there.
func values(args []string, option string) []string {
	var out []string
	for i, a := range args[:len(args)-1] {
		if a == option {
			out = append(out, args[i+1])
		}
	}
	return out
}

func TestArguments(t *testing.T) {
	tests := map[string]struct {
		spec func(*desktop.Spec)
		opt  options
		want map[string][]string // option: values
		no   string              // must be in no argument
	}{
		"Linux": {
			opt: options{accel: "tcg", cpu: "qemu64"},
			want: map[string][]string{
				"-name":    {"guest=s40"},
				"-uuid":    {"4fd7d6f1-c0de-4d0e-8000-000000000040"},
				"-sandbox": {"on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"},
				"-machine": {"pc-q35-7.2,memory-backend=ram,dump-guest-core=off"},
				"-accel":   {"tcg"}, "-cpu": {"qemu64"}, "-smp": {"2"}, "-m": {"512M"},
				"-object": {`{"id":"ram","qom-type":"memory-backend-ram","size":536870912}`},
				"-rtc":    {"base=utc"}, "-vnc": {"unix:vnc"}, "-vga": {"std"}, "-display": {"none"},
				"-kernel": {"/pub/win4.d/7/vmlinux"}, "-initrd": {"/pub/win4.d/7/initrd"}, "-append": {"quiet a=b,c"},
				"-netdev": {`{"id":"n0","type":"user"}`},
				"-blockdev": {`{"backing":{"backing":null,"driver":"qcow2","file":{"driver":"file","filename":"/pub/win4.d/7/disk.qcow2","read-only":true},"node-name":"base0","read-only":true},` +
					`"discard":"unmap","driver":"qcow2","file":{"driver":"file","filename":"overlay.qcow2"},"node-name":"d0"}`},
				"-fsdev":  {"local,id=home,security_model=none,multidevs=remap,path=/home/alice"},
				"-fw_cfg": {"name=opt/org.verdecmd/name,string=alice", "name=opt/org.verdecmd/user,string=alice", "name=opt/org.verdecmd/uid,string=1001"},
				"-device": {"virtio-blk-pci,drive=d0,id=vd0,bootindex=1", "virtio-net-pci,netdev=n0,id=nic0,romfile=,mac=52:54:00:12:34:56",
					"virtio-serial-pci,id=vs0", "virtserialport,chardev=ga,id=ga0,name=org.qemu.guest_agent.0",
					"virtio-tablet-pci", "virtio-rng-pci", "virtio-9p-pci,fsdev=home,mount_tag=home"},
			},
		},
		"Windows: the disk boots by itself, drivers as shipped, no 9p": {
			spec: func(s *desktop.Spec) {
				s.Image.OS, s.Image.Kernel, s.Image.Initrd, s.Image.Append = "windows", "", "", ""
			},
			opt: options{accel: "kvm", cpu: "Nehalem"},
			want: map[string][]string{
				"-accel": {"kvm"}, "-rtc": {"base=localtime"}, "-kernel": nil, "-append": nil, "-fsdev": nil,
				"-device": {"ide-hd,drive=d0,id=vd0,bootindex=1", "e1000e,netdev=n0,id=nic0,romfile=,mac=52:54:00:12:34:56",
					"virtio-serial-pci,id=vs0", "virtserialport,chardev=ga,id=ga0,name=org.qemu.guest_agent.0",
					"qemu-xhci,id=usb", "usb-tablet,bus=usb.0"},
			},
			no: "9p",
		},
		"no disk, no initrd, no agent": {
			spec: func(s *desktop.Spec) { s.Image.Disk, s.Image.Initrd, s.Image.Agent = "", "", false },
			want: map[string][]string{"-blockdev": nil, "-initrd": nil},
			no:   "guest_agent",
		},
		"bridge": {
			opt:  options{tapFD: 3},
			want: map[string][]string{"-netdev": {`{"fd":"3","id":"n0","type":"tap","vhost":false}`}},
		},
		"commas and equal signs add no options": {
			spec: func(s *desktop.Spec) {
				s.Name, s.User.Name = "al,ice=1", "a,security_model=passthrough"
				s.User.Home = `/home/x,security_model=mapped,path=/etc"\`
				s.Image.Disk = `/pub/a","driver":"raw","x":",b=c/disk.qcow2`
			},
			want: map[string][]string{
				"-fw_cfg": {"name=opt/org.verdecmd/name,string=al,,ice=1", "name=opt/org.verdecmd/user,string=a,,security_model=passthrough", "name=opt/org.verdecmd/uid,string=1001"},
				"-fsdev":  {`local,id=home,security_model=none,multidevs=remap,path=/home/x,,security_model=mapped,,path=/etc"\`},
				"-blockdev": {`{"backing":{"backing":null,"driver":"qcow2","file":{"driver":"file","filename":"/pub/a\",\"driver\":\"raw\",\"x\":\",b=c/disk.qcow2","read-only":true},"node-name":"base0","read-only":true},` +
					`"discard":"unmap","driver":"qcow2","file":{"driver":"file","filename":"overlay.qcow2"},"node-name":"d0"}`},
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := plainSpec()
			if tt.spec != nil {
				tt.spec(&s)
			}
			if err := checkSpec(s); err != nil {
				t.Fatal(err)
			}
			args := arguments(s, tt.opt)
			for option, want := range tt.want {
				if got := values(args, option); !reflect.DeepEqual(got, want) {
					t.Errorf("%s:\ngot  %q\nwant %q", option, got, want)
				}
			}
			for _, option := range []string{"-nodefaults", "-no-user-config"} {
				if !slices.Contains(args, option) {
					t.Errorf("%s is missing", option)
				}
			}
			for _, a := range args {
				if tt.no != "" && strings.Contains(a, tt.no) {
					t.Errorf("got %q, want no %q", a, tt.no)
				}
				// No display port, no monitor on the network (RELIABILITY 1.1 A).
				for _, bad := range []string{"tcp:", "host=", "hostfwd", "-daemonize", "-runas"} {
					if strings.Contains(a, bad) {
						t.Errorf("got %q, want no %q", a, bad)
					}
				}
			}
		})
	}
}

func TestCheckSpec(t *testing.T) {
	tests := map[string]func(*desktop.Spec){
		"session with a path":       func(s *desktop.Spec) { s.Session = "../s1" },
		"session with an option":    func(s *desktop.Spec) { s.Session = "s1,x" },
		"no UUID":                   func(s *desktop.Spec) { s.UUID = "" },
		"MAC":                       func(s *desktop.Spec) { s.MAC = "52:54:00:12:34:56,x=y" },
		"newline in the home":       func(s *desktop.Spec) { s.User.Home = "/home/a\nb" },
		"bytes that are not UTF-8":  func(s *desktop.Spec) { s.User.Home = "/home/\xff" },
		"NUL in the kernel's words": func(s *desktop.Spec) { s.Image.Append = "a\x00b" },
		"relative disk":             func(s *desktop.Spec) { s.Image.Disk = "disk.qcow2" },
		"no memory":                 func(s *desktop.Spec) { s.MemoryMiB = 0 },
		"no processor":              func(s *desktop.Spec) { s.CPUs = -1 },
		"nothing to boot":           func(s *desktop.Spec) { s.Image.Kernel, s.Image.Disk = "", "" },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			s := plainSpec()
			change(&s)
			if err := checkSpec(s); !errors.Is(err, desktop.ErrBadConfig) {
				t.Errorf("got %v, want ErrBadConfig", err)
			}
		})
	}
}

// FuzzArguments: whatever a name is, it stays one value of one option.
func FuzzArguments(f *testing.F) {
	f.Add("al,ice", "/home/a,b", "/x/disk")
	f.Add(",,", "/=,=", `/"}`)
	f.Fuzz(func(t *testing.T, name, home, disk string) {
		s := plainSpec()
		plain := arguments(s, options{})
		s.Name, s.User.Home, s.Image.Disk = name, "/"+home, "/"+disk
		if checkSpec(s) != nil {
			return
		}
		args := arguments(s, options{})
		if len(args) != len(plain) {
			t.Fatalf("got %d arguments, want %d", len(args), len(plain))
		}
		// Read as QEMU does: a doubled comma is a comma, a single one ends.
		if got, want := split(values(args, "-fsdev")[0]), []string{"local", "id=home", "security_model=none", "multidevs=remap", "path=/" + home}; !reflect.DeepEqual(got, want) {
			t.Fatalf("got %q, want %q", got, want)
		}
		if got, want := split(values(args, "-fw_cfg")[0]), []string{"name=opt/org.verdecmd/name", "string=" + name}; !reflect.DeepEqual(got, want) {
			t.Fatalf("got %q, want %q", got, want)
		}
		var b struct {
			Driver  string
			Backing struct{ File struct{ Filename string } }
		}
		if err := json.Unmarshal([]byte(values(args, "-blockdev")[0]), &b); err != nil || b.Driver != "qcow2" || b.Backing.File.Filename != "/"+disk {
			t.Fatalf("got %+v, %v, want file /%s", b, err, disk)
		}
	})
}

func split(s string) []string {
	out := []string{""}
	for i := 0; i < len(s); i++ {
		if s[i] == ',' && i+1 < len(s) && s[i+1] == ',' {
			i++
		} else if s[i] == ',' {
			out = append(out, "")
			continue
		}
		out[len(out)-1] += s[i : i+1]
	}
	return out
}
