package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"verdecmd/master/cluster"
	"verdecmd/master/store"
	"verdecmd/monitor"
	"verdecmd/proto/wire"
)

func refused(err error) int {
	var e *monitor.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

func (o *office) detached(id, attachment uint64) {
	o.cfg.State(func(c *cluster.Cluster) { c.Detach(o.now, id, attachment) })
}

// F-12, PROTOCOL 12.7, RELIABILITY 4.3: a failed server is replaced by a machine
// with its name and address: number and state stay, the identity is new, the old
// one is shut out for ever. A live one is not replaced.
func TestReplace(t *testing.T) {
	o := newOffice(t)
	old := o.joined(t, asks(t, "sat1", o.token(t, monitor.TokenWish{})))
	at := o.attached(t, old, "journal1")
	if _, _, err := o.SetState(t.Context(), 1, cluster.Offline, "broken disk"); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Replace(t.Context(), 1, 0, false); refused(err) != 554 || !strings.Contains(err.Error(), "a live server is not replaced") {
		t.Errorf("connected: %v", err)
	}
	if _, err := o.Replace(t.Context(), 9, 0, true); refused(err) != 550 {
		t.Errorf("unknown: %v", err)
	}
	if _, err := o.Replace(t.Context(), 1, 31*24*time.Hour, true); refused(err) != 553 {
		t.Errorf("for a month: %v", err)
	}
	o.detached(1, at)
	o.events = nil
	k, err := o.Replace(t.Context(), 1, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	if k.Server != "sat1" || k.Address != "192.0.2.1" || k.Replaces != 1 || !k.Expires.Equal(o.now.Add(tokenLife)) || k.Secret == "" {
		t.Errorf("the token is %+v", k.Token)
	}
	if got := strings.Join(o.events, " "); got != "server.replacing" || len(o.cut) != 1 || o.cut[0] != old.UUID {
		t.Errorf("events %s, cut %v", got, o.cut)
	}
	for range 2 { // shut out at once and by the next master, before anybody has come
		if why, gone := o.Revoked(old.UUID, ""); !gone || !strings.HasPrefix(why, Superseded+":") {
			t.Errorf("the old machine: %v %s", gone, why)
		}
		if err := o.Ensure(t.Context(), helloOf(old.UUID, "journal1"), "sat1"); wire.KindOf(err) != wire.Revoked {
			t.Errorf("the old machine connects: %v", err)
		}
		if _, err := o.Renew(t.Context(), o.asksAnew(t, old)); wire.KindOf(err) != wire.Revoked {
			t.Errorf("the old machine renews: %v", err)
		}
		if s, _ := o.Server(1); !strings.Contains(s.Why, "another machine is to take its place") {
			t.Errorf("server 1: %s", s.Why)
		}
		o.open(t)
	}
	elsewhere := asks(t, "sat1", k.Secret)
	elsewhere.Address = "192.0.2.2"
	if _, err := o.Join(t.Context(), elsewhere); wire.KindOf(err) != wire.Denied {
		t.Errorf("from another address: %v", err)
	}
	o.events = nil
	next := o.joined(t, asks(t, "sat1", k.Secret))
	if next.Server != 1 || !next.Replaced || next.UUID == old.UUID || strings.Join(o.events, " ") != "server.replaced" {
		t.Errorf("got %+v, events %v", next, o.events)
	}
	o.open(t)
	o.attached(t, next, "journal2")
	s, _ := o.Server(1)
	if s.State != monitor.Offline || s.Reason != "broken disk" || s.Link != monitor.LinkUp || len(o.ids()) != 1 {
		t.Errorf("server 1: %+v", s)
	}
	if _, err := o.Join(t.Context(), asks(t, "sat1", k.Secret)); wire.KindOf(err) != wire.Denied {
		t.Errorf("a second machine with the token: %v", err)
	}
}

// F-12 by the manager's password, as in flexVDI: same name and same address,
// after replaceserver alone.
func TestReplaceByPassword(t *testing.T) {
	o := newOffice(t)
	if err := o.SetPassword(t.Context(), "correct horse"); err != nil {
		t.Fatal(err)
	}
	by := func(address string) Request {
		r := asks(t, "sat1", "")
		r.Password, r.Address = "correct horse", address
		return r
	}
	o.joined(t, by("192.0.2.1"))
	if _, err := o.Join(t.Context(), by("192.0.2.1")); wire.KindOf(err) != wire.InUse {
		t.Errorf("without replaceserver: %v", err)
	}
	if _, err := o.Replace(t.Context(), 1, time.Minute, false); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Join(t.Context(), by("192.0.2.9")); wire.KindOf(err) != wire.InUse {
		t.Errorf("from another address: %v", err)
	}
	r := by("192.0.2.1")
	if j := o.joined(t, r); j.Server != 1 || !j.Replaced {
		t.Errorf("got %+v", j)
	}
	if again := o.joined(t, r); !again.Replaced {
		t.Errorf("a lost answer: %+v", again)
	}
	if _, err := o.Replace(t.Context(), 1, time.Minute, false); err != nil {
		t.Fatal(err)
	}
	o.now = o.now.Add(time.Minute)
	if _, err := o.Join(t.Context(), by("192.0.2.1")); wire.KindOf(err) != wire.InUse {
		t.Errorf("too late: %v", err)
	}
}

// S1, RELIABILITY 4.3: as long as the old machine's desktops may still run,
// nobody takes its place, neither by the token nor with what "enrol" makes.
func TestReplaceWithSessions(t *testing.T) {
	o := newOffice(t)
	o.cfg.Dir = t.TempDir()
	if _, _, err := remember(filepath.Join(o.cfg.Dir, enrolledDir), "sat1"); err != nil {
		t.Fatal(err)
	}
	enrolled := func() string {
		b, err := os.ReadFile(filepath.Join(o.cfg.Dir, enrolledDir, "sat1"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	old := Joined{UUID: enrolled(), Name: "sat1"}
	at := o.attached(t, old, "journal1")
	o.cfg.State(func(c *cluster.Cluster) {
		_, err := c.Report(o.now, 1, at, cluster.Load{MemoryTotal: 1 << 40, MemoryFree: 1 << 40}, []cluster.Reported{{ID: "s1", User: "alice", UID: 1001, Seen: cluster.Seen{State: cluster.Running}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
	})
	k, err := o.Replace(t.Context(), 1, 0, true) // while it is connected
	if err != nil {
		t.Fatal(err)
	}
	if len(o.cut) != 1 || o.cut[0] != old.UUID {
		t.Errorf("cut: %v", o.cut)
	}
	next := enrolled()
	if m := o.Members(); next == old.UUID || len(m) != 1 || m[0].UUID != next {
		t.Errorf("enrol makes %s, before it was %s; members %+v", next, old.UUID, m)
	}
	if _, err := o.Join(t.Context(), asks(t, "sat1", k.Secret)); wire.KindOf(err) != wire.InUse || !strings.Contains(err.Error(), "never taken over") {
		t.Errorf("while its link is being cut: %v", err)
	}
	o.detached(1, at)
	if _, err := o.Join(t.Context(), asks(t, "sat1", k.Secret)); wire.KindOf(err) != wire.InUse || !strings.Contains(err.Error(), `"fenceserver 1"`) {
		t.Errorf("by the token: %v", err)
	}
	if err := o.Ensure(t.Context(), helloOf(next, "journal2"), "sat1"); wire.KindOf(err) != wire.InUse || !strings.Contains(err.Error(), `"fenceserver 1"`) {
		t.Errorf("an enrolled machine: %v", err)
	}
	o.cfg.State(func(c *cluster.Cluster) { // what fenceserver leads to
		all, err := c.Fence(1)
		if err != nil || len(all) != 1 {
			t.Errorf("fence: %v, %v", all, err)
		}
		for _, x := range all {
			c.Released(x)
		}
	})
	o.events = nil
	o.attached(t, Joined{UUID: next, Name: "sat1"}, "journal2")
	if got := strings.Join(o.events, " "); got != "server.replaced" {
		t.Errorf("events: %s", got)
	}
	o.open(t)
	if err := o.Ensure(t.Context(), helloOf(next, "journal3"), "sat1"); wire.KindOf(err) != wire.InUse {
		t.Errorf("with another journal: %v", err)
	}
}

// S16: "enrol" makes certificates of the identity that a replacement is to have,
// also after a machine has joined with it: its revocation lasts as long as they.
func TestForgetReplaced(t *testing.T) {
	o := newOffice(t)
	o.cfg.Dir = t.TempDir()
	dir := filepath.Join(o.cfg.Dir, enrolledDir)
	id, _, err := remember(dir, "sat1")
	if err != nil {
		t.Fatal(err)
	}
	o.detached(1, o.attached(t, Joined{UUID: id, Name: "sat1"}, "journal1"))
	k, err := o.Replace(t.Context(), 1, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	j := o.joined(t, asks(t, "sat1", k.Secret))
	if known, again, err := remember(dir, "sat1"); known != j.UUID || !again || err != nil {
		t.Fatalf("enrol makes certificates of %s, %v, the server is %s", known, err, j.UUID)
	}
	o.open(t)
	if _, err := o.Renew(t.Context(), o.asksAnew(t, j)); err != nil {
		t.Fatal(err)
	}
	if err := o.Forget(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if r, ok := o.revocationOf(j.UUID, ""); !ok || r.Until.Before(o.now.Add(satelliteLife)) {
		t.Errorf("it is revoked: %v, until %v, now is %v", ok, r.Until, o.now)
	}
}

// S20: a replacement that cannot be stored is none.
func TestReplaceOnFullDisk(t *testing.T) {
	o := newOffice(t)
	old := o.joined(t, asks(t, "sat1", o.token(t, monitor.TokenWish{})))
	o.s.Fail(store.ErrNoSpace)
	if _, err := o.Replace(t.Context(), 1, 0, false); !errors.Is(err, store.ErrNoSpace) {
		t.Errorf("got %v", err)
	}
	if _, gone := o.Revoked(old.UUID, ""); gone || len(o.cut) > 0 {
		t.Error("shut out all the same")
	}
	o.s.Fail(nil)
	o.attached(t, old, "journal1")
}

// What "enrol" remembers is mended by the next start, where the master has ended
// between the revocation and that.
func TestMend(t *testing.T) {
	o := newOffice(t)
	o.cfg.Dir = t.TempDir()
	dir := filepath.Join(o.cfg.Dir, enrolledDir)
	for _, name := range []string{"sat1", "sat2"} {
		id, _, err := remember(dir, name)
		if err != nil {
			t.Fatal(err)
		}
		o.detached(uint64(len(o.ids())), o.attached(t, Joined{UUID: id, Name: name}, "j"+name))
	}
	ids := o.Members()
	keep := o.cfg.Dir
	o.cfg.Dir = "" // it ends before
	for i := range ids {
		o.detached(ids[i].ID, o.c.Server(ids[i].ID).Attachment)
	}
	if _, err := o.Replace(t.Context(), 1, 0, false); err != nil {
		t.Fatal(err)
	}
	if err := o.Forget(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	o.open(t)
	o.cfg.Dir = keep
	o.mend()
	b, err := os.ReadFile(filepath.Join(dir, "sat1"))
	if err != nil || strings.TrimSpace(string(b)) != o.Members()[0].UUID {
		t.Errorf("sat1: %q, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "sat2")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("sat2: %v", err)
	}
}

// S16, S17, S5: histories of a whole register: machines join, repeat, attach and
// are replaced and forgotten, the master ends and the disk is full, in any
// order. A server has one identity; who was shut out never gets in; what a
// machine was told is so after a restart; no number is given twice.
func TestRegisterHistories(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		o := newOffice(t)
		var secrets []string
		type machine struct {
			Request
			j Joined
		}
		var machines []machine
		told := map[string]Joined{} // by UUID
		out := map[string]bool{}    // UUIDs that were shut out
		highest := uint64(0)
		names := rapid.SampledFrom([]string{"sat1", "sat2", "sat3"})
		link := map[uint64]uint64{}
		down := func() {
			for id, at := range link {
				o.detached(id, at)
			}
			link = map[uint64]uint64{}
		}
		join := func(r Request, secret string) (Joined, bool) {
			r.Token = secret
			j, err := o.Join(t.Context(), r)
			if err != nil {
				return j, false
			}
			if out[j.UUID] {
				rt.Fatalf("%s joins with the identity %s, which was shut out", r.Name, j.UUID)
			}
			if before, ok := told[j.UUID]; ok && string(before.Certificate) != string(j.Certificate) {
				rt.Fatalf("two certificates for %s from one join", j.UUID)
			}
			if !j.Replaced && told[j.UUID].Server == 0 && j.Server <= highest {
				rt.Fatalf("number %d was given twice", j.Server)
			}
			told[j.UUID] = j
			highest = max(highest, j.Server)
			return j, true
		}
		one := func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "which") }
		rt.Repeat(map[string]func(*rapid.T){
			"create": func(*rapid.T) {
				w := monitor.TokenWish{}
				if rapid.Bool().Draw(rt, "bound") {
					w.Server = names.Draw(rt, "name")
				}
				if k, err := o.CreateToken(t.Context(), w); err == nil {
					secrets = append(secrets, k.Secret)
				}
			},
			"join": func(*rapid.T) {
				if len(secrets) == 0 {
					return
				}
				m := machine{Request: asks(t, names.Draw(rt, "name"), secrets[one(len(secrets))])}
				j, ok := join(m.Request, m.Token)
				if m.j = j; ok {
					machines = append(machines, m)
				}
			},
			"repeat": func(*rapid.T) {
				if len(machines) > 0 {
					m := machines[one(len(machines))]
					join(m.Request, m.Token)
				}
			},
			"attach": func(*rapid.T) {
				if len(machines) == 0 {
					return
				}
				j := machines[one(len(machines))].j
				h := helloOf(j.UUID, "j"+j.UUID)
				err := o.Ensure(t.Context(), h, j.Name)
				if out[j.UUID] != (wire.KindOf(err) == wire.Revoked) {
					rt.Fatalf("%s, shut out: %v, connects: %v", j.UUID, out[j.UUID], err)
				}
				if err == nil {
					o.cfg.State(func(c *cluster.Cluster) {
						if at, _, err := c.Attach(o.now, h); err == nil {
							link[j.Server] = at
						}
					})
				}
			},
			"replace": func(*rapid.T) {
				id := rapid.Uint64Range(1, highest+1).Draw(rt, "id")
				before := o.identity(id)
				if k, err := o.Replace(t.Context(), id, 0, rapid.Bool().Draw(rt, "force")); err == nil {
					out[before] = true
					secrets = append(secrets, k.Secret)
					o.detached(id, link[id])
					delete(link, id)
				}
			},
			"forget": func(*rapid.T) {
				id := rapid.Uint64Range(1, highest+1).Draw(rt, "id")
				before := o.identity(id)
				if err := o.Forget(t.Context(), id); err == nil {
					out[before] = true
				}
			},
			"full": func(*rapid.T) { o.s.Fail(store.ErrNoSpace) },
			"free": func(*rapid.T) { o.s.Fail(nil) },
			"wait": func(*rapid.T) { o.now = o.now.Add(25 * time.Minute) },
			"down": func(*rapid.T) { down() },
			"restart": func(*rapid.T) {
				o.s.Fail(nil)
				o.open(t)
				link = map[uint64]uint64{}
			},
			"": func(*rapid.T) {
				seen, uuids := map[string]uint64{}, map[string]uint64{}
				for _, m := range o.Members() {
					if seen[m.Name] != 0 || uuids[m.UUID] != 0 || out[m.UUID] {
						rt.Fatalf("members %+v; shut out are %v", o.Members(), out)
					}
					seen[m.Name], uuids[m.UUID] = m.ID, m.ID
				}
				for id := range out {
					if _, gone := o.Revoked(id, fmt.Sprint("serial", len(out))); !gone {
						rt.Fatalf("%s was shut out and is not any more", id)
					}
				}
				for id, j := range told {
					if !out[id] && uuids[id] != j.Server {
						rt.Fatalf("%s was told that it is server %d, and is %d", id, j.Server, uuids[id])
					}
				}
			},
		})
	})
}

// identity is that of a server; empty: there is none.
func (o *office) identity(id uint64) (uuid string) {
	for _, m := range o.Members() {
		if m.ID == id {
			uuid = m.UUID
		}
	}
	return uuid
}
