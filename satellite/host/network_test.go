package host

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"verdecmd/settings"
	"verdecmd/settings/account"
	"verdecmd/settings/address"
)

// inNetwork runs f in a network name space of its own.
func inNetwork(t *testing.T, f func() error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: a network name space") // CI is root
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the thread ends with this goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	must(t, <-done)
}

// F-07: bridges with their networks, MTU and VLAN, as the kernel has them.
func TestBridges(t *testing.T) {
	inNetwork(t, func() error {
		for _, l := range []netlink.Link{
			&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br1", MTU: 1400}}, &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}},
			&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth1"},
		} {
			if err := netlink.LinkAdd(l); err != nil {
				return fmt.Errorf("%s: %w", l.Attrs().Name, err)
			}
		}
		br0, err := netlink.LinkByName("br0")
		if err != nil {
			return err
		}
		for _, a := range []string{"192.0.2.7/26", "2001:db8::7/64", "192.0.2.8/26"} {
			ip, err := netlink.ParseAddr(a)
			if err != nil {
				return err
			}
			if err := netlink.AddrAdd(br0, ip); err != nil {
				return err
			}
		}
		want := []Bridge{{Name: "br0", Subnets: []string{"192.0.2.0/26", "2001:db8::/64"}, MTU: 1500}, {Name: "br1", Subnets: []string{}, MTU: 1400}}
		if eth0, err := netlink.LinkByName("eth0"); err == nil {
			vlan := &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "eth0.7", ParentIndex: eth0.Attrs().Index, MasterIndex: br0.Attrs().Index}, VlanId: 7}
			if netlink.LinkAdd(vlan) == nil { // not every kernel has them
				want[0].VLAN = 7
			}
		}
		got, err := measureBridges()
		if err == nil && !reflect.DeepEqual(got, want) {
			err = fmt.Errorf("got %+v, want %+v", got, want)
		}
		return err
	})
}

// V-15: the interfaces that matter, with their speed where they tell it.
func TestCards(t *testing.T) {
	inNetwork(t, func() error {
		for name, ip := range map[string]string{"eth0": "192.0.2.7/24", "eth1": "198.51.100.7/24"} {
			l := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
			a, err := netlink.ParseAddr(ip)
			if err != nil {
				return err
			}
			for _, step := range []func() error{func() error { return netlink.LinkAdd(l) }, func() error { return netlink.AddrAdd(l, a) }, func() error { return netlink.LinkSetUp(l) }} {
				if err := step(); err != nil {
					return err
				}
			}
		}
		sys := filepath.Join(t.TempDir(), "sys")
		for name, speed := range map[string]string{"eth0": "100\n", "eth1": "-1\n"} {
			if err := os.MkdirAll(filepath.Join(sys, "class/net", name), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(sys, "class/net", name, "speed"), []byte(speed), 0o644); err != nil {
				return err
			}
		}
		got, err := measureCards(sys, []string{"192.0.2.1", "203.0.113.1"}, []string{"198.51.100.7", "192.0.2.7"})
		want := []Card{{"eth0", "to clients and to the master", 100}, {"eth1", "to clients", 0}}
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("got %+v, want %+v", got, want)
		}
		return err
	})
	for text, want := range map[string]int{"1000\n": 1000, "-1": 0, "": 0, "x": 0, "99999999999": 0} {
		if got := parseSpeed(text); got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
}

// Names are resolved both ways; an address that belongs to nobody here is told.
func TestNames(t *testing.T) {
	n, err := measureNames(t.Context(), nameServer{}, "sat7", []string{"master:1", "gone:1", "192.0.2.1:1"})
	must(t, err)
	if n.Own || n.Error != "" || !slices.Equal(n.IPs, []string{"127.0.0.1"}) || len(n.Masters) != 3 || n.Masters[1].Error != "no such name" || n.Masters[2].IPs[0] != "192.0.2.1" {
		t.Errorf("got %+v", n)
	}
	own, err := ownIPs()
	must(t, err)
	if ip, ok := reachable(own, own); ok {
		n, err := measureNames(t.Context(), nameServer{}, ip, nil)
		if err != nil || !n.Own || !slices.Equal(n.Back, []string{"sat7"}) {
			t.Errorf("%s: got %+v, %v", ip, n, err)
		}
	}
	tests := map[string]struct{ own, loopback, bind bool }{"127.0.0.1": {true, true, false}, "203.0.113.9": {}, "any": {true, true, false}}
	for text, want := range tests {
		v, err := settings.Parse("x", fmt.Appendf(nil, "WIN4_VERDE_PUBADDR=%q\n", text))
		must(t, err)
		a, err := measureAddress(t.Context(), nameServer{}, address.New(v), "sat7")
		if err != nil || a.Text != text || a.Own != want.own || a.Loopback != want.loopback || (a.Bind != "") != want.bind {
			t.Errorf("%s: got %+v, %v, want %+v", text, a, err, want)
		}
	}
	if !sameHost("SAT1.example.com.", "sat1") || !sameHost("sat1", "sat1") || sameHost("sat1.a", "sat1.b") || sameHost("sat1", "sat2") {
		t.Error("names of hosts are compared wrongly")
	}
	if a := net.ParseIP("::1"); !isLoopback(a.String()) || isLoopback("sat1") {
		t.Error("loopback")
	}
}

// directory is an account database that tells only some of its users, as
// directory servers do.
type directory struct {
	all  map[string]account.User
	told []string
}

func (d directory) Names(string, int) ([]string, error) { return d.told, nil }

func (d directory) Several(names []string) (map[string]account.User, error) {
	out := map[string]account.User{}
	for _, n := range names {
		if u, ok := d.all[n]; ok {
			out[n] = u
		}
	}
	return out, nil
}

func (d directory) ByUID(uid uint32) (account.User, error) {
	for _, u := range d.all {
		if u.UID == uid {
			return u, nil
		}
	}
	return account.User{}, account.ErrUnknownUser
}

// V-20, V-43: who has a desktop is found by the accounts that are told, and by
// the homes of those that are not.
func TestPeople(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it gives homes away") // CI is root
	}
	home := t.TempDir()
	must(t, os.Chmod(home, 0o755))
	d := directory{all: map[string]account.User{}, told: []string{"alice", "erin"}}
	add := func(name, dir string, uid, owner int, desktop bool) {
		dir = filepath.Join(home, dir)
		must(t, os.MkdirAll(dir, 0o700), os.Chown(dir, owner, owner))
		if desktop {
			must(t, os.Symlink("/pub/win4", filepath.Join(dir, "win4")))
		}
		if name != "" {
			d.all[name] = account.User{Name: name, UID: uint32(uid), GID: 100, Home: dir}
		}
	}
	add("alice", "alice", 31001, 31001, true)
	add("bob", "bob", 31002, 31092, true)      // not told; owned by another number
	add("carol", "c.arol", 31003, 31003, true) // not told, and the home has another name
	add("dave", "dave", 31004, 31004, false)   // no desktop
	add("erin", "erin", 31005, 31005, false)   // told, no desktop
	add("", "zoe", 0, 31009, true)             // nobody's
	add("", "root", 0, 0, true)                // root's is no user's
	must(t, os.WriteFile(filepath.Join(home, "file"), nil, 0o644), os.Symlink("/nowhere", filepath.Join(home, "link")))
	p, err := measurePeople(t.Context(), d, "win4", []string{home})
	must(t, err)
	var got []string
	for _, h := range p.Homes {
		got = append(got, fmt.Sprintf("%s:%d:%s", h.Name, h.Owner, filepath.Base(h.Dir)))
	}
	if want := "alice:31001:alice bob:31092:bob carol:31003:c.arol zoe:31009:zoe"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if a := p.surveyed(); len(a) != 3 || a[1].Name != "bob" || a[1].UID != 31002 {
		t.Errorf("accounts: got %+v", a)
	}
	must(t, p.known(d, []Survey{{Accounts: []Account{{Name: "dave"}, {Name: "alice"}, {Name: "nobody-there"}}}}))
	if p.Here["dave"].UID != 31004 || len(p.Here) != 4 {
		t.Errorf("users of other hosts: got %+v", p.Here)
	}
}

// No more homes are looked at than are compared.
func TestPeopleAreBounded(t *testing.T) {
	p := &people{found: map[string]Home{}, here: map[string]Account{}}
	for i := range mostHomes + 1 {
		p.add(Home{Dir: fmt.Sprint(i)}, nil)
	}
	p.add(Home{Dir: "1", Name: "again"}, nil)
	if len(p.found) != mostHomes || !p.cut || p.found["1"].Name != "again" {
		t.Errorf("got %d, cut %v", len(p.found), p.cut)
	}
}
