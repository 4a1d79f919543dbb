package master

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"verdecmd/master/cluster"
	"verdecmd/master/session"
	"verdecmd/master/store"
	"verdecmd/monitor"
	"verdecmd/proto/wire"
	"verdecmd/settings"
)

// names are accounts that exist: u0, u1 and so on, with the number behind 1000.
type names struct{}

func (names) Find(_ context.Context, name string, byUID bool) (string, uint32, bool) {
	var n uint32
	if _, err := fmt.Sscanf(name, map[bool]string{true: "1%03d", false: "u%d"}[byUID], &n); err != nil {
		return "", 0, false
	}
	return fmt.Sprintf("u%d", n), 1000 + n, true
}

func (names) Names(string, int) []string { return nil }

// seated is a master whose links are called as functions.
type seated struct {
	*Master
	backend
	file   string // its settings
	socket string
	log    *bytes.Buffer
}

func seat(t testing.TB, db store.Store, epoch store.Epoch, resync time.Duration) *seated {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "settings.global")
	if err := os.WriteFile(file, []byte("# kept\nWIN4_VERDE_LEASE_SELF=60\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	v, err := settings.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	admin, err := monitor.Listen(monitor.ListenConfig{Path: socket})
	if err != nil {
		t.Fatal(err)
	}
	satellites, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { admin.Close(); satellites.Close() })
	var log bytes.Buffer
	level := NewLevel("error")
	l := limits(v)
	l.Resync = resync
	m, err := New(t.Context(), Config{
		Monitor: admin, Link: satellites, Store: db, Epoch: epoch, Accounts: names{}, Limits: l,
		Admin: monitor.Config{Tuning: monitor.Tuning{MaxConns: 300}}, ShutdownWait: time.Minute, LogoffWait: time.Minute, Settings: v, Level: level, Version: "1", Host: "cm",
		Log: zerolog.New(zerolog.SyncWriter(&log)).Hook(level), // several parts log at once
	})
	if err != nil {
		t.Fatal(err)
	}
	return &seated{Master: m, backend: backend{m}, file: file, socket: socket, log: &log}
}

// run runs the master until the end of the test.
func (s *seated) run(t testing.TB) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Master.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// attach opens the link of a satellite on which users u0 to u(n-1) have
// sessions.
func (s *seated) attach(t testing.TB, name string, n int) (server, attachment uint64) {
	t.Helper()
	h := cluster.Hello{UUID: "id-" + name, Instance: name, Address: "192.0.2.1", Load: load(), Sessions: reported(n)}
	at, err := s.Master.hub.Attach(t.Context(), h, name)
	if err != nil {
		t.Fatal(err)
	}
	return at.Server, at.Attachment
}

func load() cluster.Load {
	return cluster.Load{MemoryTotal: 1 << 40, MemoryFree: 1 << 40, SnapFree: 1 << 40}
}

func reported(n int) []cluster.Reported {
	out := make([]cluster.Reported, n)
	for i := range out {
		out[i] = cluster.Reported{ID: fmt.Sprintf("s%d", i+1), User: fmt.Sprintf("u%d", i), UID: uint32(1000 + i), Seen: cluster.Seen{State: cluster.Running}}
	}
	return out
}

// code is that of a refusal; 0 for none.
func code(err error) int {
	var e *monitor.Error
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.Code
	}
	return -1
}

// V-66, PROTOCOL 12.2: a server that is gone is forgotten for good.
func TestForgetServer(t *testing.T) {
	db := store.NewMem()
	s := seat(t, db, db.Epoch(), 0)
	one, at := s.attach(t, "one", 1)
	two, _ := s.attach(t, "two", 0)
	if err := s.Forget(t.Context(), one); code(err) != 552 || !strings.Contains(err.Error(), "connected") {
		t.Errorf("connected: got %v, want 552", err)
	}
	if err := s.Forget(t.Context(), 99); code(err) != 550 {
		t.Errorf("unknown: got %v, want 550", err)
	}
	s.Master.hub.Detach(t.Context(), one, at)
	if err := s.Forget(t.Context(), one); code(err) != 552 || !strings.Contains(err.Error(), "fenceserver") {
		t.Errorf("with a session: got %v, want 552", err)
	}
	if _, err := s.Fence(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	db.Fail(store.ErrNoSpace)
	if err := s.Forget(t.Context(), one); code(err) != 452 {
		t.Errorf("full disk: got %v, want 452", err)
	}
	if _, _, ok := s.Server(one); !ok {
		t.Error("forgotten although the disk is full")
	}
	db.Fail(nil)
	if err := s.Forget(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	if _, _, ok := s.Server(one); ok {
		t.Error("still there")
	}
	if list, _ := s.Servers(); len(list) != 1 || list[0].ID != two {
		t.Errorf("servers are %v", list)
	}
	var check error
	s.with(func(c *cluster.Cluster) { check = c.Check() })
	if check != nil {
		t.Error(check)
	}
	events, _, _ := s.Since(0)
	if last := events[len(events)-1]; last.Type != "server.forgotten" {
		t.Errorf("the last event is %v", last)
	}

	// The next master does not know it either, and refuses the machine (S16) until
	// it has another identity. What was condemned there is still ended.
	s = seat(t, db, db.Restart(), 0)
	if list, _ := s.Servers(); len(list) != 1 || list[0].ID != two {
		t.Errorf("after a restart, servers are %v", list)
	}
	h := cluster.Hello{UUID: "id-one", Instance: "one", Address: "192.0.2.1", Load: load(), Sessions: reported(1)}
	if _, err := s.Master.hub.Attach(t.Context(), h, "one"); wire.KindOf(err) != wire.Revoked {
		t.Errorf("with its old identity: got %v, want a refusal", err)
	}
	h.UUID = "id-one-anew"
	again, err := s.Master.hub.Attach(t.Context(), h, "one")
	if err != nil || again.Server <= two {
		t.Errorf("registered anew: got number %d, %v", again.Server, err)
	}
	if users, _ := s.Users(); len(users) != 0 {
		t.Errorf("a session that was fenced is back: %v", users)
	}
}

// PROTOCOL 5, 430: nothing is decided about a server that may still come back
// after a start of the master.
func TestNotReadyAfterStart(t *testing.T) {
	db := store.NewMem()
	s := seat(t, db, db.Epoch(), 0)
	id, _ := s.attach(t, "one", 1)
	s = seat(t, db, db.Restart(), time.Hour)
	_, fence := s.Fence(t.Context(), id)
	_, _, end := s.End(t.Context(), "u0", monitor.Abort, 0, true)
	for what, err := range map[string]error{"fenceserver": fence, "abortuser force": end} {
		if code(err) != 430 {
			t.Errorf("%s: got %v, want 430", what, err)
		}
	}
	if o := s.Overview(); o.RetryAfter <= 0 {
		t.Error("hello does not tell that the master has just started")
	}
	s.attach(t, "one", 1)
	if err := s.notReady(id); err != nil {
		t.Errorf("it is back: got %v", err)
	}
}

// PROTOCOL 12.9: what setting writes, what it refuses, and what counts at once.
func TestSetSetting(t *testing.T) {
	s := seat(t, store.NewMem(), 1, 0)
	s.attach(t, "sat1", 0)
	for _, test := range []struct {
		name, value string
		code        int
		says        string
	}{
		{"WIN4_VERDE_STATS_INTERVAL", "5", 0, "no"},
		{"win4_verde_stats_interval", "5", 0, "unchanged"},
		{"WIN4_VERDE_RESERVATION_TIMEOUT", "7", 0, "no"},
		{"VERDECMD_LOGOFF_WAIT", "9", 0, "no"},
		{"VERDECMD_SHUTDOWN_WAIT", "8", 0, "no"},
		{"VERDECMD_LOGLEVEL", "debug", 0, "no"},
		{"VERDECMD_CONN_VIEWERS", "4242", 0, "no"},
		{"VERDECMD_SOCKET", "/x/y", 0, "yes"},
		{"VERDECMD_SOCKET", "/var/run/win4linpro/verdecmd-socket", 0, "no"}, // what is in force
		{"WIN4_VERDE_STATS_INTERVAL", "0", 553, "1 to 60"},
		{"WIN4_VERDE_STATS_INTERVAL", "", 553, "wants"},
		{"WIN4_VERDE_LOST_SESSIONS", "maybe", 553, "hold or lease"},
		{"VERDECMD_CONN_ADMINS", "no-such-user", 553, "no-such-user"},
		{"WIN4_SNAP_DIR", "/snap", 554, "sat1"},
		{"WIN4_VERDE_STATS_INTERVALL", "5", 550, "WIN4_VERDE_STATS_INTERVAL"},
	} {
		ch, err := s.SetSetting(t.Context(), test.name, test.value)
		got := map[bool]string{true: "yes", false: "no"}[ch.Restart]
		if err != nil {
			got = err.Error()
		} else if !ch.Changed {
			got = "unchanged"
		}
		if code(err) != test.code || !strings.Contains(got, test.says) {
			t.Errorf("%s=%q: got %d %q, want %d %q", test.name, test.value, code(err), got, test.code, test.says)
		}
	}
	raw, err := os.ReadFile(s.file)
	if err != nil || !strings.HasPrefix(string(raw), "# kept\nWIN4_VERDE_LEASE_SELF=60\n") || strings.Contains(string(raw), "SNAP") {
		t.Errorf("the file is, %v:\n%s", err, raw)
	}
	var l cluster.Limits
	s.with(func(c *cluster.Cluster) { l = c.Limits() })
	if l.Interval != 5*time.Second || l.ReservationTimeout != 7*time.Second {
		t.Errorf("in force is %v", l)
	}
	if got := s.LogLevel(); got != "debug" {
		t.Errorf("the log level is %s", got)
	}
	events, _, _ := s.Since(0)
	told := 0
	for _, e := range events {
		if e.Type == "config.changed" {
			told++
		}
	}
	if told != 8 {
		t.Errorf("%d events config.changed, want 8", told)
	}

	// A file that somebody has broken by hand is not made worse.
	os.WriteFile(s.file, []byte("VERDECMD_CONN_MAX=many\n"), 0o644)
	if _, err := s.SetSetting(t.Context(), "VERDECMD_LOGOFF_WAIT", "10"); code(err) != 554 || !strings.Contains(err.Error(), s.file+":1") {
		t.Errorf("a wrong file: got %v, want 554 that names the line", err)
	}
}

// A change is refused that leaves a file with which no master starts.
func TestSettingsContradict(t *testing.T) {
	s := seat(t, store.NewMem(), 1, 0)
	if _, err := s.SetSetting(t.Context(), "WIN4_VERDE_LOST_SESSIONS", "lease"); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(s.file)
	if _, err := s.SetSetting(t.Context(), "WIN4_VERDE_LEASE_REPLACE", "60"); code(err) != 553 {
		t.Errorf("got %v, want 553", err)
	}
	if after, _ := os.ReadFile(s.file); string(after) != string(before) {
		t.Errorf("the file was changed:\n%s", after)
	}
}

// The log level counts at once, for loggers that were made before too.
func TestLogLevel(t *testing.T) {
	s := seat(t, store.NewMem(), 1, 0)
	log := part(s.cfg.Log, "x")
	log.Info().Msg("not yet")
	if err := s.SetLogLevel(t.Context(), "info"); err != nil {
		t.Fatal(err)
	}
	log.Info().Msg("now")
	log.Debug().Msg("never")
	if got := s.log.String(); got != `{"level":"info","part":"x","message":"now"}`+"\n" {
		t.Errorf("the log is %s", got)
	}
	if err := s.SetLogLevel(t.Context(), "loud"); code(err) != 554 {
		t.Errorf("got %v", err)
	}
}

// V-84, PROTOCOL 12.9: a copy that can be opened, where nobody else can touch it.
func TestBackup(t *testing.T) {
	dir := t.TempDir()
	db, err := store.Open(filepath.Join(dir, "verdecmd.db"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s := seat(t, db, db.Epoch(), 0)
	s.run(t)
	s.attach(t, "one", 3)
	until(t, "the sessions on the disk, for which a satellite waits a second alone", func() bool {
		n := 0
		if err := db.View(t.Context(), func(v store.Snapshot) error {
			for range v.All(session.Sessions) {
				n++
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return n == 3
	})
	path := filepath.Join(dir, "copy.db")
	wait := func(path string) monitor.Job {
		t.Helper()
		j, _, err := s.Backup(t.Context(), path)
		if err == nil {
			j, err = s.WaitJob(t.Context(), j.ID)
		}
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	if j := wait(path); j.Code != 200 {
		t.Fatalf("got %d %s", j.Code, j.Text)
	}
	at, err := os.Stat(path)
	if err != nil || at.Mode() != 0o600 {
		t.Errorf("the copy: %v, %v", at, err)
	}
	if err := store.Verify(path); err != nil {
		t.Error(err)
	}
	if _, _, err := s.Backup(t.Context(), path); code(err) != 551 {
		t.Errorf("twice: got %v, want 551", err)
	}
	copied, err := store.Open(path, "")
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	if users, _ := seat(t, copied, copied.Epoch(), 0).Users(); len(users) != 3 {
		t.Errorf("the copy has %d sessions, want 3", len(users))
	}
}

func TestBackupPath(t *testing.T) {
	dir := t.TempDir()
	mode := func(name string, mode os.FileMode) string {
		d := filepath.Join(dir, name)
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(d, mode); err != nil {
			t.Fatal(err)
		}
		return d
	}
	open, sticky, own := mode("open", 0o777), mode("sticky", 0o777|os.ModeSticky), mode("own", 0o700)
	if err := os.Symlink(open, filepath.Join(own, "link")); err != nil {
		t.Fatal(err)
	}
	mode("open/below", 0o700)
	file := filepath.Join(own, "file")
	os.WriteFile(file, nil, 0o600)
	for path, want := range map[string]int{
		filepath.Join(own, "x"): 0, filepath.Join(sticky, "x"): 0,
		"x": 553, "": 553, filepath.Join(open, "x"): 553, filepath.Join(open, "below", "x"): 553,
		filepath.Join(own, "link", "x"): 553, filepath.Join(own, "none", "x"): 553, filepath.Join(file, "x"): 553,
		file: 551, filepath.Join(own, "link"): 551, dir: 551,
	} {
		if _, err := backupPath(path); code(err) != want {
			t.Errorf("%q: got %v, want %d", path, err, want)
		}
	}
}

// PROTOCOL 12.9: the master's figures; none is about a user.
func TestMetrics(t *testing.T) {
	s := seat(t, store.NewMem(), 1, 0)
	s.attach(t, "one", 3)
	got := map[string]bool{}
	for _, m := range s.Metrics() {
		if got[m.Name] {
			t.Errorf("%s comes twice", m.Name)
		}
		got[m.Name] = true
		for _, x := range m.Samples {
			for i, l := range x.Labels {
				if l == "user" || i%2 == 1 && strings.HasPrefix(l, "u0") {
					t.Errorf("%s tells of a user: %q", m.Name, x.Labels)
				}
			}
			if m.Name == "verdecmd_sessions" && x.Labels[1] == "running" && x.Value != 3 {
				t.Errorf("%v sessions run, want 3", x.Value)
			}
		}
	}
	for _, want := range []string{"verdecmd_server_info", "verdecmd_store_commits_total", "process_resident_memory_bytes", "process_open_fds", "go_goroutines"} {
		if !got[want] {
			t.Errorf("%s is missing", want)
		}
	}
}
