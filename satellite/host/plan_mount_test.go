package host

import (
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

// Fixtures of /proc/self/mountinfo, as kernels write it.
const (
	mountExt4   = "25 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro\n"
	mountTmp    = "30 25 0:25 / /tmp rw,nosuid,nodev shared:5 - tmpfs tmpfs rw,size=1024k\n"
	mountNFS4   = "98 25 0:45 / /home rw,relatime shared:52 - nfs4 files.example.com:/export/home rw,vers=4.2,rsize=1048576,hard,proto=tcp,local_lock=none,addr=192.0.2.5\n"
	mountNolock = "98 25 0:45 / /home rw,relatime shared:52 - nfs files.example.com:/export/home rw,vers=3,nolock,proto=tcp,local_lock=all,addr=192.0.2.5\n"
	mountPosix  = "98 25 0:45 / /home rw,relatime shared:52 - nfs files.example.com:/export/home rw,vers=3,local_lock=posix\n"
	mountFlock  = "98 25 0:45 / /home rw,relatime shared:52 - nfs files.example.com:/export/home rw,vers=3,local_lock=flock\n"
	mountOCFS2  = "77 25 8:16 / /home rw,relatime shared:40 - ocfs2 /dev/sdb rw,_netdev,heartbeat=local,errors=remount-ro,cluster_stack=o2cb\n"
	mountAutofs = "60 25 0:40 / /home rw,relatime shared:30 - autofs auto.home rw,fd=6,pgrp=900,timeout=300,minproto=5,maxproto=5,indirect\n"
	mountAlice  = "99 60 0:46 / /home/alice rw,relatime shared:60 - nfs4 files.example.com:/export/home/alice rw,vers=4.2,local_lock=none\n"
	mountBind   = "61 25 254:0 /srv/my\\040homes /home rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
	mountSSHFS  = "62 25 0:47 / /home rw,nosuid - fuse.sshfs user@files:/home rw,user_id=0\n"
)

// V-21: the file system of the homes, by what the kernel tells.
func TestHomesMount(t *testing.T) {
	const export = "files.example.com:/export/home"
	tests := map[string]struct {
		text, home string
		want       string // source (kind) at directory
		network    bool
		lock       string
	}{
		"nfs4":                        {text: mountNFS4, home: "/home/alice", want: export + " (nfs4) at /home", network: true},
		"V-22: nfs, nolock":           {text: mountNolock, home: "/home/alice", want: export + " (nfs) at /home", network: true, lock: "nolock"},
		"V-22: nfs, local locks":      {text: mountPosix, home: "/home", want: export + " (nfs) at /home", network: true, lock: "local_lock=posix"},
		"only flock is local":         {text: mountFlock, home: "/home", want: export + " (nfs) at /home", network: true},
		"ocfs2":                       {text: mountOCFS2, home: "/home/alice", want: "/dev/sdb (ocfs2) at /home", network: true},
		"ext4":                        {home: "/home/alice", want: "/dev/vda1 (ext4) at /"},
		"automounted, not mounted":    {text: mountAutofs, home: "/home", want: "/dev/vda1 (ext4) at /"},
		"automounted, each by itself": {text: mountAutofs + mountAlice, home: "/home/alice", want: export + " (nfs4) at /home", network: true},
		"a part of a file system":     {text: mountBind, home: "/home/alice", want: "/dev/vda1/srv/my homes (ext4) at /home"},
		"over one another":            {text: mountBind + mountNFS4, home: "/home/alice", want: export + " (nfs4) at /home", network: true},
		"beside":                      {text: mountNFS4, home: "/homes/alice", want: "/dev/vda1 (ext4) at /"},
		"fuse":                        {text: mountSSHFS, home: "/home/alice", want: "user@files:/home (fuse.sshfs) at /home", network: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m, ok := mountOf(parseMountinfo(mountExt4+mountTmp+tt.text), tt.home)
			if tt.home != "/home" {
				m = homesMount(m, tt.home)
			}
			if got := mountText(m); !ok || got != tt.want || m.Network != tt.network || lockProblem(m) != tt.lock {
				t.Errorf("got %s, network %v, lock %q, want %s, %v, %q", got, m.Network, lockProblem(m), tt.want, tt.network, tt.lock)
			}
		})
	}
	if _, ok := mountOf(parseMountinfo(mountTmp), "/home"); ok {
		t.Error("found a mount above /home where there is none")
	}
}

func TestParseMountinfo(t *testing.T) {
	if got := parseMountinfo("no line\n1 2 3 - \n" + mountTmp + "9 9 0:1 / relative rw - ext4 x rw\n"); !reflect.DeepEqual(got,
		[]Mount{{Dir: "/tmp", Kind: "tmpfs", Source: "tmpfs", Options: []string{"rw", "nosuid", "nodev", "size=1024k"}}}) {
		t.Errorf("got %+v", got)
	}
	for text, want := range map[string]string{`a\040b`: "a b", `\134`: `\`, `\04`: `\04`, `\999`: `\999`, `a\`: `a\`, "\xff": "?"} {
		if got := octal(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// Whoever mounts something chooses its name: whatever that is, the result is
// text, and the search ends.
func FuzzMountinfo(f *testing.F) {
	for _, s := range []string{mountExt4, mountNFS4, mountNolock, mountOCFS2, mountAutofs + mountAlice, mountBind, mountSSHFS, " - \n", "1 2 3 \\057 \\057 - - - -"} {
		f.Add(s, "/home/alice")
	}
	f.Fuzz(func(t *testing.T, text, home string) {
		mounts := parseMountinfo(text)
		for _, m := range mounts {
			if !strings.HasPrefix(m.Dir, "/") || !utf8.ValidString(m.Dir+m.Kind+m.Source) || strings.Count(text, "\n")+1 < len(mounts) {
				t.Fatalf("got %+v", m)
			}
		}
		if m, ok := mountOf(mounts, home); ok {
			_, _ = homesMount(m, home), lockProblem(m)
		}
	})
}
