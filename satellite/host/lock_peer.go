package host

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
	"verdecmd/settings"
	"verdecmd/settings/account"
)

const (
	mostPeers = 3 // other satellites that are asked for a lock
	// lockFor is how long such a question may take: less than who asks waits.
	lockFor = 4 * time.Second
	// locksAtOnce bounds what a file server that is dead can hold up.
	locksAtOnce = 4
)

// LockTrial answers other satellites that hold a lock in the directory of the
// homes and want to know whether it keeps this host out too.
type LockTrial struct {
	roots func() []string
	free  chan struct{}
}

// NewLockTrial finds the directories of the homes by the settings, when it is
// asked for the first time.
func NewLockTrial(v *settings.Values) *LockTrial {
	return &LockTrial{roots: sync.OnceValue(func() []string { return homeRoots(v) }), free: make(chan struct{}, locksAtOnce)}
}

// homeRoots are the directories that homes are in.
func homeRoots(v *settings.Values) []string {
	var roots []string
	if v.String(settings.PasswdFile) == "" {
		roots = []string{"/home"}
	}
	db := account.New(v.String(settings.PasswdFile))
	names, _ := db.Names("", mostUsers) // an error is found by the checks
	users, _ := db.Several(names)
	for _, name := range slices.Sorted(maps.Keys(users)) {
		u := users[name]
		if dir := filepath.Dir(u.Home); dir != "/" && !slices.Contains(roots, dir) {
			roots = append(roots, dir)
		}
	}
	return roots[:min(len(roots), 8)]
}

// lockName is the name of a file whose lock may be tried: no other one is ever
// opened for another host.
var lockName = regexp.MustCompile(`^\.verdecmd-lock-[A-Za-z0-9._-]{1,200}$`)

// Try answers one question.
func (l *LockTrial) Try(ctx context.Context, r *pb.TryLockRequest) *pb.TryLockReply {
	if !lockName.MatchString(r.GetFile()) || len(r.GetContent()) == 0 || len(r.GetContent()) > 100 {
		return &pb.TryLockReply{Error: "that is no file whose lock is tried"}
	}
	ctx, cancel := context.WithTimeout(ctx, lockFor)
	defer cancel()
	select {
	case l.free <- struct{}{}:
	case <-ctx.Done():
		return &pb.TryLockReply{Error: "the file system of the homes does not answer"}
	}
	came := make(chan *pb.TryLockReply, 1)
	go func() {
		defer func() { <-l.free }()
		came <- l.try(r.GetFile(), r.GetContent())
	}()
	select {
	case reply := <-came:
		return reply
	case <-ctx.Done():
		return &pb.TryLockReply{Error: "the file system of the homes does not answer"}
	}
}

func (l *LockTrial) try(name, content string) *pb.TryLockReply {
	for _, root := range l.roots() {
		refused, err := tryLock(filepath.Join(root, name), content)
		switch {
		case err == nil:
			return &pb.TryLockReply{Found: true, Locked: refused}
		case err != errNotHere:
			return &pb.TryLockReply{Error: wire.Clean(err.Error(), maxText)}
		}
	}
	return &pb.TryLockReply{}
}

// peers asks other satellites for the lock that is held here.
func (d *doctor) peers(ctx context.Context, a *comparison) {
	l := d.m.Locks
	if l == nil || d.held == nil || !l.Excludes {
		return
	}
	others := slices.Clone(a.others)
	// Hosts that are another computer say more.
	slices.SortStableFunc(others, func(x, y Survey) int { return cmp.Compare(same01(x, d.m.Survey), same01(y, d.m.Survey)) })
	var wg sync.WaitGroup
	var mu sync.Mutex
	asked := 0
	for _, s := range others {
		m := a.members[s.ServerID]
		if s.PeerAddress == "" || m == nil || asked == mostPeers {
			continue
		}
		asked++
		wg.Go(func() {
			p := PeerLock{Name: hostName(s)}
			if d.held.shared {
				p = d.tryPeer(ctx, p.Name, s.PeerAddress, m.GetId())
			} else {
				p.Error = fmt.Sprintf("root may not write to the directory of the homes, so no file there can be shared with it (%s)", d.held.dir)
			}
			mu.Lock()
			defer mu.Unlock()
			l.Peers = append(l.Peers, p)
		})
	}
	wg.Wait()
	slices.SortFunc(l.Peers, func(x, y PeerLock) int { return cmp.Compare(x.Name, y.Name) })
}

// same01 is 1 for a host that is this very computer.
func same01(s, own Survey) int {
	if s.BootID != "" && s.BootID == own.BootID {
		return 1
	}
	return 0
}

// tryPeer asks one satellite, whose identity must be this one.
func (d *doctor) tryPeer(ctx context.Context, name, address, id string) PeerLock {
	p := PeerLock{Name: name}
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	cc, err := grpc.NewClient("passthrough:///"+address, wire.PeerDialOptions(d.cfg.Credentials, id)...)
	if err != nil {
		p.Error = err.Error()
		return p
	}
	defer cc.Close()
	reply, err := pb.NewPeerClient(cc).TryLock(ctx, &pb.TryLockRequest{File: d.held.name, Content: d.held.content})
	switch {
	case ctx.Err() != nil:
		p.Error = reason(ctx.Err(), askFor)
	case err != nil:
		p.Error = wire.FromStatus(err).Error()
	case reply.Error != "":
		p.Error = wire.Clean(reply.Error, maxText)
	default:
		p.Found, p.Excludes = reply.Found, reply.Locked
	}
	return p
}
