package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	pb "verdecmd/proto"
	"verdecmd/proto/simulated"
	"verdecmd/proto/wire"
	"verdecmd/satellite/session"
)

// crash is what a Host call panics with when the program dies there.
type crash struct{}

// computer is the Host of these tests: files and desktops that outlive the
// program, and a trace of what was done.
type computer struct {
	t     *testing.T
	rnd   *rand.Rand
	clock simulated.Clock
	files map[string][]byte
	full  bool // the disk
	desks map[string]*desk
	pid   int
	calls uint64
	open  map[uint64]any // calls that wait for an answer
	on    map[uint64]uint64
	link  uint64 // open; 0: none
	ends  map[uint64]simulated.Outcome
	sent  []*pb.Up
	trace []string

	guards   []*watch
	programs int             // how many were started
	dead     bool            // the last of them is
	void     map[string]bool // sessions that the master has given up
	fuse     int             // calls until the program dies; 0: it does not
}

type desk struct {
	uuid, user string
	pid        int // 0: being started
	ping       bool
}

func newComputer(t *testing.T, seed uint64) *computer {
	return &computer{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), files: map[string][]byte{}, desks: map[string]*desk{}, open: map[uint64]any{}, on: map[uint64]uint64{},
		ends: map[uint64]simulated.Outcome{}, void: map[string]bool{},
		clock: simulated.Clock{Mono: time.Unix(1000, 0), Wall: time.Unix(1e9, 0), Boot: time.Hour}}
}

// note writes the trace, and lets the program die here if it is to.
func (c *computer) note(format string, args ...any) {
	if c.fuse > 0 {
		if c.fuse--; c.fuse == 0 {
			panic(crash{})
		}
	}
	c.trace = append(c.trace, fmt.Sprintf(format, args...))
}

func (c *computer) pass(d time.Duration) {
	c.clock.Mono, c.clock.Wall, c.clock.Boot = c.clock.Mono.Add(d), c.clock.Wall.Add(d), c.clock.Boot+d
}

func (c *computer) Clock() simulated.Clock { return c.clock }

func (c *computer) Files() []string {
	var out []string
	for f := range c.files {
		out = append(out, f)
	}
	slices.Sort(out)
	return out
}

func (c *computer) Read(name string) ([]byte, bool) { b, ok := c.files[name]; return b, ok }

func (c *computer) Write(name string, data []byte) error {
	c.note("write %s", name)
	if c.full {
		return simulated.ErrNoSpace
	}
	if name == epochFile && len(data) < len(c.files[name]) {
		c.t.Errorf("S9: the epoch falls from %s to %s", c.files[name], data)
	}
	c.files[name] = slices.Clone(data)
	return nil
}

func (c *computer) Remove(name string) error {
	c.note("remove %s", name)
	if d := c.desks[strings.TrimSuffix(strings.TrimPrefix(name, entries), ".json")]; d != nil {
		c.t.Errorf("S7: %s is removed while its desktop runs", name)
	}
	delete(c.files, name)
	return nil
}

func (c *computer) Load() *pb.Load { return &pb.Load{MemoryFree: 1 << 30} }

func (c *computer) Desktop(user string) (int, int, []string, error) {
	if user == "nobody" {
		return 0, 0, nil, errors.New("no base image")
	}
	return 2048, 2, nil, nil
}

func (c *computer) Start(id, uuid, user string) {
	if c.files[entries+session.EntryFile(id)] == nil {
		c.t.Errorf("S7: %s is started and not in the journal", id)
	}
	if c.void[id] {
		c.t.Errorf("S1: %s is started, the master has given it up by a later hello", id)
	}
	for other, d := range c.desks {
		if d.user == user {
			c.t.Errorf("S1: %s starts for %s, who has %s here", id, user, other)
		}
	}
	c.note("start %s", id)
	c.desks[id] = &desk{uuid: uuid, user: user}
}

func (c *computer) Find(id, _ string, pid int) { c.note("find %s %d", id, pid) }
func (c *computer) Ping(id string)             { c.note("ping %s", id); c.told(id, "ping") }
func (c *computer) PowerDown(id string)        { c.note("ask %s", id); c.told(id, "power down") }
func (c *computer) Quit(id string)             { c.note("quit %s", id); c.told(id, "quit") }
func (c *computer) Kill(id string)             { c.note("kill %s", id); c.told(id, "kill") }

// told checks that only what was started here is told anything. A desktop may
// be gone without the program's knowing.
func (c *computer) told(id, what string) {
	if c.files[entries+session.EntryFile(id)] == nil && !c.full {
		c.t.Errorf("%s to %s, which is not in the journal", what, id)
	}
}

func (c *computer) Send(link uint64, u *pb.Up) {
	c.note("send %d %v", link, u)
	if link != c.link {
		c.t.Errorf("a message on link %d, open is %d", link, c.link)
	}
	c.sent = append(c.sent, u)
}

func (c *computer) Close(link uint64) {
	c.note("close %d", link)
	if c.link == link {
		c.link = 0
	}
}

func (c *computer) Refer(link uint64, r *pb.ReferRequest) uint64 {
	c.note("refer %s", r.User)
	return c.call(link, r)
}

func (c *computer) Claim(link uint64, r *pb.ClaimRequest) uint64 {
	c.note("claim %s", r.User)
	return c.call(link, r)
}

func (c *computer) call(link uint64, r any) uint64 {
	if link != c.link {
		c.t.Errorf("a call on link %d, open is %d", link, c.link)
	}
	c.calls++
	c.open[c.calls], c.on[c.calls] = r, link
	return c.calls
}

func (c *computer) LoggedIn(id uint64, o simulated.Outcome) {
	c.note("login %d: %+v", id, o)
	if _, twice := c.ends[id]; twice {
		c.t.Errorf("login %d is answered twice", id)
	}
	if _, ok := o.Err.(*wire.Error); o.Err != nil && !ok {
		c.t.Errorf("login %d: %v is not of a known kind", id, o.Err)
	}
	c.ends[id] = o
}

func (c *computer) Random() uint64 { return c.rnd.Uint64() }

func (c *computer) Guard(_ string, g simulated.Guardian) (int, error) {
	c.note("guard")
	c.pid++
	c.guards = append(c.guards, &watch{computer: c, pid: c.pid, code: g, program: c.programs})
	return c.pid, nil
}

func (c *computer) Guards(string) (out []int) {
	for _, g := range c.guards {
		out = append(out, g.pid)
	}
	return out
}

func (c *computer) EndGuard(pid int) {
	c.note("end guard %d", pid)
	c.guards = slices.DeleteFunc(c.guards, func(g *watch) bool { return g.pid == pid })
}

// watch is the process of a guardian.
type watch struct {
	*computer
	pid     int
	code    simulated.Guardian
	program int // that started it
	frozen  bool
}

func (g *watch) Alone() bool { return g.program != g.programs || g.dead }

func (g *watch) Exists(id, uuid string, pid int) error {
	if d := g.desks[id]; d == nil || d.uuid != uuid {
		return simulated.ErrGone
	}
	return nil
}

func (g *watch) Kill(id, uuid string, pid int) error {
	d := g.desks[id]
	if d == nil || d.uuid != uuid {
		return simulated.ErrGone
	}
	g.note("guardian kills %s", id)
	delete(g.desks, id)
	return nil
}

// watch lets the guardians look.
func (c *computer) watch() {
	for _, g := range slices.Clone(c.guards) {
		if !g.frozen && !g.code.Tick(g) {
			c.guards = slices.DeleteFunc(c.guards, func(x *watch) bool { return x == g })
		}
	}
}
