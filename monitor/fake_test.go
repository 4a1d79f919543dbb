package monitor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// fakeMaster behaves like a master: servers, sessions that end, jobs that take
// their time, events that are kept.
type fakeMaster struct {
	mu           sync.Mutex
	servers      []Server
	sessions     []Session
	reservations []Reservation
	jobs         map[uint64]*Job
	done         map[uint64]chan struct{}
	nextJob      uint64
	events       []Event
	keep         int // events
	wait         chan struct{}
	boot         time.Duration   // how long guests take to shut down; they ignore the request if negative
	hold         chan struct{}   // jobs end when it is closed, and not by their times; nil: by those
	panics       map[string]bool // users whose lookup panics
	slow         chan struct{}   // Servers and Accounts wait for it, if not nil
	loglevel     string
	settings     map[string]string
	tokens       []Token
	password     string
	revoked      []Revoked
	blind        time.Time // revocations are unknown since
	alarms       []Alarm
	waiting      int // alarms that the disk has not taken
	audited      []Audited
}

var fakeStart = time.Date(2026, 11, 21, 8, 15, 2, 0, time.UTC)

func newFake() *fakeMaster {
	f := &fakeMaster{
		jobs: map[uint64]*Job{}, done: map[uint64]chan struct{}{}, nextJob: 18, keep: 4096,
		wait: make(chan struct{}), panics: map[string]bool{}, boot: 20 * time.Millisecond, loglevel: "info",
	}
	f.servers = []Server{
		{ID: 1, Name: "sat1.example.com", Address: "192.0.2.11", State: Online, Link: LinkUp, CPU: 12.4, MemTotal: 8589934592, MemFree: 6227702579,
			Age: time.Second, Version: "1.0.0", Score: 214, Eligible: true, Since: fakeStart, Arch: "x86_64", CPUs: 8, Load1: 0.97,
			SnapDir: "/var/lib/win4linpro/snap", SnapFree: 214748364800,
			UUID: "0b5c6f0e-3a54-4d0a-9a7e-0f6b1f4f9a11", Serial: "1f00", CertUntil: fakeStart.Add(30 * 24 * time.Hour)},
		{ID: 2, Name: "sat2.example.com", Address: "192.0.2.12", State: Online, Link: LinkUp, CPU: 3.1, MemTotal: 8589934592, MemFree: 7301444403,
			Age: 2 * time.Second, Version: "1.0.0", Score: 96, Eligible: true},
		{ID: 3, Name: "sat3", Address: "192.0.2.13", State: Online, Link: LinkDown, Age: -1, Why: "link down"},
	}
	for i, name := range []string{"alice", "bob", "carol"} {
		f.sessions = append(f.sessions, Session{User: name, UID: uint32(1001 + i), Server: uint64(1 + i/2), Desktop: "win4", Image: "win4/7",
			State: "running", Started: fakeStart, Client: "198.51.100.7", ID: fmt.Sprintf("s%d", 40+i)})
	}
	f.reservations = []Reservation{{ID: "r1", User: "dave", UID: 1004, Server: 1, State: "waiting", Made: fakeStart, Expires: fakeStart.Add(time.Minute), Remaining: time.Minute}}
	f.alarms = []Alarm{
		{ID: 5, Severity: Warning, Kind: "desktop-hung", Object: "bob", Since: fakeStart, Last: fakeStart.Add(time.Minute), Count: 3, Text: "The desktop of bob on server 1 hangs.",
			Cleared: fakeStart.Add(time.Hour), Acked: fakeStart.Add(time.Minute), AckedBy: "alice", Note: "restarted"},
		{ID: 7, Severity: Critical, Kind: "server-lost", Object: "3", Since: fakeStart, Last: fakeStart, Count: 1, Text: "Server 3 (sat3) is lost: without a link for more than 15 s.",
			Help: `"server 3" shows it`},
	}
	for range 3 {
		f.emit("server.up", "a server came", Pair{"server", 1})
	}
	return f
}

func (f *fakeMaster) emit(kind, text string, pairs ...Pair) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.emitLocked(kind, text, pairs...)
}

func (f *fakeMaster) emitLocked(kind, text string, pairs ...Pair) {
	seq := uint64(4709)
	if n := len(f.events); n > 0 {
		seq = f.events[n-1].Seq
	}
	f.events = append(f.events, Event{Seq: seq + 1, Time: fakeStart, Type: kind, Pairs: pairs, Text: text})
	if len(f.events) > f.keep {
		f.events = slices.Clone(f.events[len(f.events)-f.keep:])
	}
	close(f.wait)
	f.wait = make(chan struct{})
}

func (f *fakeMaster) Seq() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seq()
}

func (f *fakeMaster) seq() uint64 { return f.events[len(f.events)-1].Seq }

func (f *fakeMaster) Since(seq uint64) (events []Event, lostTo uint64, wait <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if first := f.events[0].Seq; seq+1 < first {
		lostTo = first - 1
	}
	for i := range f.events {
		if f.events[i].Seq > seq {
			events = slices.Clone(f.events[i:])
			break
		}
	}
	return events, lostTo, f.wait
}

func (f *fakeMaster) Overview() Overview {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Overview{Version: "1.0.0", Host: "cm.example.com", Uptime: 93612 * time.Second, Servers: len(f.servers), Online: 2,
		Users: len(f.sessions), Seq: f.seq(), Alarms: f.active(), Critical: f.active()}
}

func (f *fakeMaster) Accounts(prefix string, limit int) []string {
	if f.slow != nil {
		<-f.slow
	}
	var out []string
	for _, n := range []string{"alice", "bob", "carol", "dave"} {
		if strings.HasPrefix(n, prefix) && len(out) < limit {
			out = append(out, n)
		}
	}
	return out
}

func (f *fakeMaster) Servers() ([]Server, uint64) {
	if f.slow != nil {
		<-f.slow
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.servers), f.seq()
}

func (f *fakeMaster) Server(id uint64) (Server, uint64, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.servers {
		if s.ID == id {
			for _, u := range f.sessions {
				if u.Server == id {
					s.Sessions = append(s.Sessions, u.User)
				}
			}
			s.Users = len(s.Sessions)
			return s, f.seq(), true
		}
	}
	return Server{}, 0, false
}

func (f *fakeMaster) Checks(id uint64) (Checks, bool) {
	_, _, ok := f.Server(id)
	if id != 2 {
		return Checks{}, ok
	}
	return Checks{Pass: 1, Fail: 1, At: fakeStart, Age: 3 * time.Minute, Version: "1.0.0", Rows: []Check{
		{Name: "bridges", Level: CheckFail, Measured: "bridges: none", Wanted: "the bridge br0", Fix: "make\tit", Hard: true},
		{Name: "clock", Level: CheckPass, Measured: "+0.001 s", Wanted: "within 1s"},
	}}, ok
}

func (f *fakeMaster) SetServer(_ context.Context, id uint64, state, reason string) (Server, bool, int, error) {
	s, _, _ := f.Server(id)
	f.mu.Lock()
	defer f.mu.Unlock()
	changed := s.State != state
	left := 0
	for i := range f.servers {
		if f.servers[i].ID == id {
			f.servers[i].State, f.servers[i].Reason = state, reason
		}
		if f.servers[i].State == Online {
			left++
		}
	}
	if changed {
		f.emitLocked("server."+state, s.Name+" is "+state, Pair{"server", id})
	}
	return s, changed, left, nil
}

func (f *fakeMaster) Fence(_ context.Context, id uint64) (int, error) {
	if s, _, _ := f.Server(id); s.Link == LinkUp {
		return 0, Errorf(554, []Pair{{"server", id}}, "the link of server %d is up", id)
	}
	return 0, nil
}

func (f *fakeMaster) Placement(_ context.Context, user string) ([]Candidate, error) {
	return []Candidate{{2, "sat2.example.com", true, 96, "least loaded"}, {1, "sat1.example.com", true, 214, ""}, {3, "sat3", false, 0, "link down"}}, nil
}

func (f *fakeMaster) Users() ([]Session, uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.sessions), f.seq()
}

func (f *fakeMaster) User(_ context.Context, name string, byUID bool) (UserDetail, uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.panics[name] {
		panic("planted")
	}
	for _, s := range f.sessions {
		if !byUID && s.User == name || byUID && fmt.Sprint(s.UID) == name {
			return UserDetail{Session: s, ServerName: "sat1.example.com", Current: true, Display: "vnc+unix:/x/vnc", Memory: 2147483648, CPU: 3.5, PID: 20417}, f.seq(), nil
		}
	}
	if name == "dave" || name == "1004" {
		return UserDetail{Session: Session{User: "dave", UID: 1004, State: "none"}}, f.seq(), nil
	}
	return UserDetail{}, 0, Errorf(550, nil, "no such account")
}

func (f *fakeMaster) End(_ context.Context, user string, how How, limit time.Duration, _ bool) (Job, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := slices.IndexFunc(f.sessions, func(s Session) bool { return s.User == user })
	if at < 0 {
		return Job{}, false, nil
	}
	s := f.sessions[at]
	for _, j := range f.jobs {
		if j.Object == user && !j.Finished() && j.Action == string(how)+"user" {
			return *j, true, nil
		}
	}
	if limit == 0 {
		limit = 120 * time.Second
	}
	f.nextJob++
	j := &Job{ID: f.nextJob, Action: string(how) + "user", Object: user, State: "running", Started: fakeStart, Limit: limit, By: "root", Message: "waiting for the guest"}
	f.jobs[j.ID] = j
	f.done[j.ID] = make(chan struct{})
	ended := f.boot
	code, result := 200, string(Shutdown)
	if how == Abort {
		ended, result = 0, string(Abort)
	} else if f.boot < 0 || f.boot > limit {
		ended = limit
		if how == Logoff {
			result = string(Abort)
		} else {
			code = 443
		}
	}
	start := time.Now()
	f.after(ended, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if j.Finished() {
			return
		}
		j.Elapsed = time.Since(start)
		j.Pairs = []Pair{{"user", user}, {"server", s.Server}, {"session", s.ID}, {"how", result}, {"elapsed", j.Elapsed}}
		j.Text = fmt.Sprintf("The session of %s on server %d has ended.", user, s.Server)
		if code == 443 {
			j.Pairs = []Pair{{"user", user}, {"elapsed", j.Elapsed}, {"msg", "guest still running, the request stands"}}
			j.Text = "The guest still runs."
		} else {
			f.sessions = slices.DeleteFunc(f.sessions, func(x Session) bool { return x.ID == s.ID })
			f.emitLocked("session.ended", user+" has left", Pair{"user", user})
		}
		j.State, j.Code = "done", code
		close(f.done[j.ID])
	})
	return *j, false, nil
}

// after does something after a time, or when hold is closed. It needs f.mu.
func (f *fakeMaster) after(d time.Duration, do func()) {
	if hold := f.hold; hold != nil {
		go func() {
			<-hold
			do()
		}()
		return
	}
	time.AfterFunc(d, do)
}

func (f *fakeMaster) Reservations() ([]Reservation, uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.reservations), f.seq()
}

func (f *fakeMaster) CancelReservation(_ context.Context, id string) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.reservations)
	f.reservations = slices.DeleteFunc(f.reservations, func(r Reservation) bool { return id == "all" || r.ID == id })
	return n - len(f.reservations), nil
}

func (f *fakeMaster) Jobs(all bool) ([]Job, uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []Job
	for _, j := range f.jobs {
		if all || !j.Finished() {
			out = append(out, *j)
		}
	}
	slices.SortFunc(out, func(a, b Job) int { return int(a.ID) - int(b.ID) })
	return out, f.seq()
}

func (f *fakeMaster) Job(id uint64) (Job, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if j := f.jobs[id]; j != nil {
		return *j, true
	}
	return Job{}, false
}

func (f *fakeMaster) WaitJob(ctx context.Context, id uint64) (Job, error) {
	f.mu.Lock()
	done := f.done[id]
	f.mu.Unlock()
	select {
	case <-done:
		j, _ := f.Job(id)
		return j, nil
	case <-ctx.Done():
		return Job{}, ctx.Err()
	}
}

func (f *fakeMaster) CancelJob(_ context.Context, id uint64) (Job, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	j := f.jobs[id]
	if j.Finished() {
		return *j, false, nil
	}
	j.Code, j.State, j.Text = 444, "cancelled", "Cancelled."
	close(f.done[id])
	return *j, true, nil
}

func (f *fakeMaster) Forget(_ context.Context, id uint64) error {
	s, _, _ := f.Server(id)
	if s.Link == LinkUp {
		return Errorf(552, []Pair{{"server", id}, {"by", "link"}}, "server %d is connected", id)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.servers = slices.DeleteFunc(f.servers, func(s Server) bool { return s.ID == id })
	f.emitLocked("server.forgotten", s.Name+" is forgotten", Pair{"server", id})
	return nil
}

func (f *fakeMaster) Settings() ([]Setting, error) {
	var out []Setting
	for _, name := range []string{"VERDECMD_LOGOFF_WAIT", "VERDECMD_SECRET"} {
		s, _ := f.Setting(name)
		out = append(out, s)
	}
	return out, nil
}

func (f *fakeMaster) Setting(name string) (Setting, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := Setting{Name: name, Default: "120", Value: "120", Source: "default", Kind: "a time", Scope: "master", Text: "How long. And more."}
	if v, ok := f.settings[name]; ok {
		s.Value, s.Source = v, "/etc/settings.global:1"
	}
	switch name {
	case "VERDECMD_SECRET":
		s.Secret, s.Value, s.Default = true, "***", ""
	case "VERDECMD_LOGOFF_WAIT":
	default:
		return Setting{}, Errorf(550, []Pair{{"kind", "setting"}, {"id", name}}, "no such setting")
	}
	return s, nil
}

func (f *fakeMaster) SetSetting(_ context.Context, name, value string) (SettingChange, error) {
	before, err := f.Setting(name)
	if err != nil {
		return SettingChange{}, err
	}
	f.mu.Lock()
	if f.settings == nil {
		f.settings = map[string]string{}
	}
	f.settings[name] = value
	f.mu.Unlock()
	s, err := f.Setting(name)
	return SettingChange{Setting: s, Changed: before.Value != value}, err
}

func (f *fakeMaster) Metrics() []Metric {
	return []Metric{Gauge("verdecmd_servers", "Servers.", 3)}
}

func (f *fakeMaster) Backup(_ context.Context, path string) (Job, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nextJob++
	j := &Job{ID: f.nextJob, Action: "backup", Object: path, State: "done", Started: fakeStart, Code: 200, Pairs: []Pair{{"path", path}}, Text: "Done."}
	f.jobs[j.ID], f.done[j.ID] = j, make(chan struct{})
	close(f.done[j.ID])
	return *j, false, nil
}

func (f *fakeMaster) LogLevel() string { return f.loglevel }

func (f *fakeMaster) SetLogLevel(_ context.Context, level string) error {
	f.loglevel = level
	return nil
}

// managerPassword is the one that was set.
func (f *fakeMaster) managerPassword() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.password
}

func (f *fakeMaster) SetManagerPassword(_ context.Context, password string) error {
	if len(password) < 8 {
		return Errorf(553, []Pair{{"key", "password"}}, "the password has %d characters, at least 8 are needed", len(password))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.password = password
	return nil
}

func (f *fakeMaster) Tokens() []Token {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.tokens)
}

// newToken needs f.mu.
func (f *fakeMaster) newToken(t Token, ttl time.Duration) NewToken {
	if ttl == 0 {
		ttl = time.Hour
	}
	t.ID, t.Made, t.By, t.Expires = uint64(len(f.tokens)+1), fakeStart, "root", fakeStart.Add(ttl)
	f.tokens = append(f.tokens, t)
	return NewToken{Token: t, Secret: fmt.Sprintf("vd1-fake-%d-secret", t.ID)}
}

func (f *fakeMaster) CreateToken(_ context.Context, w TokenWish) (NewToken, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.servers {
		if s.Name == w.Server {
			return NewToken{}, Errorf(551, []Pair{{"kind", "server"}, {"id", s.ID}}, "server %d has the name already", s.ID)
		}
	}
	return f.newToken(Token{Server: w.Server, Address: w.Address}, w.TTL), nil
}

func (f *fakeMaster) DeleteToken(_ context.Context, id uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.tokens)
	f.tokens = slices.DeleteFunc(f.tokens, func(t Token) bool { return t.ID == id })
	if n == len(f.tokens) {
		return Errorf(550, []Pair{{"kind", "token"}, {"id", id}}, "no token has the ID %d", id)
	}
	return nil
}

func (f *fakeMaster) ReplaceServer(_ context.Context, id uint64, ttl time.Duration, force bool) (NewToken, error) {
	s, _, _ := f.Server(id)
	if s.Link == LinkUp && !force {
		return NewToken{}, Errorf(554, []Pair{{"server", id}}, "server %d is connected", id)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.revoked = append(f.revoked, Revoked{ID: "11111111-2222-3333-4444-555555555555", Server: id, Name: s.Name, Why: "superseded", At: fakeStart, Until: fakeStart.Add(37 * 24 * time.Hour)})
	return f.newToken(Token{Server: s.Name, Address: s.Address, Replaces: id}, ttl), nil
}

func (f *fakeMaster) Revocations() ([]Revoked, time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.revoked), f.blind
}
