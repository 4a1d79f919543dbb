package alarm

import (
	"fmt"
	"strings"
	"time"

	"verdecmd/monitor"
)

// row says what an event means for alarms. A new source of alarms is a row or
// two here; the event's text becomes the alarm's.
type row struct {
	event  string
	kind   string
	object string // the event's pair whose value it is; empty: the master
	// severity is that of an alarm to be raised; empty: the event says that it
	// is over.
	severity string
	lasting  bool
	quiet    time.Duration
	anew     bool                                // who tells it tells it again after a start of the master, and does not tell the end of what a master before has told
	when     func(get func(key string) any) bool // nil: always
}

// master is the object of alarms about the master itself.
const master = "master"

const over = ""

// How long it must be quiet until something that has happened counts as over.
const (
	quietTwin    = 5 * time.Minute // machines that are refused come again within seconds
	quietRefused = 24 * time.Hour
	quietSecret  = time.Hour
	quietSlow    = 10 * time.Minute
)

// rows are all sources. Of several rows for one event all count, in their order.
var rows = []row{
	{event: "server.lost", kind: "server-lost", object: "server", severity: monitor.Critical, lasting: true},
	{event: "server.up", kind: "server-lost", object: "server", severity: over},
	{event: "server.away", kind: "server-lost", object: "server", severity: over},
	{event: "server.forgotten", kind: "server-lost", object: "server", severity: over},

	{event: "server.nospace", kind: "server-space", object: "server", severity: monitor.Warning, lasting: true},
	{event: "server.space", kind: "server-space", object: "server", severity: over},
	{event: "server.forgotten", kind: "server-space", object: "server", severity: over},

	{event: "server.skew", kind: "server-clock", object: "server", severity: monitor.Warning, lasting: true},
	{event: "server.clock", kind: "server-clock", object: "server", severity: over},
	{event: "server.forgotten", kind: "server-clock", object: "server", severity: over},

	{event: "server.duplicate", kind: "server-duplicate", object: "server", severity: monitor.Critical, quiet: quietTwin},
	{event: "server.up", kind: "server-duplicate", object: "server", severity: over}, // the other one comes next, if there is one
	{event: "server.forgotten", kind: "server-duplicate", object: "server", severity: over},
	{event: "server.refused", kind: "server-refused", object: "name", severity: monitor.Warning, quiet: quietRefused},
	{event: "server.up", kind: "server-refused", object: "name", severity: over},

	{event: "server.unfit", kind: "server-unfit", object: "server", severity: monitor.Warning, lasting: true},
	{event: "server.fit", kind: "server-unfit", object: "server", severity: over},
	{event: "server.forgotten", kind: "server-unfit", object: "server", severity: over},
	{event: "server.replaced", kind: "server-unfit", object: "server", severity: over},

	{event: "trust.lag", kind: "server-trust", object: "server", severity: monitor.Warning, lasting: true, anew: true},
	{event: "trust.current", kind: "server-trust", object: "server", severity: over},
	{event: "server.forgotten", kind: "server-trust", object: "server", severity: over},
	{event: "cert.expiring", kind: "certificate", object: "server", severity: monitor.Warning, lasting: true},
	{event: "cert.renewed", kind: "certificate", object: "server", severity: over},
	{event: "server.forgotten", kind: "certificate", object: "server", severity: over},
	{event: "server.replaced", kind: "certificate", object: "server", severity: over}, // a later master does not know of the one before

	{event: "password.wrong", kind: "password-wrong", object: "from", severity: monitor.Warning, quiet: quietSecret},
	{event: "password.locked", kind: "password-locked", object: "from", severity: monitor.Critical, quiet: quietSecret},
	{event: "token.refused", kind: "token-refused", object: "from", severity: monitor.Warning, quiet: quietSecret},

	{event: "session.hung", kind: "desktop-hung", object: "user", severity: monitor.Warning, lasting: true},
	{event: "session.started", kind: "desktop-hung", object: "user", severity: over},
	{event: "session.ended", kind: "desktop-hung", object: "user", severity: over},
	{event: "session.failed", kind: "desktop-hung", object: "user", severity: over},
	// With a state it has failed and is still there; else it is over.
	{event: "session.failed", kind: "desktop-failed", object: "user", severity: monitor.Warning, lasting: true, when: func(get func(string) any) bool { return get("state") != nil }},
	{event: "session.failed", kind: "desktop-failed", object: "user", severity: over, when: func(get func(string) any) bool { return get("state") == nil }},
	{event: "session.started", kind: "desktop-failed", object: "user", severity: over},
	{event: "session.ended", kind: "desktop-failed", object: "user", severity: over},

	{event: "master.nospace", kind: "master-space", severity: monitor.Critical, lasting: true, anew: true},
	{event: "master.space", kind: "master-space", severity: over},
	{event: "master.readonly", kind: "master-disk", severity: monitor.Critical, lasting: true, anew: true},
	{event: "master.slow", kind: "master-slow", severity: monitor.Warning, quiet: quietSlow},
	{event: "master.restored", kind: "master-restored", severity: monitor.Warning}, // until somebody has looked
	{event: "master.interval", kind: "master-busy", severity: monitor.Warning, lasting: true, anew: true, when: func(get func(string) any) bool { return get("interval") != get("wish") }},
	{event: "master.interval", kind: "master-busy", severity: over, when: func(get func(string) any) bool { return get("interval") == get("wish") }},
	{event: "audit.failed", kind: "master-audit", severity: monitor.Critical, lasting: true, anew: true},
	{event: "audit.kept", kind: "master-audit", severity: over},
}

// byEvent are the rows by their event.
var byEvent = func() map[string][]row {
	m := map[string][]row{}
	for _, r := range rows {
		m[r.event] = append(m[r.event], r)
	}
	return m
}()

// raises is the row that raises a kind of alarm.
func raises(kind string) row {
	for _, r := range rows {
		if r.kind == kind && r.severity != over {
			return r
		}
	}
	return row{}
}

// Signs is what an event says about what can be wrong.
func Signs(typ, text string, pairs []monitor.Pair) (out []Sign) {
	get := func(key string) any {
		for _, p := range pairs {
			if p.Key == key {
				return p.Value
			}
		}
		return nil
	}
	for _, r := range byEvent[typ] {
		if r.when != nil && !r.when(get) {
			continue
		}
		object := master
		if r.object != "" {
			v := get(r.object)
			if v == nil || v == "" {
				continue // it is about nothing
			}
			object = fmt.Sprint(v)
		}
		out = append(out, Sign{Kind: r.kind, Object: object, Over: r.severity == over, Severity: r.severity, Text: text, Lasting: r.lasting, Quiet: r.quiet})
	}
	return out
}

// helps are the words about what helps, by kind; % is the object.
var helps = map[string]string{
	"server-lost":      `"server %" shows it. If that host is powered off for good, "fenceserver %" releases its sessions, so that their users can log in elsewhere`,
	"server-space":     `remove what is not needed in its snap directory, or log users off; "users server=%" lists them`,
	"server-clock":     `set the clock of that host, and let it be kept right by NTP (chrony or systemd-timesyncd)`,
	"server-duplicate": `one of the two machines is a copy of the other: switch the copy off. "server %" shows the one that is connected`,
	"server-refused":   `the text says why; "servers" shows what the master knows`,
	"server-unfit":     `"checks %" shows what is measured and what is wanted; "verdecmd doctor" on that host checks again`,
	"server-trust":     `"server %" shows which version it has; it follows when it is connected`,
	"certificate":      `"server %" shows it; it renews itself while the host is connected; see the log of the satellite there`,
	"password-wrong":   `if it was nobody of yours: who can reach the port of the master? "managerpassword" sets another one`,
	"password-locked":  `it ends by itself; "createtoken" lets a host join without the password`,
	"token-refused":    `"tokens" lists those that are valid, "createtoken" makes one`,
	"desktop-hung":     `"user %" shows it, "abortuser %" ends it by force`,
	"desktop-failed":   `"user %" shows the last lines of its console, "abortuser %" removes it`,
	"master-space":     `make room on the file system of the database (WIN4_STATE_DIR); nothing is to be restarted`,
	"master-disk":      `look at the disk of the database, then restart the master`,
	"master-slow":      `look at what else uses the disk of the database`,
	"master-restored":  `check "servers", "users" and "tokens", then "clearalarm"`,
	"master-busy":      `the master has too little processor time; see "metrics"`,
	"master-audit":     `what was commanded meanwhile is in the log of the master`,
}

func help(kind, object string) string {
	if object == More {
		return ""
	}
	return strings.ReplaceAll(helps[kind], "%", object)
}
