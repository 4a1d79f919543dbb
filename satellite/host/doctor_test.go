package host

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
	"verdecmd/settings"
)

// fakeMaster keeps what hosts hand in, as a master does.
type fakeMaster struct {
	pb.UnimplementedHostServer
	mu      sync.Mutex // guards all below
	others  []*pb.Survey
	members []*pb.Member
	kept    *pb.CheckedRequest
	at      int64
	asked   int
	refuse  error
}

func (f *fakeMaster) Compare(context.Context, *pb.CompareRequest) (*pb.CompareReply, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.refuse != nil {
		return nil, wire.ToStatus(f.refuse)
	}
	return &pb.CompareReply{NowUnixMs: time.Now().UnixMilli(), Version: "1.0", Others: f.others, CheckedUnixMs: f.at, Settings: map[string]string{settings.DesktopName: "win4"},
		Members: append(f.members, &pb.Member{ServerId: 7, Id: "me", Name: "sat7", Address: "127.0.0.1"}, &pb.Member{ServerId: 8, Id: "other", Name: "sat8", Address: "192.0.2.8:80"})}, nil
}

func (f *fakeMaster) Checked(_ context.Context, r *pb.CheckedRequest) (*pb.CheckedReply, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kept, f.at = r, f.at+1000
	return &pb.CheckedReply{CheckedUnixMs: f.at}, nil
}

// site is a host with a home and a master beside it.
type site struct {
	dir       string
	authority *wire.Authority
	master    *fakeMaster
	cfg       DoctorConfig
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{dir: t.TempDir(), master: &fakeMaster{}}
	a, err := wire.NewAuthority(time.Now())
	must(t, err)
	s.authority = a
	creds, err := a.Credentials(wire.Master, "master", time.Now(), time.Hour)
	must(t, err)
	own, err := a.Credentials(wire.Satellite, "sat7", time.Now(), time.Hour)
	must(t, err)
	own.Identity.ID = "me" // as the fake knows it
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	server := grpc.NewServer(wire.ServerOptions(creds, func(wire.Report) {})...)
	pb.RegisterHostServer(server, s.master)
	go server.Serve(l)
	t.Cleanup(server.Stop)

	home := filepath.Join(s.dir, "home/alice")
	must(t, os.MkdirAll(home, 0o755), os.Symlink("/pub/win4", filepath.Join(home, "win4")), os.MkdirAll(filepath.Join(s.dir, "home/nodesktop"), 0o755),
		os.Mkdir(filepath.Join(s.dir, "snap"), 0o755), os.Mkdir(filepath.Join(s.dir, "pki"), 0o700), os.WriteFile(filepath.Join(s.dir, "pki", wire.IdentityFile), nil, 0o600))
	uid := os.Getuid()
	if uid == 0 {
		uid = 31000
		must(t, os.Chown(home, uid, uid))
	}
	passwd := fmt.Sprintf("alice:x:%[1]d:%[1]d::%[2]s:/bin/sh\nnodesktop:x:31001:31001::%[3]s:/bin/sh\n", uid, home, filepath.Join(s.dir, "home/nodesktop"))
	must(t, os.WriteFile(filepath.Join(s.dir, "passwd"), []byte(passwd), 0o644), os.WriteFile(filepath.Join(s.dir, "mountinfo"), []byte(mountExt4), 0o644))
	s.set(t, "WIN4_VERDE_CMADDR", l.Addr().String())
	s.cfg.Version, s.cfg.Credentials, s.cfg.Holder, s.cfg.Resolver, s.cfg.Mountinfo = "1.0", own, holder(), nameServer{}, filepath.Join(s.dir, "mountinfo")
	s.cfg.Probe = func(context.Context) Probe { return Probe{Accelerator: "kvm", Why: "it works", Version: "7.2"} }
	return s
}

// set reads the settings again, with these values.
func (s *site) set(t *testing.T, pairs ...string) {
	t.Helper()
	text := fmt.Sprintf("WIN4_STATE_DIR=%[1]q\nWIN4_SNAP_DIR=%[1]q/snap\nWIN4_SNAP_RESERVE=1\nWIN4_VERDE_PUBADDR=127.0.0.1\nWIN4_PASSWD_FILE=%[1]q/passwd\n", s.dir)
	for i := 0; i < len(pairs); i += 2 {
		text += fmt.Sprintf("%s=%q\n", pairs[i], pairs[i+1])
	}
	path := filepath.Join(s.dir, "settings")
	must(t, os.WriteFile(path, []byte(text), 0o644))
	var err error
	s.cfg.Settings, err = settings.Load(path)
	must(t, err)
}

func (s *site) doctor(t *testing.T) map[string]Finding {
	t.Helper()
	r, err := Doctor(t.Context(), s.cfg)
	must(t, err)
	out := map[string]Finding{}
	for _, f := range r.Findings {
		out[f.Check] = f
	}
	return out
}

// answered is doctor where these checks, or all, are to have an answer: a busy
// machine may keep one waiting for longer than it waits.
func (s *site) answered(t *testing.T, checks ...string) (out map[string]Finding) {
	t.Helper()
	for range 3 {
		late := false
		out = s.doctor(t)
		for _, f := range out {
			wanted := len(checks) == 0 || slices.Contains(checks, f.Check)
			late = late || wanted && (strings.Contains(f.Measured, "no answer") || strings.Contains(f.Measured, "deadline exceeded"))
		}
		if !late {
			break
		}
	}
	return out
}

// nameServer knows every name but "gone", unless it is dead.
type nameServer struct{ dead bool }

func (n nameServer) LookupHost(ctx context.Context, name string) ([]string, error) {
	if n.dead {
		<-ctx.Done()
		return nil, &net.DNSError{Err: "i/o timeout", IsTimeout: true}
	}
	if name == "gone" {
		return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
	}
	return []string{"127.0.0.1"}, nil
}

func (n nameServer) LookupAddr(context.Context, string) ([]string, error) {
	return []string{"sat7."}, nil
}

// Issue 5, preflight, F-06: a host is measured and compared with what the master
// tells of the others; the result is handed in.
func TestDoctor(t *testing.T) {
	s := newSite(t)
	s.cfg.HandIn = true
	s.master.others = []*pb.Survey{{Hostname: "sat8", ServerId: 8, Version: "1.0", Arch: "x86_64", BootId: "other", Settings: map[string]string{settings.LostSessions: "lease"},
		Accounts: []*pb.Account{{Name: "alice", Uid: 7, Gid: 7, Home: "/h"}, {Name: "zoe", Uid: 9}}, Home: &pb.Mount{Kind: "nfs4", Source: "files:/home", Dir: "/home", Network: true}}}
	got := s.answered(t)
	for check, want := range map[string]struct {
		level Level
		has   string
	}{
		checkMaster: {Pass, "answers in"}, checkClock: {Pass, "s, measured within"}, checkVersion: {Pass, "1.0"}, checkAccel: {Pass, "kvm, and QEMU starts with it: it works"},
		checkAccounts: {Fail, "zoe (9 on sat8) is not known here"}, checkHomes: {Fail, "sat8 has files:/home (nfs4) at /home"}, checkLocks: {Pass, "they exclude in " + s.dir + "/home"},
		checkSnap: {Pass, "MiB free, reserve 1 MiB"}, checkSettings: {Fail, "WIN4_VERDE_LOST_SESSIONS is hold here and lease on sat8"}, checkKeys: {Pass, "2 files"}, checkFiles: {Pass, "open files"},
		checkAddress: {Fail, "leads every client to itself"}, checkSpeed: {Pass, "lo (to clients and to the master) not known"},
	} {
		if f := got[check]; f.Level != want.level || !strings.Contains(f.Measured, want.has) {
			t.Errorf("%s: got %+v, want %s with %q", check, f, want.level, want.has)
		}
	}
	if s.master.kept == nil || len(s.master.kept.Findings) != len(got) || s.master.kept.Version != "1.0" {
		t.Errorf("handed in: got %v", s.master.kept)
	}
	if left, _ := filepath.Glob(filepath.Join(s.dir, "home", lockPrefix+"*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Issue 5, preflight: the clock is compared with the master's. Nobody can set a
// clock in a test; this one is wrong by itself.
func TestDoctorClock(t *testing.T) {
	s := newSite(t)
	for _, tt := range []struct {
		off  time.Duration
		want Level
	}{{0, Pass}, {3 * time.Second, Warn}, {-3 * time.Second, Warn}, {time.Hour, Fail}, {-366 * 24 * time.Hour, Fail}} {
		s.cfg.Now = func() time.Time { return time.Now().Add(tt.off) }
		var f Finding
		var seconds, ms float64
		var err error
		for range 20 {
			f = s.answered(t, checkMaster)[checkClock]
			if _, err = fmt.Sscanf(f.Measured, "%f s, measured within %f ms", &seconds, &ms); err != nil || ms < 400 { // else the machine is too busy to tell
				break
			}
		}
		if f.Level != tt.want || err != nil || math.Abs(seconds-tt.off.Seconds()) > 0.5 {
			t.Errorf("%v off: got %+v, want %s", tt.off, f, tt.want)
		}
	}
}

// What is wrong with a host is found, each by itself.
func TestDoctorFinds(t *testing.T) {
	tests := map[string]struct {
		change func(t *testing.T, s *site)
		check  string
		level  Level
		has    string
	}{
		"no answer of the master": {func(t *testing.T, s *site) { s.set(t, "WIN4_VERDE_CMADDR", "127.0.0.1:1") }, checkMaster, Fail, "127.0.0.1:1: dial tcp"},
		"the master refuses": {func(_ *testing.T, s *site) {
			s.master.refuse = wire.Errorf(wire.Revoked, "superseded: %s", "another has its place")
		}, checkMaster, Fail, "superseded"},
		"nobody says where it is": {func(t *testing.T, s *site) { s.set(t) }, checkMaster, Fail, "WIN4_VERDE_CMADDR"},
		"not to be asked":         {func(_ *testing.T, s *site) { s.cfg.NoMaster = true }, checkMaster, Pass, "not asked"},
		"V-43: a workstation":     {func(_ *testing.T, s *site) { s.cfg.Credentials = nil }, checkMaster, Warn, "has none"},
		"V-43: compared by a file": {func(_ *testing.T, s *site) {
			s.cfg.Credentials, s.cfg.Against = nil, []Survey{{Hostname: "sat9", Version: "0.9"}}
		}, checkVersion, Warn, "1.0"},
		"V-43: other owners": {func(t *testing.T, s *site) {
			s.cfg.Credentials = nil
			if os.Geteuid() != 0 {
				t.Skip("needs root: it gives a home away") // CI is root
			}
			must(t, os.Chown(filepath.Join(s.dir, "home/alice"), 4711, 4711))
		}, checkAccounts, Fail, "belongs to 4711"},
		"V-21, V-22: NFS without locks": {func(t *testing.T, s *site) {
			text := strings.ReplaceAll(mountNolock, " /home ", " "+s.dir+"/home ")
			must(t, os.WriteFile(s.cfg.Mountinfo, []byte(mountExt4+text), 0o644))
		}, checkLocks, Fail, "is mounted with nolock"},
		"V-32: a key that others read": {func(t *testing.T, s *site) { must(t, os.Chmod(filepath.Join(s.dir, "pki", wire.IdentityFile), 0o644)) }, checkKeys, Fail, "has mode 0644"},
		"V-37: no snap directory":      {func(t *testing.T, s *site) { must(t, os.Remove(filepath.Join(s.dir, "snap"))) }, checkSnap, Fail, "file does not exist"},
		"V-05: no hypervisor": {func(_ *testing.T, s *site) {
			s.cfg.Probe = func(context.Context) Probe { return Probe{Why: "no vmx", Problems: []string{"no qemu"}} }
		}, checkAccel, Fail, "no vmx"},
		"F-07: no bridge":         {func(t *testing.T, s *site) { s.set(t, "WIN4_NETWORK", "bridge:vdnone0") }, checkBridges, Fail, "bridges: "},
		"no such name":            {func(t *testing.T, s *site) { s.set(t, "WIN4_VERDE_PUBADDR", "gone") }, checkAddress, Fail, "no such name"},
		"no such master":          {func(t *testing.T, s *site) { s.set(t, "WIN4_VERDE_CMADDR", "gone:1") }, checkNames, Fail, "gone, the master: no such name"},
		"the name server is dead": {func(_ *testing.T, s *site) { s.cfg.Resolver = nameServer{dead: true} }, checkNames, Fail, "no answer within 5 s"},
		"the hypervisor hangs": {func(_ *testing.T, s *site) {
			s.cfg.Probe = func(ctx context.Context) Probe { <-ctx.Done(); return Probe{} }
		}, checkAccel, Fail, "no answer within 5 s"},
		"a homes' directory is gone": {func(t *testing.T, s *site) { must(t, os.RemoveAll(filepath.Join(s.dir, "home"))) }, checkAccounts, Pass, "0 users with desktops"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			tt.change(t, s)
			began := time.Now()
			var f Finding
			if strings.Contains(tt.has, "no answer") {
				f = s.doctor(t)[tt.check]
			} else {
				f = s.answered(t, tt.check)[tt.check]
			}
			if f.Level != tt.level || !strings.Contains(f.Measured, tt.has) || f.Level != Pass && f.Fix == "" {
				t.Errorf("got %+v, want %s with %q", f, tt.level, tt.has)
			}
			if took := time.Since(began); took > time.Minute {
				t.Errorf("it took %v", took)
			}
		})
	}
	if _, err := Doctor(t.Context(), DoctorConfig{}); err == nil {
		t.Error("without settings: got nil, want an error")
	}
}

// A running satellite hands in what is news, and what the master does not keep:
// after a restored backup, or when somebody has run the checks by hand.
func TestKeeper(t *testing.T) {
	s := newSite(t)
	var log bytes.Buffer
	k := NewKeeper(KeeperConfig{Doctor: s.cfg, Log: zerolog.New(&log), Jitter: func() float64 { return 0 }})
	round := func(what string, sent bool) {
		t.Helper()
		before := s.master.at
		if err := k.round(t.Context()); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if got := s.master.at != before; got != sent {
			t.Errorf("%s: handed in: %v, want %v", what, got, sent)
		}
	}
	round("the first time", true)
	round("nothing new", false)
	s.master.at += 5
	round("by hand meanwhile", true)
	must(t, os.Chmod(filepath.Join(s.dir, "pki", wire.IdentityFile), 0o644))
	log.Reset()
	round("a key is open", true)
	if n := strings.Count(log.String(), `"check":"keys"`); n != 1 {
		t.Errorf("it is told %d times: %s", n, log.String())
	}
	round("still", false)
	s.master.refuse = wire.Errorf(wire.NotReady, "not yet")
	if err := k.round(t.Context()); err != errUnheard {
		t.Errorf("the master does not take part: got %v", err)
	}
}

// When the checks are made: not before the link is up, once more a little later,
// then every hour; sooner where nobody has heard of them, where they keep desktops
// away, and when the link has come back.
func TestKeeperTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // guards up and changed
		up, changed := false, make(chan struct{})
		set := func(now bool) {
			mu.Lock()
			defer mu.Unlock()
			up = now
			close(changed)
			changed = make(chan struct{})
		}
		k := NewKeeper(KeeperConfig{Log: zerolog.Nop(), Jitter: func() float64 { return 0.5 }, Linked: func() (bool, <-chan struct{}) {
			mu.Lock()
			defer mu.Unlock()
			return up, changed
		}})
		var at []time.Duration
		began := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		k.once = func(context.Context) error {
			at = append(at, time.Since(began))
			k.last = Result{}
			switch len(at) {
			case 2:
				return errUnheard
			case 4:
				k.last.Findings = []Finding{{Level: Fail, Hard: true}}
			}
			return nil
		}
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx) }()
		time.Sleep(time.Hour)
		set(true)
		time.Sleep(3 * time.Hour)
		set(false)
		time.Sleep(2 * time.Hour)
		set(true)
		time.Sleep(checkAgain / 2)
		for range 10 { // the link comes and goes
			time.Sleep(time.Second)
			set(false)
			time.Sleep(time.Second)
			set(true)
		}
		time.Sleep(90 * time.Second)
		cancel()
		must(t, <-done)
		again, every := checkAgain*105/100, checkEvery*105/100
		want := []time.Duration{time.Hour + checkSpread/2}
		for _, d := range []time.Duration{again, checkSoon * 3 / 2, every, again, every} {
			want = append(want, want[len(want)-1]+d)
		}
		want = append(want, 6*time.Hour+checkAgain/2, 6*time.Hour+checkAgain/2+2*time.Second+checkSoon)
		if !slices.Equal(at, want) {
			t.Errorf("got %v, want %v", at, want)
		}
	})
}

// After a restart the master knows of no other host: a result that looks better
// for want of them is held back, but not for ever.
func TestKeeperWithFewerHosts(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.master.others = []*pb.Survey{{Hostname: "sat8", ServerId: 8, Version: "1.0", Arch: "aarch64", BootId: "other"}}
	k := NewKeeper(KeeperConfig{Doctor: s.cfg, Log: zerolog.Nop()})
	must(t, k.round(t.Context()))
	worse := s.master.at
	s.master.others = nil
	for range 2 {
		if err := k.round(t.Context()); err != errFewer || s.master.at != worse {
			t.Errorf("got %v, handed in: %v", err, s.master.at != worse)
		}
	}
	k.fewer = fewerTries
	if err := k.round(t.Context()); err != nil || s.master.at == worse {
		t.Errorf("in the end: got %v, handed in: %v", err, s.master.at != worse)
	}
}

// The document has the same keys always, and what another host reads is what was
// measured; text is aligned, says the fix and has no colour in a file.
func TestWriting(t *testing.T) {
	m := fit()
	m.Network = "br9"
	r := Result{Findings: Check(m, []Survey{twin()}), Survey: m.Survey}
	var b bytes.Buffer
	must(t, writeJSON(&b, r))
	s, err := parseDocument(b.Bytes())
	must(t, err)
	if one, two := fmt.Sprint(s), fmt.Sprint(r.Survey); one != two {
		t.Errorf("got\n%s\nwant\n%s", one, two)
	}
	var doc map[string][]map[string]any
	_ = json.Unmarshal(b.Bytes(), &doc)
	for _, f := range doc["findings"] {
		if len(f) != 6 {
			t.Errorf("got %v", f)
		}
	}
	b.Reset()
	must(t, writeJSON(&b, Result{}))
	if text := b.String(); strings.Count(text, "[]") != 4 || strings.Contains(text, "accounts\": null") {
		t.Errorf("an empty one: got %s", text)
	}
	b.Reset()
	must(t, writeText(&b, r, false, true))
	text := b.String()
	for _, want := range []string{"\npass  clock ", "\nfail  bridges       bridges: br0\n", "\n                    keeps desktops away from this host\n                    wanted: the bridge br9", "fix: make the bridge", " pass, 0 warn, 1 fail.\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	b.Reset()
	must(t, writeText(&b, r, true, true))
	if !strings.Contains(b.String(), "\x1b[31mfail\x1b[0m  bridges") || strings.Contains(text, "\x1b") {
		t.Errorf("colours: got %q", b.String())
	}
	if r.Worst() != Fail || len(r.Hard()) != 1 || (Result{}).Worst() != Pass {
		t.Errorf("worst %s, hard %v", r.Worst(), r.Hard())
	}
	for text, want := range map[string]string{"": "not a result", "{}": "no survey", `{"survey":{"hostname":"x"}}`: "no survey", "[1]": "not a result"} {
		if _, err := parseDocument([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

// Every check is in the manual, with a star if it can be hard.
func TestManual(t *testing.T) {
	page, err := os.ReadFile("../../packaging/man/verdecmd.8")
	must(t, err)
	hard := []string{checkQEMU, checkAccel, checkDevice, checkAccounts, checkLocks, checkBridges}
	for _, f := range Check(fit(), []Survey{twin()}) {
		line := "\n.It Cm " + f.Check
		if slices.Contains(hard, f.Check) {
			line += " No *"
		}
		if !strings.Contains(string(page), line+"\n") {
			t.Errorf("the manual does not say %q", line)
		}
	}
}
