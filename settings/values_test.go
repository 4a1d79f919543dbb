package settings

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// parseText parses lines of settings.global.
func parseText(t *testing.T, text string) *Values {
	t.Helper()
	v, err := Parse("settings.global", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Every default is a value that the setting may have, and every getter gives it.
func TestTableIsSound(t *testing.T) {
	v := parseText(t, "")
	seen := map[string]bool{}
	for _, s := range Global() {
		if seen[s.Name] {
			t.Errorf("%s is declared twice", s.Name)
		}
		seen[s.Name] = true
		if s.Text == "" || !strings.HasSuffix(s.Text, ".") {
			t.Errorf("%s: text %q is no sentence", s.Name, s.Text)
		}
		if s.Scope&Both == 0 || s.Kind.String() == "" {
			t.Errorf("%s: scope %d, kind %d", s.Name, s.Scope, s.Kind)
		}
		if s.Default != "" {
			if err := s.check(s.Default); err != nil {
				t.Errorf("default: %s: %v", s.Name, err)
			}
		} else if slices.Contains([]Kind{Bool, Integer, Duration, MiB, Choice}, s.Kind) {
			t.Errorf("%s has no default", s.Name)
		}
		switch s.Kind {
		case Bool:
			v.Bool(s.Name)
		case Integer:
			v.Int(s.Name)
		case Duration:
			v.Duration(s.Name)
		case MiB:
			v.MiB(s.Name)
		case Words:
			v.Words(s.Name)
		default:
			_ = v.String(s.Name)
		}
	}
}

// DESIGN 9 and PROTOCOL promise these defaults.
func TestDefaults(t *testing.T) {
	v := parseText(t, "")
	durations := map[string]time.Duration{
		StatsInterval: 3 * time.Second, MasterLost: 15 * time.Second, ReservationTime: time.Minute,
		StartTimeout: 3 * time.Minute, HungAfter: 15 * time.Second, LogoffWait: 2 * time.Minute,
		ShutdownWait: 2 * time.Minute, ConnLinger: 2 * time.Second, ConnIdle: 0, LeaseSelf: time.Minute,
	}
	for name, want := range durations {
		if got := v.Duration(name); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	texts := map[string]string{
		Socket: "/var/run/win4linpro/verdecmd-socket", SatSocket: "/var/run/win4linpro/satellite-socket",
		ConnUID: "0", ConnGID: "0", ConnLevel: "admin", Accel: "kvm", Network: "user", LostSessions: "hold",
		StateDir: "/var/lib/win4linpro", SnapDir: "", PubAddr: "", PasswdFile: "", QEMU: "qemu-system-x86_64",
	}
	for name, want := range texts { // V-87 for the owner of the socket
		if got := v.String(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if v.Bool(ClusterMaster) || v.Bool(StandaloneLogin) || v.Int(ConnMax) != 64 || v.MiB(SnapReserve) != 2048 || v.Int(MaxSessions) != 0 {
		t.Error("a default of the others is wrong")
	}
	if got, want := LockFile(v), "/var/run/win4linpro/verdecmd.lock"; got != want {
		t.Errorf("lock: got %q, want %q", got, want)
	}
	if got, want := PKI(v), "/var/lib/win4linpro/pki"; got != want {
		t.Errorf("pki: got %q, want %q", got, want)
	}
}

func TestValues(t *testing.T) {
	v := parseText(t, `
export WIN4_VERDE_CLUSTER_MASTER="YES"
WIN4_VERDE_STATS_INTERVAL=1m
WIN4_VERDE_STATS_INTERVAL=5   # the last one counts
WIN4_SNAP_RESERVE="4 GiB"
VERDECMD_CONN_ADMINS='alice  1001 @admins'
VERDECMD_CONN_UID=www-data
VERDECMD_CONN_GID=33
WIN4_NETWORK=bridge:br0
WIN4_VERDE_PKI_DIR=/keys
VERDECMD_LOGLEVEL=info
WIN4_SNAPDIR=/x
VERDECMD_FOO=1
OTHER=2
`)
	if !v.Bool(ClusterMaster) || v.Duration(StatsInterval) != 5*time.Second || v.MiB(SnapReserve) != 4096 || PKI(v) != "/keys" {
		t.Errorf("got %v %v %v %v", v.Bool(ClusterMaster), v.Duration(StatsInterval), v.MiB(SnapReserve), PKI(v))
	}
	if got, want := v.Words(ConnAdmins), []string{"alice", "1001", "@admins"}; !slices.Equal(got, want) {
		t.Errorf("words: got %q, want %q", got, want)
	}
	if len(v.Words(ConnViewers)) != 0 {
		t.Errorf("no words: got %q", v.Words(ConnViewers))
	}
	// V-85, V-86: names and numbers are both texts here.
	if v.String(ConnUID) != "www-data" || v.String(ConnGID) != "33" {
		t.Errorf("owner: got %q, %q", v.String(ConnUID), v.String(ConnGID))
	}
	if got, want := v.Where(StatsInterval), "settings.global:4"; got != want {
		t.Errorf("where: got %q, want %q", got, want)
	}
	if v.Where(SnapDir) != "default" || v.IsSet(SnapDir) || !v.IsSet(LogLevel) {
		t.Errorf("where of a default: got %q, %v, %v", v.Where(SnapDir), v.IsSet(SnapDir), v.IsSet(LogLevel))
	}
	want := []string{
		"settings.global:12: unknown setting WIN4_SNAPDIR is ignored (did you mean WIN4_SNAP_DIR?)",
		"settings.global:13: unknown setting VERDECMD_FOO is ignored",
	}
	if got := v.Warnings(); !slices.Equal(got, want) {
		t.Errorf("warnings: got %q, want %q", got, want)
	}
}

func TestValuesPanicForMistakesOfTheProgram(t *testing.T) {
	v := parseText(t, "")
	for name, f := range map[string]func(){
		"unknown name":       func() { v.Raw("WIN4_NO_SUCH") },
		"unknown name where": func() { v.Where("WIN4_NO_SUCH") },
		"wrong kind":         func() { v.Bool(SnapDir) },
		"text of a number":   func() { _ = v.String(ConnMax) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: got no panic", name)
				}
			}()
			f()
		}()
	}
}

func TestWrongValues(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"bool":                   {"\n WIN4_VERDE_CLUSTER_MASTER=maybe", `settings.global:2:2: WIN4_VERDE_CLUSTER_MASTER is "maybe": wants yes or no`},
		"empty bool":             {`WIN4_VERDE_CLUSTER_MASTER=`, `wants yes or no, or no line at all for the default, no`},
		"number":                 {`VERDECMD_CONN_MAX=many`, `wants a whole number`},
		"negative":               {`WIN4_VERDE_MAX_SESSIONS=-1`, `wants a whole number`},
		"range":                  {`VERDECMD_CONN_MAX=8`, `VERDECMD_CONN_MAX is "8": wants 9 to 4096`},
		"huge":                   {`WIN4_VERDE_MAX_SESSIONS=99999999999999999999999`, `wants a whole number`},
		"interval 0":             {`WIN4_VERDE_STATS_INTERVAL=0`, `wants 1 to 60 s`},
		"interval with a part":   {`WIN4_VERDE_STATS_INTERVAL=999ms`, `wants 1 to 60 s`},
		"interval 61":            {`WIN4_VERDE_STATS_INTERVAL=61`, `wants 1 to 60 s`},
		"duration":               {`WIN4_VERDE_RESERVATION_TIMEOUT=soon`, `wants a time in seconds, or with a unit`},
		"negative duration":      {`VERDECMD_CONN_LINGER=-1s`, `wants a time in seconds`},
		"size":                   {`WIN4_SNAP_RESERVE=2X`, `wants a size in MiB, or with a unit`},
		"size too big":           {`WIN4_SNAP_RESERVE=999999999999T`, `wants a`},
		"relative path":          {`WIN4_SNAP_DIR=tmp`, `wants an absolute path`},
		"socket path":            {`VERDECMD_SOCKET=/` + strings.Repeat("x", 107), `108 bytes long, at most 107 are possible here`},
		"choice":                 {`WIN4_ACCEL=xen`, `WIN4_ACCEL is "xen": wants kvm, auto or tcg`},
		"network":                {`WIN4_NETWORK=br0`, `wants user, or bridge:NAME`},
		"bridge too long":        {`WIN4_NETWORK=bridge:abcdefghijklmnop`, `wants user, or bridge:NAME`},
		"owner":                  {`VERDECMD_CONN_UID="a b"`, `wants one name or number`},
		"desktop's name":         {`WIN4_DESKTOP_NAME=../x`, `wants the name of a file`},
		"program":                {`WIN4_QEMU=bin/qemu`, `wants the name of a program or its absolute path`},
		"port":                   {`WIN4_VERDE_CMADDR=host:0`, `the port "0" is not a number from 1 to 65535`},
		"public, everywhere":     {`WIN4_VERDE_PUBADDR="[::]:1"`, `WIN4_VERDE_PUBADDR is "[::]:1": wants an address to which others can connect`},
		"peers and master":       {"WIN4_VERDE_CLUSTER_MASTER=yes\nWIN4_VERDE_LISTEN=eth1\nWIN4_PEER_LISTEN=eth1:8442", "settings.global:3:1: WIN4_PEER_LISTEN=eth1:8442 and WIN4_VERDE_LISTEN=eth1 are on the same port"},
		"migration and master":   {"WIN4_VERDE_CLUSTER_MASTER=yes\nWIN4_VERDE_LISTEN=0.0.0.0:8444\nWIN4_MIGRATION_ADDR=10.1.0.7", "settings.global:3:1: WIN4_MIGRATION_ADDR=10.1.0.7 and WIN4_VERDE_LISTEN=0.0.0.0:8444 are on the same port"},
		"peers everywhere":       {"WIN4_PEER_LISTEN=[::]\nWIN4_MIGRATION_ADDR=br0", "settings.global:2:1: WIN4_MIGRATION_ADDR=br0 and WIN4_PEER_LISTEN=[::] are on the same port, and one of them is all interfaces"},
		"all at once":            {"WIN4_ACCEL=xen\nWIN4_SNAP_DIR=x", "settings.global has 2 mistakes:\n  settings.global:1:1: WIN4_ACCEL is \"xen\": wants kvm, auto or tcg\n  settings.global:2:1: "},
		"passwd file for real":   {`WIN4_PASSWD_FILE=/x`, `settings.global:1:1: WIN4_PASSWD_FILE is for demonstrations and tests`},
		"passwd file, dir again": {"WIN4_STATE_DIR=/var/lib/win4linpro/\nWIN4_PASSWD_FILE=/x", `settings.global:2:1: WIN4_PASSWD_FILE`},
		"one socket for both":    {"VERDECMD_SOCKET=/s\nWIN4_VERDE_SAT_SOCKET=/s", "are the same path"},
		"lease too short":        {"WIN4_VERDE_LOST_SESSIONS=lease\nWIN4_VERDE_LEASE_SELF=61", "settings.global:2:1: WIN4_VERDE_LEASE_REPLACE is 1m36s, but with WIN4_VERDE_LEASE_SELF=1m1s it must be at least 1m37.1s"},
		"lease replace":          {"WIN4_VERDE_LOST_SESSIONS=lease\nWIN4_VERDE_LEASE_REPLACE=95", "settings.global:2:1: "},
		"lease and interval":     {"WIN4_VERDE_LOST_SESSIONS=lease\nWIN4_VERDE_STATS_INTERVAL=16", "settings.global:2:1: WIN4_VERDE_STATS_INTERVAL is 16s, but with WIN4_VERDE_LEASE_SELF=1m0s it must be at most 15s"},
		"lease and lost":         {"WIN4_VERDE_LOST_SESSIONS=lease\nWIN4_VERDE_MASTER_LOST=60", "settings.global:2:1: WIN4_VERDE_LEASE_SELF is 1m0s: it must be longer than"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("settings.global", []byte(tt.text))
			var fe *FileError
			if !errors.As(err, &fe) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestRightValues(t *testing.T) {
	for _, text := range []string{
		"WIN4_STATE_DIR=/demo\nWIN4_PASSWD_FILE=/demo/passwd",
		"WIN4_VERDE_LOST_SESSIONS=lease",
		"WIN4_VERDE_LOST_SESSIONS=lease\nWIN4_VERDE_STATS_INTERVAL=15",
		"WIN4_VERDE_STATS_INTERVAL=60", // as it is without lease
		"WIN4_VERDE_LEASE_SELF=3600",   // not asked about without lease
		"WIN4_VERDE_LOST_SESSIONS=lease\nWIN4_VERDE_LEASE_SELF=600\nWIN4_VERDE_LEASE_REPLACE=11m30s",
		"WIN4_SNAP_DIR=", "VERDECMD_CONN_ADMINS=", "WIN4_QEMU=/usr/bin/qemu-system-aarch64",
		"WIN4_VERDE_LISTEN=eth1\nWIN4_PEER_LISTEN=eth1:8442", // not the master: nobody listens
		"WIN4_VERDE_CLUSTER_MASTER=yes\nWIN4_VERDE_LISTEN=eth1\nWIN4_PEER_LISTEN=eth1\nWIN4_MIGRATION_ADDR=br0",
		"WIN4_PEER_LISTEN=Host\nWIN4_MIGRATION_ADDR=host:8444", "WIN4_PEER_LISTEN=::1\nWIN4_MIGRATION_ADDR=[::1]",
		"WIN4_PEER_LISTEN=0.0.0.0\nWIN4_MIGRATION_ADDR=br0:8002",
		"WIN4_VERDE_STATS_INTERVAL=1.5s", "WIN4_SNAP_RESERVE=0", "WIN4_VERDE_LISTEN=[::]:1",
	} {
		if _, err := Parse("x", []byte(text)); err != nil {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

// V-34: the master's address in all its forms.
func TestMasters(t *testing.T) {
	tests := map[string]struct {
		text string
		want []string
		err  string
	}{
		"IPv4":              {text: `WIN4_VERDE_CMADDR=192.0.2.1`, want: []string{"192.0.2.1:8442"}},
		"IPv4 with port":    {text: `WIN4_VERDE_CMADDR=192.0.2.1:99`, want: []string{"192.0.2.1:99"}},
		"IPv6 bare":         {text: `WIN4_VERDE_CMADDR=2001:db8::1`, want: []string{"[2001:db8::1]:8442"}},
		"IPv6 in brackets":  {text: `WIN4_VERDE_CMADDR="[2001:db8::1]"`, want: []string{"[2001:db8::1]:8442"}},
		"IPv6 with port":    {text: `WIN4_VERDE_CMADDR="[2001:db8::1]:99"`, want: []string{"[2001:db8::1]:99"}},
		"IPv6 with zone":    {text: `WIN4_VERDE_CMADDR="[fe80::1%eth0]:99"`, want: []string{"[fe80::1%eth0]:99"}},
		"name":              {text: `WIN4_VERDE_CMADDR=Master.example.com`, want: []string{"Master.example.com:8442"}},
		"name with dot":     {text: `WIN4_VERDE_CMADDR=m.example.com.:99`, want: []string{"m.example.com.:99"}},
		"list":              {text: `WIN4_VERDE_CMADDR="a, b:99 ,[::1]"`, want: []string{"a:8442", "b:99", "[::1]:8442"}},
		"none, master here": {text: `WIN4_VERDE_CLUSTER_MASTER=yes`, want: []string{"127.0.0.1:8442"}},
		"none, listens":     {text: "WIN4_VERDE_CLUSTER_MASTER=yes\nWIN4_VERDE_LISTEN=127.9.9.9:1", want: []string{"127.9.9.9:1"}},
		"none, everywhere":  {text: "WIN4_VERDE_CLUSTER_MASTER=yes\nWIN4_VERDE_LISTEN=0.0.0.0", want: []string{"127.0.0.1:8442"}},
		"none, everywhere6": {text: "WIN4_VERDE_CLUSTER_MASTER=yes\nWIN4_VERDE_LISTEN=[::]:5", want: []string{"[::1]:5"}},
		"none":              {err: "WIN4_VERDE_CMADDR is not set in settings.global"},
		"empty item":        {text: `WIN4_VERDE_CMADDR=a,,b`, err: "one is empty"},
		"only digits":       {text: `WIN4_VERDE_CMADDR=192.0.2.300`, err: "neither an IP address nor a host name"},
		"too many colons":   {text: `WIN4_VERDE_CMADDR=a:b:c`, err: "wants host or host:port"},
		"port too high":     {text: `WIN4_VERDE_CMADDR=a:65536`, err: "the port"},
		"port empty":        {text: `WIN4_VERDE_CMADDR=a:`, err: "the port"},
		"name in brackets":  {text: `WIN4_VERDE_CMADDR="[name]:1"`, err: "is not an IPv6 address"},
		"open bracket":      {text: `WIN4_VERDE_CMADDR="[::1"`, err: "wants host"},
		"a URL":             {text: `WIN4_VERDE_CMADDR=https://host`, err: "the port"},
		"blanks":            {text: `WIN4_VERDE_CMADDR="a b"`, err: "neither an IP address nor a host name"},
		"leading hyphen":    {text: `WIN4_VERDE_CMADDR="-a"`, err: "neither an IP address nor a host name"},
		"too long":          {text: `WIN4_VERDE_CMADDR=` + strings.Repeat("a.", 150) + "b", err: "neither an IP address nor a host name"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			v, err := Parse("settings.global", []byte(tt.text))
			var got []string
			if err == nil {
				got, err = Masters(v)
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %q, %v, want %s", got, err, tt.err)
				}
				return
			}
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

// FuzzSplitAddress: what is accepted is accepted again when joined.
func FuzzSplitAddress(f *testing.F) {
	for _, s := range []string{"a", "a:1", "[::1]:1", "::1", "1.2.3.4", "[", "]:", "a.b.:65535", "fe80::1%e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		list, err := splitAddresses(s, MasterPort)
		if err != nil {
			return
		}
		again, err := splitAddresses(strings.Join(list, ","), 1)
		if err != nil || !slices.Equal(list, again) {
			t.Errorf("%q: got %q, %v, want %q", s, again, err, list)
		}
	})
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good", "WIN4_SNAP_DIR=/fast\n")
	v, err := Load(good)
	if err != nil || v.String(SnapDir) != "/fast" || v.Path() != good {
		t.Errorf("good: got %v, %v", v, err)
	}
	_, err = Load(filepath.Join(dir, "missing"))
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "make one with: verdecmd settings sample > "+dir) {
		t.Errorf("missing: got %v", err)
	}
	if _, err = Load(dir); err == nil || !strings.Contains(err.Error(), "is not a plain file") {
		t.Errorf("directory: got %v", err)
	}
	if _, err = Load(write("big", strings.Repeat("#", maxFile+1))); err == nil || !strings.Contains(err.Error(), "more than a settings file can have") {
		t.Errorf("big: got %v", err)
	}
	table := Table{{Name: "WIN4_MEMORY", Kind: MiB, Default: "512", Min: 16}, {Name: "WIN4_OS", Kind: Choice, Choices: []string{"linux", "windows"}}}
	conf, err := LoadTable(write("desktop.conf", "WIN4_MEMORY=1G"), table)
	if err != nil || conf.MiB("WIN4_MEMORY") != 1024 || conf.String("WIN4_OS") != "" {
		t.Errorf("another table: got %v, %v", conf, err)
	}
	if _, err = LoadTable(filepath.Join(dir, "missing"), table); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another table, missing: got %v", err)
	}
	if _, err = LoadTable(write("desktop.conf", "WIN4_MEMORY=1"), table); err == nil || !strings.Contains(err.Error(), "desktop.conf:1:1: WIN4_MEMORY is \"1\": wants at least 16 MiB") {
		t.Errorf("another table, wrong: got %v", err)
	}
}

func TestNearest(t *testing.T) {
	tests := map[string]string{
		"WIN4_VERDE_CMADR":         CMAddr,
		"win4_verde_cmaddr":        CMAddr,
		"CMADDR":                   CMAddr,
		"WIN4_CLUSTER_MASTER":      ClusterMaster,
		"VERDECMD_SHUTDOWN_WAITT":  ShutdownWait,
		"NOTHING_LIKE_IT":          "",
		strings.Repeat("A", 1<<20): "",
	}
	for name, want := range tests {
		got := ""
		if near := Global().Nearest(name); len(near) > 0 {
			got = near[0]
		}
		if got != want {
			t.Errorf("%.40s: got %q, want %q", name, got, want)
		}
	}
}

func TestSampleSetsNothing(t *testing.T) {
	f := mustParse(t, string(Sample()))
	if len(f.Names()) != 0 {
		t.Errorf("got %q set", f.Names())
	}
	var uncommented strings.Builder
	for line := range strings.Lines(string(Sample())) {
		if len(line) > 100 {
			t.Errorf("line too long: %s", line)
		}
		if strings.HasPrefix(line, "#WIN4_") || strings.HasPrefix(line, "#VERDECMD_") {
			line = line[1:]
		}
		uncommented.WriteString(line)
	}
	v, err := Parse("sample", []byte(uncommented.String()))
	if err != nil {
		t.Fatalf("with every line uncommented: %v", err)
	}
	for _, s := range Global() {
		if !v.IsSet(s.Name) || v.Raw(s.Name) != s.Default {
			t.Errorf("%s: got %q, want %q", s.Name, v.Raw(s.Name), s.Default)
		}
	}
}
