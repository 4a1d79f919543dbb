package host

import (
	"path"
	"slices"
	"strings"
)

// networkKinds are the file systems whose data other computers have too. Those
// of FUSE may be anything; most that servers mount are remote.
var networkKinds = []string{"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "ocfs2", "gfs2", "lustre", "gpfs", "afs", "coda", "beegfs", "virtiofs", "fuse"}

// parseMountinfo reads /proc/self/mountinfo: what is mounted where, in the order
// in which it was mounted. Lines that are none are left out.
func parseMountinfo(text string) []Mount {
	var out []Mount
	for line := range strings.Lines(text) {
		// 36 35 98:0 /root /mnt rw,noatime shared:1 - ext4 /dev/sda1 rw,errors=continue
		before, after, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 6 || len(g) < 2 {
			continue
		}
		m := Mount{Dir: octal(f[4]), Kind: octal(g[0]), Source: octal(g[1]), Options: strings.Split(f[5], ",")}
		if !strings.HasPrefix(m.Dir, "/") {
			continue
		}
		// Of a file system of which a part is mounted, that part is the source.
		if root := octal(f[3]); root != "/" && strings.HasPrefix(root, "/") && !strings.HasSuffix(m.Source, root) {
			m.Source += root
		}
		if len(g) > 2 {
			for _, o := range strings.Split(g[2], ",") {
				if !slices.Contains(m.Options, o) {
					m.Options = append(m.Options, o)
				}
			}
		}
		kind, _, _ := strings.Cut(m.Kind, ".") // fuse.sshfs
		m.Network = slices.Contains(networkKinds, kind)
		out = append(out, m)
	}
	return out
}

// octal undoes the escapes of /proc: \040 is a blank.
func octal(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && isOctal(s[i+1], '3') && isOctal(s[i+2], '7') && isOctal(s[i+3], '7') {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return strings.ToValidUTF8(b.String(), "?")
}

func isOctal(c, most byte) bool { return '0' <= c && c <= most }

// mountOf is the file system that a directory is on; ok is false where none of
// the mounts is above it.
func mountOf(mounts []Mount, dir string) (m Mount, ok bool) {
	dir = path.Clean(dir)
	for _, c := range mounts {
		// Of two at one place the later one hides the other.
		if c.Kind != "autofs" && below(dir, c.Dir) && (!ok || len(c.Dir) >= len(m.Dir)) {
			m, ok = c, true
		}
	}
	return m, ok
}

func below(dir, top string) bool {
	return dir == top || top == "/" || strings.HasPrefix(dir, top+"/")
}

// homesMount is the file system of the homes, by that of one home. Where each
// home is mounted by itself, as automounters do, its own name is taken off both
// ends, so that hosts with different users' homes can be compared.
func homesMount(m Mount, home string) Mount {
	name := path.Base(home)
	if m.Dir == path.Clean(home) && path.Base(m.Source) == name && name != "/" {
		m.Dir, m.Source = path.Dir(m.Dir), strings.TrimSuffix(m.Source, "/"+name)
	}
	return m
}

// lockProblem tells which option of the mount keeps locks on one host; empty:
// none does.
func lockProblem(m Mount) string {
	for _, o := range m.Options {
		switch o {
		case "nolock", "local_lock=all", "local_lock=posix":
			return o
		}
	}
	return ""
}
