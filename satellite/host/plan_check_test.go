package host

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// fit is a satellite with which all is well, and twin another one like it.
func fit() Measured {
	return Measured{
		Survey: Survey{Hostname: "sat1", ServerID: 1, Version: "1.0", Arch: "x86_64", BootID: "boot1", PublicAddress: "sat1.example.com", PublicIPs: []string{"192.0.2.11"},
			Home:     Mount{Dir: "/home", Kind: "nfs4", Source: "files:/home", Options: []string{"rw", "local_lock=none"}, Network: true},
			Accounts: []Account{{"alice", 1001, 1001, "/home/alice"}},
			Bridges:  []Bridge{{"br0", []string{"10.0.0.0/24"}, 1500, 7}},
			Settings: map[string]string{"WIN4_DESKTOP_NAME": "win4"}},
		Satellite: true,
		Answer:    &Answer{Address: "master:8442", Version: "1.0", Offset: 10 * time.Millisecond, RTT: time.Millisecond, Settings: map[string]string{"WIN4_DESKTOP_NAME": "win4"}},
		Probe:     &Probe{Accelerator: "kvm", Why: "the processor offers it", Version: "7.2.22", Device: "/dev/kvm has group kvm and mode 0660"},
		Names: &Names{Host: "sat1", IPs: []string{"192.0.2.11"}, Own: true, Back: []string{"sat1.example.com"},
			Masters: []Name{{Name: "master", IPs: []string{"192.0.2.1"}}}},
		Address: &Address{Text: "sat1.example.com", IPs: []string{"192.0.2.11"}, Own: true},
		People:  &People{Homes: []Home{{"alice", "/home/alice", 1001, 1001}}, Here: map[string]Account{"alice": {"alice", 1001, 1001, "/home/alice"}}},
		Locks:   &Locks{Dir: "/home", Excludes: true, Peers: []PeerLock{{Name: "sat2", Found: true, Excludes: true}}},
		Snap:    &Snap{Dir: "/snap", Kind: "local", Free: 100 << 30, Reserve: 2 << 30},
		Cards:   []Card{{"eth0", "to the master", 1000}, {"wlan9", "to clients", 0}},
		Network: "br0",
		Keys:    []Secret{{Path: "/pki/identity.pem", Mode: 0o600, Mask: 0o077}, {Path: "/settings", Mode: 0o644, Mask: 0o022}},
		Files:   20000,
	}
}

func twin() Survey {
	s := fit().Survey
	s.Hostname, s.ServerID, s.BootID, s.PublicIPs = "sat2", 2, "boot2", []string{"192.0.2.12"}
	s.Accounts, s.Bridges = slices.Clone(s.Accounts), slices.Clone(s.Bridges)
	return s
}

// Issue 5, preflight; F-06: what is measured is judged, with the value that is
// wanted and what to do. All but the named check pass.
func TestCheck(t *testing.T) {
	type m = *Measured
	type o = *Survey
	tests := map[string]struct {
		own   func(m)
		other func(o)
		check string
		level Level
		hard  bool
		has   string // in the measured value, the wanted one or the fix
	}{
		"all is well": {},

		"the master does not answer":           {own: func(x m) { x.Answer, x.Failed = nil, map[string]string{checkMaster: "nothing listens there"} }, check: checkMaster, level: Fail, has: "nothing listens"},
		"another version than the master's":    {own: func(x m) { x.Answer.Version = "1.1" }, check: checkVersion, level: Warn, has: "1.1, as the master has"},
		"another version than another host's":  {other: func(x o) { x.Version = "0.9" }, check: checkVersion, level: Warn, has: "0.9 on sat2"},
		"another architecture":                 {other: func(x o) { x.Arch = "aarch64" }, check: checkArch, level: Fail, has: "aarch64 on sat2"},
		"V-05: no QEMU":                        {own: func(x m) { x.Probe.Problems = []string{"qemu is missing: apt install qemu-system-x86"} }, check: checkQEMU, level: Fail, hard: true, has: "apt install"},
		"V-19: no virtualisation":              {own: func(x m) { x.Probe.Accelerator, x.Probe.Why = "", "no vmx" }, check: checkAccel, level: Fail, hard: true, has: "no vmx"},
		"V-19: QEMU does not start with it":    {own: func(x m) { x.Probe.Failed = "device busy" }, check: checkAccel, level: Fail, hard: true, has: "device busy"},
		"emulated":                             {own: func(x m) { x.Probe.Accelerator = "tcg" }, check: checkAccel, level: Warn, has: "slow"},
		"the hypervisor does not answer":       {own: func(x m) { x.Probe, x.Failed = nil, map[string]string{checkAccel: "no answer within 5 s"} }, check: checkAccel, level: Fail, has: "no answer within 5 s"},
		"V-19: users cannot open /dev/kvm":     {own: func(x m) { x.Probe.DeviceFault = "/dev/kvm has group root and mode 0600" }, check: checkDevice, level: Fail, hard: true, has: "chgrp kvm"},
		"V-20: another number on another host": {other: func(x o) { x.Accounts[0].UID = 1002 }, check: checkAccounts, level: Fail, has: "alice is 1001:1001 here and 1002:1001 on sat2"},
		"V-20: another group":                  {other: func(x o) { x.Accounts[0].GID = 100 }, check: checkAccounts, level: Fail, has: "1001:100 on sat2"},
		"V-20: another home":                   {other: func(x o) { x.Accounts[0].Home = "/h/alice" }, check: checkAccounts, level: Fail, has: "home /home/alice here and /h/alice on sat2"},
		"V-20: a user that this host lacks":    {other: func(x o) { x.Accounts[0] = Account{"bob", 1002, 1002, "/home/bob"} }, check: checkAccounts, level: Fail, has: "bob (1002 on sat2) is not known here"},
		"V-43: the homes have other owners":    {own: func(x m) { x.People.Homes[0].Owner = 1005 }, check: checkAccounts, level: Fail, has: "alice has UID 1001 here, and /home/alice belongs to 1005"},
		"V-20: the homes and another host say that this one is wrong": {own: func(x m) { x.People.Homes[0].Owner = 1005 }, other: func(x o) { x.Accounts[0].UID = 1005 },
			check: checkAccounts, level: Fail, hard: true, has: "1005:1001 on sat2"},
		"V-43: a home of nobody":       {own: func(x m) { x.People.Homes = append(x.People.Homes, Home{"zoe", "/home/zoe", 1009, 1009}) }, check: checkAccounts, level: Fail, has: "/home/zoe has a desktop and belongs to UID 1009"},
		"the directory server is dead": {own: func(x m) { x.People, x.Failed = nil, map[string]string{checkAccounts: "no answer within 30 s"} }, check: checkAccounts, level: Fail, has: "LDAP"},

		"the clock a little off":       {own: func(x m) { x.Answer.Offset = -1100 * time.Millisecond }, check: checkClock, level: Warn, has: "-1.100 s"},
		"the clock off":                {own: func(x m) { x.Answer.Offset = 6 * time.Second }, check: checkClock, level: Fail, has: "NTP"},
		"the clock, not known exactly": {own: func(x m) { x.Answer.Offset, x.Answer.RTT = 1100*time.Millisecond, 400*time.Millisecond }},

		"the host's name is not known":                            {own: func(x m) { x.Names.Error = "no such name" }, check: checkNames, level: Fail, has: "sat1, this host: no such name"},
		"the name leads to itself":                                {own: func(x m) { x.Names.Own, x.Names.IPs = false, []string{"127.0.1.1"} }, check: checkNames, level: Warn, has: "127.0.1.1"},
		"the name does not lead back":                             {own: func(x m) { x.Names.Back = []string{"old.example.com"} }, check: checkNames, level: Warn, has: "back to old.example.com"},
		"the master's name is not known":                          {own: func(x m) { x.Names.Masters[0].Error = "no answer within 5 s" }, check: checkNames, level: Fail, has: "master, the master: no answer"},
		"no address for clients":                                  {own: func(x m) { x.Address.Error = "no such name" }, check: checkAddress, level: Fail, has: "WIN4_VERDE_PUBADDR"},
		"the address is another host's too":                       {other: func(x o) { x.PublicIPs = []string{"192.0.2.11"} }, check: checkAddress, level: Fail, has: "the address of sat2"},
		"the address is another server's":                         {own: func(x m) { x.Answer.Servers = []Server{{1, "sat1", "192.0.2.11"}, {7, "sat7", "192.0.2.11"}} }, check: checkAddress, level: Fail, has: "the address of sat7"},
		"one computer may share it":                               {own: func(x m) { x.Address.Loopback, x.Answer.Servers = true, []Server{{2, "sat2", "192.0.2.11"}} }, other: func(x o) { x.BootID, x.PublicIPs = "boot1", []string{"192.0.2.11"} }},
		"clients are led to themselves, the others are elsewhere": {own: func(x m) { x.Address.Loopback, x.Answer.Servers = true, []Server{{7, "sat7", "192.0.2.17"}} }, other: func(x o) { x.BootID = "boot1" }, check: checkAddress, level: Fail, has: "to itself"},
		"the others are here, too":                                {own: func(x m) { x.Address.Loopback, x.Answer.Servers = true, []Server{{7, "sat7", "127.0.0.9"}} }, other: func(x o) { x.BootID = "boot1" }},
		"behind a router":                                         {own: func(x m) { x.Address.Own = false }, check: checkAddress, level: Warn, has: "NAT"},
		"nothing can listen":                                      {own: func(x m) { x.Address.Bind = "cannot assign requested address" }, check: checkAddress, level: Fail, has: "cannot assign"},
		"clients are led to themselves":                           {own: func(x m) { x.Address.Loopback = true }, check: checkAddress, level: Fail, has: "to itself"},

		"V-21: another export":         {other: func(x o) { x.Home.Source = "old:/home" }, check: checkHomes, level: Fail, has: "sat2 has old:/home (nfs4) at /home"},
		"V-21: at another place":       {other: func(x o) { x.Home.Dir = "/export/home" }, check: checkHomes, level: Fail, has: "at /export/home"},
		"V-21: on a disk here":         {own: func(x m) { x.Survey.Home.Network = false }, check: checkHomes, level: Fail, has: "a disk of this host alone"},
		"V-21: one computer, one disk": {own: func(x m) { x.Survey.Home.Network = false }, other: func(x o) { x.BootID, x.Home.Network = "boot1", false }},
		"V-22: nolock":                 {own: func(x m) { x.Survey.Home.Options = []string{"rw", "nolock"} }, check: checkLocks, level: Fail, hard: true, has: "mounted with nolock"},
		"V-22: they do not exclude":    {own: func(x m) { x.Locks.Excludes = false }, check: checkLocks, level: Fail, hard: true, has: "two processes hold the same lock"},
		"V-22: no lock service":        {own: func(x m) { x.Locks.None = "no locks available" }, check: checkLocks, level: Fail, hard: true, has: "rpc.statd"},
		"V-22: not between hosts":      {own: func(x m) { x.Locks.Peers[0].Excludes = false }, check: checkLocks, level: Fail, has: "sat2 gets the lock"},
		"V-22: another file system":    {own: func(x m) { x.Locks.Peers[0].Found = false }, check: checkLocks, level: Fail, has: "sat2 does not find the file"},
		"no peer answers":              {own: func(x m) { x.Locks.Peers[0].Error = "nothing listens" }, check: checkLocks, level: Warn, has: "sat2: nothing listens"},
		"locks could not be tried":     {own: func(x m) { x.Locks.Error = "permission denied" }, check: checkLocks, level: Warn, has: "no_root_squash"},
		"OCFS2 alone":                  {own: func(x m) { x.Survey.Home.Kind, x.Locks.Peers = "ocfs2", nil }, other: func(x o) { x.Home.Kind = "ocfs2" }, check: checkLocks, level: Warn, has: "o2cb"},
		"the file server is dead":      {own: func(x m) { x.Survey.Home, x.Failed = Mount{}, map[string]string{checkHomes: "no answer within 5 s"} }, check: checkHomes, level: Fail, has: "file server"},
		"V-37: no snap directory":      {own: func(x m) { x.Snap.Dir = "" }, check: checkSnap, level: Warn, has: "WIN4_SNAP_DIR is not set"},
		"the snap directory is gone":   {own: func(x m) { x.Snap.Error = "/snap: no such file" }, check: checkSnap, level: Fail, has: "make the directory"},
		"V-37: in memory":              {own: func(x m) { x.Snap.Kind = "tmpfs" }, check: checkSnap, level: Warn, has: "tmpfs"},
		"V-38: no room":                {own: func(x m) { x.Snap.Free = 2 << 30 }, check: checkSnap, level: Fail, has: "2048 MiB free, reserve 2048 MiB"},
		"V-38: soon no room":           {own: func(x m) { x.Snap.Free = 3 << 30 }, check: checkSnap, level: Warn, has: "soon"},
		"V-15: a slow card":            {own: func(x m) { x.Cards[0].Mbit = 100 }, check: checkSpeed, level: Warn, has: "eth0 (to the master) 100 Mbit/s"},

		"F-07: the bridge is missing":  {own: func(x m) { x.Network = "br9" }, check: checkBridges, level: Fail, hard: true, has: "ip link add br9 type bridge"},
		"F-07: another subnet":         {other: func(x o) { x.Bridges[0].Subnets = []string{"10.9.0.0/24"} }, check: checkBridges, level: Warn, has: "10.9.0.0/24 on sat2"},
		"F-07: another MTU":            {other: func(x o) { x.Bridges[0].MTU = 9000 }, check: checkBridges, level: Warn, has: "MTU 1500 here and 9000 on sat2"},
		"F-07: another VLAN":           {other: func(x o) { x.Bridges[0].VLAN = 0 }, check: checkBridges, level: Warn, has: "VLAN 7 here and 0 on sat2"},
		"F-07: another host has more":  {other: func(x o) { x.Bridges = append(x.Bridges, Bridge{Name: "br1"}) }, check: checkBridges, level: Warn, has: "sat2 has br1, this host has not"},
		"a program's bridge is no one": {other: func(x o) { x.Bridges = append(x.Bridges, Bridge{Name: "docker0"}, Bridge{Name: "br-0123456789ab"}) }},

		"F-06: the master has another setting":   {own: func(x m) { x.Answer.Settings = map[string]string{"WIN4_DESKTOP_NAME": "pc"} }, check: checkSettings, level: Fail, has: "WIN4_DESKTOP_NAME is win4 here and pc on the master"},
		"F-06: another host has another setting": {other: func(x o) { x.Settings = map[string]string{"WIN4_DESKTOP_NAME": ""} }, check: checkSettings, level: Fail, has: "empty on sat2"},
		"a setting that another version lacks":   {other: func(x o) { x.Settings = nil }},
		"V-32: a key that others can read":       {own: func(x m) { x.Keys[0].Mode = 0o640 }, check: checkKeys, level: Fail, has: "chmod 0600 /pki/identity.pem"},
		"V-32: a key of somebody else":           {own: func(x m) { x.Keys[0].UID = 1001 }, check: checkKeys, level: Fail, has: "chown root:root"},
		"V-32: settings that others can write":   {own: func(x m) { x.Keys[1].Mode = 0o666 }, check: checkKeys, level: Fail, has: "chmod 0644 /settings"},
		"few open files":                         {own: func(x m) { x.Files = 1024 }, check: checkFiles, level: Warn, has: "LimitNOFILE"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			own, other := fit(), twin()
			if tt.own != nil {
				tt.own(&own)
			}
			if tt.other != nil {
				tt.other(&other)
			}
			found := false
			for _, f := range Check(own, []Survey{own.Survey, other}) {
				switch {
				case f.Check != tt.check && f.Level != Pass:
					t.Errorf("got %s, want it to pass", f)
				case f.Check != tt.check:
				case f.Level != tt.level || f.Hard != tt.hard || !strings.Contains(fmt.Sprint(f.Measured, f.Wanted, f.Fix), tt.has) || f.Fix == "" || f.Wanted == "":
					t.Errorf("got %+v, want %s, hard %v, with %q", f, tt.level, tt.hard, tt.has)
				default:
					found = true
				}
			}
			if !found && tt.check != "" {
				t.Errorf("nothing about %s", tt.check)
			}
		})
	}
}
