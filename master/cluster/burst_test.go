package cluster

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"verdecmd/master/placement"
)

// equal returns a cluster of n servers that are all in the same state.
func equal(t interface{ Fatal(...any) }, n int, load Load, f Facts) *Cluster {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := New(limits, now)
	c.Restored(1, 0, 0)
	for i := 1; i <= n; i++ {
		c.Registered(now, c.Enrol(uuid(uint64(i)), "sat"))
		if _, _, err := c.Attach(now, Hello{UUID: uuid(uint64(i)), Instance: "first", Facts: f, Load: load}); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// V-92: a burst of a thousand logins inside one report interval spreads over
// equal servers, each within one desktop of the fair share; also those that are
// claimed at once, and also when there is no room for all.
func TestBurst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		servers := rapid.IntRange(1, 40).Draw(t, "servers")
		size := rapid.Uint64Range(1, 8).Draw(t, "GiB of a desktop")
		load := idle()
		load.MemoryTotal = rapid.Uint64Range(8, 4096).Draw(t, "GiB of a server") * gib
		load.MemoryFree = load.MemoryTotal / 4 * rapid.Uint64Range(1, 4).Draw(t, "free quarters")
		load.CPUBusy = rapid.Float64Range(0, 1).Draw(t, "busy")
		load.SnapFree = 1 << 50
		f := facts()
		f.CPUs, f.MaxSessions = rapid.IntRange(1, 128).Draw(t, "processors"), rapid.SampledFrom([]int{0, 0, 3, 50}).Draw(t, "allowed")
		c := equal(t, servers, load, f)
		now := c.start
		placed := 0
		for i := range 1000 {
			user, uid := fmt.Sprint("u", i), uint32(i+1)
			now = now.Add(interval / 1001)
			ref, err := c.Refer(now, Login{User: user, UID: uid, Need: placement.Need{Memory: size * gib, Snap: 1 << 20}})
			if err != nil {
				break
			}
			placed++
			if i%3 == 0 {
				claim, err := c.BeginClaim(now, ref.Server.ID, ref.Server.Attachment, user, uid)
				if err != nil || !c.Claimed(now, claim) {
					t.Fatalf("claim of %s: %v", user, err)
				}
			}
		}
		if err := c.Check(); err != nil {
			t.Fatal(err)
		}
		for _, s := range c.Servers() {
			if n := s.usage.held; n < placed/servers || n > (placed+servers-1)/servers {
				t.Fatalf("server %d has %d of %d desktops on %d servers", s.ID, n, placed, servers)
			}
		}
	})
}

// The herd does not come back with the next report: sessions that start count
// as fresh until their memory shows.
func TestBurstOverReports(t *testing.T) {
	w := newWorld(t, 4)
	for i := range 16 {
		user := fmt.Sprint("u", i)
		w.uids[user] = uint32(5000 + i)
		ref, err := w.refer(user)
		if err != nil {
			t.Fatalf("login %d: %v", i, err)
		}
		if err := w.claim(user, ref.Server.ID); err != nil {
			t.Fatal(err)
		}
		w.wait(interval)
		w.reportAll() // says that all is idle
	}
	for _, s := range w.c.Servers() {
		if got, _ := w.c.Counts(s.ID); got != 4 {
			t.Errorf("server %d has %d of 16 desktops, want 4", s.ID, got)
		}
	}
}

// BenchmarkLogin is what a referral and a claim cost under the lock.
func BenchmarkLogin(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		load := idle()
		load.MemoryTotal, load.MemoryFree, load.SnapFree = 1<<46, 1<<46, 1<<50
		c := equal(b, n, load, facts())
		now := c.start
		b.Run(fmt.Sprintf("refer+cancel/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ref, err := c.Refer(now, Login{User: "alice", UID: 1001, Need: placement.Need{Memory: gib}})
				if err != nil {
					b.Fatal(err)
				}
				c.drop(ref.Reservation)
			}
		})
		b.Run(fmt.Sprintf("refer+claim+end/%d", n), func(b *testing.B) {
			for b.Loop() {
				ref, err := c.Refer(now, Login{User: "alice", UID: 1001, Need: placement.Need{Memory: gib}})
				if err != nil {
					b.Fatal(err)
				}
				claim, err := c.BeginClaim(now, ref.Server.ID, ref.Server.Attachment, "alice", 1001)
				if err != nil || !c.Claimed(now, claim) {
					b.Fatal(err)
				}
				c.Released(Release{Session: claim.Session})
			}
		})
	}
}

// BenchmarkReport is what a load report costs under the lock, without and with
// a list of sessions.
func BenchmarkReport(b *testing.B) {
	load := idle()
	load.MemoryTotal, load.MemoryFree, load.SnapFree = 1<<46, 1<<46, 1<<50
	c := equal(b, 1000, load, facts())
	now := c.start
	list := []Reported{}
	for i := range 20 {
		list = append(list, Reported{ID: fmt.Sprint("s", i+1), User: fmt.Sprint("u", i), UID: uint32(i + 1), Memory: gib, Seen: Seen{State: Running}})
	}
	at := c.Server(1).Attachment
	if e, err := c.Report(now, 1, at, load, list, nil); err != nil || len(e.Adopt) != len(list) {
		b.Fatal(e, err)
	}
	for name, sessions := range map[string][]Reported{"load": nil, "load and 20 sessions": list} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Report(now, 1, at, load, sessions, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
