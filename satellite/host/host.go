// Package host is what makes a computer one of a cluster, seen from that
// computer: whether it is fit to be one and how it compares with the others; how
// it is registered at the master and keeps its certificate from ending; and that
// the cluster has given its place to another machine.
//
// Files named plan hold the rules and touch nothing; what they judge is measured
// in survey.go and the files of its parts. Every measurement may meet a file
// server or a name server that is dead, so each has its time and none is waited
// for longer; see within. Nothing secret is sent before the master has proved to
// belong to the authority whose fingerprint is in the token or was confirmed by a
// person, and the key is made here and never leaves. Files of keys are replaced
// as a whole: a crash leaves the old certificate with its key or the new one, and
// a registration whose answer was lost is repeated with the same key.
package host

import "strings"

// Level is what a check came to.
type Level string

// Levels of findings.
const (
	Pass Level = "pass"
	Warn Level = "warn"
	Fail Level = "fail"
)

// Finding is one line of the checks.
type Finding struct {
	Check    string `json:"check"` // one word that stays the same: accelerator, clock, ...
	Level    Level  `json:"level"`
	Measured string `json:"measured"`
	Wanted   string `json:"wanted"`
	Fix      string `json:"fix"`  // what to do; empty where it passes
	Hard     bool   `json:"hard"` // a fail that keeps desktops away from this host
}

// Survey is what a host is measured to be, for comparison with others.
type Survey struct {
	Hostname      string            `json:"hostname"`
	ServerID      uint64            `json:"server_id"` // 0: not known
	Version       string            `json:"version"`
	Arch          string            `json:"arch"`    // as uname -m
	BootID        string            `json:"boot_id"` // hosts with the same one are one computer
	PublicAddress string            `json:"public_address"`
	PublicIPs     []string          `json:"public_ips"` // what that is resolved to
	PeerAddress   string            `json:"peer_address"`
	NowMillis     int64             `json:"now_unix_ms"`
	Home          Mount             `json:"home"`
	Accounts      []Account         `json:"accounts"` // owners of homes with a desktop, by name
	Bridges       []Bridge          `json:"bridges"`
	Settings      map[string]string `json:"settings"` // those that must be the same everywhere
}

// Mount is the mounted file system that a directory is on.
type Mount struct {
	Dir     string   `json:"dir"`
	Kind    string   `json:"kind"`    // ext4, nfs4, ...
	Source  string   `json:"source"`  // server:export, device
	Options []string `json:"options"` // of the mount and of the file system
	Network bool     `json:"network"` // of another computer, or shared with others
}

// Account is a user as the host's accounts have it.
type Account struct {
	Name string `json:"name"`
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
	Home string `json:"home"`
}

// Bridge is a network bridge.
type Bridge struct {
	Name    string   `json:"name"`
	Subnets []string `json:"subnets"` // address/bits of the networks, sorted
	MTU     uint32   `json:"mtu"`
	VLAN    uint32   `json:"vlan"` // 0: none
}

// Result is what the checks of a host came to. It is the document that
// "verdecmd doctor --json" writes and --against reads.
type Result struct {
	Findings []Finding `json:"findings"`
	Survey   Survey    `json:"survey"`
}

// Worst is the worst level among the findings.
func (r Result) Worst() Level {
	worst := Pass
	for _, f := range r.Findings {
		if f.Level == Fail || f.Level == Warn && worst == Pass {
			worst = f.Level
		}
	}
	return worst
}

// Hard are the checks that keep desktops away from this host.
func (r Result) Hard() []Finding {
	var out []Finding
	for _, f := range r.Findings {
		if f.Hard && f.Level == Fail {
			out = append(out, f)
		}
	}
	return out
}

// listed joins at most a few texts.
func listed(all []string) string {
	const most = 3
	text := strings.Join(all[:min(len(all), most)], "; ")
	if n := len(all) - most; n > 0 {
		text += "; and " + count(n, "more", "more")
	}
	return text
}
