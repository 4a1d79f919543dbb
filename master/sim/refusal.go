package sim

import (
	"regexp"
	"strings"
)

// refusal is one text by which somebody is refused, as the source has it; a
// test compares them with the source.
type refusal struct {
	text string // what is printed with it
	// unreachable says why no history comes there; empty: of many, one does.
	unreachable string
	// rare ones are only missed in very many histories.
	rare bool
}

// refusals are all of the rules: of the master about logins and servers, of
// placement, and of the satellite about logins and links.
var refusals = []refusal{
	// master/cluster
	{text: "no live reservation"},
	{text: "the reservation is being claimed already"},
	{text: "user IDs differ"},
	{text: "try again in a few seconds"},
	{text: "the master has just started and server %d (%s), where %s has session %s, has not reported yet; try again in %d s"},
	{text: "has been silent for %d s"},
	{text: "has not connected since the master started %d s ago"},
	{text: `%s has session %s on server %d (%s), which %s; the desktop may still run there, so no second one is started. If that host is powered off, an administrator says so with "fenceserver %d", or for this user alone with "abortuser %s force"`},
	{text: "; else the session counts as ended in %d s, when the server has surely stopped it"},
	{text: "none of %d servers can take the session"},
	{text: `; "placement %s" shows the other %d`},
	{text: `%s is %s%s; "onlineserver %d" changes that`},
	{text: "%s has not connected since the master started %d s ago; check its host and its network"},
	{text: "%s has had no link for %d s; check its host and its network"},
	{text: `%s reported last %d s ago, more than 3 intervals of %v; "server %d" shows when it reports again`},
	{text: "%s cannot run desktops: %s"},
	{text: `%s; "checks %d" shows all checks, and "verdecmd doctor" on that host makes them anew`, unreachable: "simulated hosts make no checks"},
	{text: `%s has %d of %d sessions and reservations (WIN4_VERDE_MAX_SESSIONS); "users server=%d" shows them`},
	{text: `%s has %s of memory free, %s; "users server=%d" shows who runs there`},
	{text: `%s has promised %s of its %s of memory, %s; "users server=%d" shows to whom`},
	{text: "%s has %s free in %s and wants the reserve of %s%s; free space there or lower WIN4_SNAP_RESERVE"},
	{text: "%s has the features %s; the image requires %s and avoids %s"},
	{text: `no server has the ID %d; "servers" shows the IDs`, unreachable: "only the command placement asks for it"},
	{text: "session %s of %s has ended and its record is being removed; %w"},
	{text: "server %d, where %s has just tried to log in, takes no logins any more; %w"},
	{text: "%w: UID %d is %s in the cluster and %s here; make the accounts the same on all servers", unreachable: "nobody has the number of another user"},
	{text: "%w: %s has UID %d in the cluster and %d here; make the accounts the same on all servers"},
	{text: "server %d runs a session of %s that the master does not own; it is ended or adopted first; %w", rare: true},
	{text: "unknown server", unreachable: "the register is asked first"},
	{text: "this link has been replaced by a newer one", unreachable: "what comes over such a link is not read any more, and calls are refused before"},
	{text: "another machine with the same identity is connected"},
	{text: "the server's link is up"},
	{text: "the server holds sessions", unreachable: forgetWords},
	{text: "the master has just started and the server may still come back", unreachable: forgetWords},
	{text: "server %d (%s), at %s: %w; this one is refused while that one is connected"},
	{text: "server %d (%s) is connected: %w", unreachable: forgetWords},
	{text: "server %d (%s) has %d sessions and reservations: %w", unreachable: forgetWords},
	{text: "server %d (%s): %w"},
	{text: "%s has session %s on server %d: %w"},
	{text: "for %s on server %d (%s): %w; log in again"},
	{text: "for %s on server %d (%s): %w; the place of %s is on server %d", rare: true},
	{text: "%s for %s: %w"},
	{text: "%s for %s expired %v ago: %w; log in again"},
	{text: "server %d (%s) is %s: %w; log in again", unreachable: "a server that is taken offline loses its reservations at the same moment"},
	{text: "%s has no session"},
	{text: `server %d (%s) has asked for %d places on other servers that nobody has taken yet, half of the cluster's memory; they are free again within %d s, or at once by "cancelreservation all"; "reservations" shows them`},
	{text: "server %d (%s), where %s has session %s: %w"},

	// master/placement
	{text: "offline"},
	{text: "draining"},
	{text: "link down"},
	{text: "load report too old"},
	{text: "not able to run desktops"},
	{text: "as many sessions as allowed"},
	{text: "not enough memory"},
	{text: "not enough space for snapshots"},
	{text: "not what the image requires"},

	// satellite/session, satellite/link
	{text: "the cluster master (%s) cannot be reached since %d s, so no new desktop is started here: another one of yours may run elsewhere. Running desktops go on. Last error: %s"},
	{text: "the master has not noted the end of the session before yet; log in again"},
	{text: "the session cannot be noted, so it is not started: %v"},
	{text: `%s. An administrator clears it away with "abortuser %s"`},
	{text: "the desktop was ended before it was ready; log in again"},
	{text: "the desktop could not be started: %s"},
	{text: "%s has no desktop that could be started: %v. An administrator publishes and deploys one (see DESKTOPS in the README)"},
	{text: "the account %.40q cannot log in: its name is longer than %d bytes or not UTF-8", unreachable: "all accounts are good"},
	{text: "the link to the master was replaced meanwhile", unreachable: again},
	{text: "this satellite has had no lease from the master for too long, so no desktop is started here; log in again in a moment", unreachable: again},
	{text: "no new desktop is started here, since nothing makes sure that it ends with its lease (WIN4_VERDE_LOST_SESSIONS=lease): %v; log in again in a moment"},
	{text: "no session %s here"},
	{text: "unknown order %v", unreachable: "this master knows no others"},
	{text: "the master did not answer the hello with a welcome", unreachable: "this one always does"},
	{text: "this master has epoch %d, but epoch %d has been seen: it has been replaced, or its database is an old copy", unreachable: "a master of an earlier epoch refuses the link before"},
	{text: "order of epoch %d refused, epoch %d has been seen", unreachable: "a link is with one master, and that was welcomed"},
	{text: "this satellite does not know this kind of order; install the same version as on the master", unreachable: "this master knows no others"},
	{text: "there is no link to the master", unreachable: again},
}

const again = "the satellite repeats such a login by itself"

const forgetWords = "host.Manager.Forget says it in other words"

// verb is a place in a format where something varies.
var verb = regexp.MustCompile(`%(\.\d+)?[a-z]`)

// fragments of each refusal's text, which must follow each other in a text that
// is made of it.
var fragments = func() (out [][]string) {
	for _, r := range refusals {
		var parts []string
		for _, p := range verb.Split(r.text, -1) {
			if p != "" {
				parts = append(parts, generic(p))
			}
		}
		out = append(out, parts)
	}
	return out
}()

// templates returns the refusals that a generic text is made of.
func templates(text string) (out []string) {
next:
	for i, parts := range fragments {
		rest := text
		for _, p := range parts {
			_, after, ok := strings.Cut(rest, p)
			if !ok {
				continue next
			}
			rest = after
		}
		out = append(out, refusals[i].text)
	}
	return out
}

// generic replaces all numbers of a text by N.
func generic(text string) string {
	b := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if c := text[i]; c < '0' || c > '9' {
			b = append(b, c)
		} else if i == 0 || text[i-1] < '0' || text[i-1] > '9' {
			b = append(b, 'N')
		}
	}
	return string(b)
}
