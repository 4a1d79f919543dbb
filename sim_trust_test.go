package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc/test/bufconn"

	"verdecmd/master"
	"verdecmd/master/cluster"
	masterhost "verdecmd/master/host"
	"verdecmd/master/store"
	"verdecmd/monitor"
	pb "verdecmd/proto"
	"verdecmd/proto/wire"
	"verdecmd/satellite/host"
	"verdecmd/satellite/link"
)

// idle is a satellite with nothing to tell.
type idle struct {
	name  string
	epoch uint64
}

func (i *idle) Journal() string          { return i.name }
func (i *idle) Hello(uint64) link.News   { return link.News{Version: 1, Sessions: &pb.Sessions{}} }
func (i *idle) News(uint64) link.News    { return link.News{Version: 1, Sessions: &pb.Sessions{}} }
func (i *idle) Changed() <-chan struct{} { return nil }
func (i *idle) Sample() *pb.Load         { return &pb.Load{} }
func (i *idle) Epoch() uint64            { return i.epoch }
func (i *idle) Obey(epoch uint64) error {
	i.epoch = epoch
	return nil
}
func (i *idle) Order(*pb.SessionOrder) error       { return nil }
func (i *idle) Uptime() time.Duration              { return 0 }
func (i *idle) Lease(time.Duration, time.Duration) {}

// RELIABILITY 4.4, pitfall 12: the bundle of a cluster of 10,000 servers, which
// is larger than a message, gets to satellites through the real links; and when one
// is revoked, the next one does, at once. Times are judged where there are few
// servers: see TestRealTrust.
func TestTrustOf10000Servers(t *testing.T) {
	t.Parallel()
	const servers, connected = 10000, 4
	dir := filepath.Join(t.TempDir(), "pki")
	if _, err := masterhost.Init(dir, time.Now()); err != nil {
		t.Fatal(err)
	}
	db := store.NewMem()
	for from := 1; from <= servers; from += store.MaxChanges {
		var changes []store.Change
		for id := from; id < from+store.MaxChanges && id <= servers; id++ {
			changes = append(changes, store.Change{Key: store.Key{Bucket: "servers", ID: fmt.Sprint(id)},
				Value: fmt.Appendf(nil, `{"id":%d,"uuid":%q,"name":"a-rather-long-name-%d.example.com","state":"online","address":"192.0.2.1"}`, id, wire.NewUUID(), id)})
		}
		if err := db.Commit(t.Context(), db.Epoch(), nil, changes); err != nil {
			t.Fatal(err)
		}
	}
	creds, err := wire.Load(dir, wire.Master)
	if err != nil {
		t.Fatal(err)
	}
	listen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	admin := bufconn.Listen(1 << 16)
	report := func(r wire.Report) { t.Errorf("%s: %v", r.What, r.Err) }
	m, err := master.New(t.Context(), master.Config{Monitor: admin, Link: wire.Limit(listen, wire.Bounds{Total: 1000, PerAddress: 100, Report: report}),
		GRPC: wire.ServerOptions(creds, report), Store: db, Epoch: db.Epoch(), Accounts: simAccounts{}, PKI: dir, Credentials: creds,
		Limits: cluster.Limits{Interval: time.Second, ReservationTimeout: time.Minute}, Log: zerolog.Nop(),
		Admin: monitor.Config{Peer: func(net.Conn) (monitor.Caller, error) { return monitor.Caller{Name: "root"}, nil }, Log: zerolog.Nop()}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, connected+1)
	go func() { done <- m.Run(ctx) }()
	defer func() {
		cancel()
		for range connected + 1 {
			if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	}()
	var all []*host.Trust
	for n := range connected {
		name := fmt.Sprintf("sat%d", n)
		e, err := masterhost.Enrol(dir, name, filepath.Join(t.TempDir(), name), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		c, err := wire.Load(e.Dir, wire.Satellite)
		if err != nil {
			t.Fatal(err)
		}
		trust := host.NewTrust(host.TrustConfig{Dir: e.Dir, Credentials: c, Log: zerolog.Nop()})
		all = append(all, trust)
		l := link.New(link.Config{Masters: []string{listen.Addr().String()}, Dial: wire.DialOptions(c), Host: &idle{name: name}, Trust: trust,
			Facts: &pb.HostFacts{}, Address: "127.0.0.1", Instance: name, Log: zerolog.Nop()})
		go func() { done <- l.Run(ctx) }()
	}
	until := func(what string, limit time.Duration, has func(members []*pb.Member) bool) {
		t.Helper()
		began := time.Now()
		for _, x := range all {
			for !has(x.Members()) || x.Version() != all[0].Version() {
				if time.Since(began) > limit {
					t.Fatalf("%s: after %v one has bundle %d with %d servers", what, limit, x.Version(), len(x.Members()))
				}
				time.Sleep(5 * time.Millisecond)
			}
		}
		t.Logf("%s: %v", what, time.Since(began))
	}
	until("when their links open", 2*time.Minute, func(members []*pb.Member) bool { return len(members) >= servers })
	if got := strings.Join(ask(admin, "forgetserver 5000"), "\n"); !strings.Contains(got, "forgotten") {
		t.Fatal(got)
	}
	until("after a revocation", 2*time.Minute, func(members []*pb.Member) bool {
		return len(members) == servers+connected-1 && !slices.ContainsFunc(members, func(m *pb.Member) bool { return m.ServerId == 5000 })
	})
	// What a satellite has is acknowledged a moment after it has it; by then there
	// may be a newer one.
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		got := strings.Join(ask(admin, "server 10001"), "\n")
		if strings.Contains(got, fmt.Sprintf("Trust bundle  version %d\n", all[0].Version())) {
			break
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("not acknowledged: %s", got)
		}
	}
}
