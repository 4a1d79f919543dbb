package settings

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// Names of all settings of settings.global.
const (
	ClusterMaster   = "WIN4_VERDE_CLUSTER_MASTER"
	CMAddr          = "WIN4_VERDE_CMADDR"
	Listen          = "WIN4_VERDE_LISTEN"
	PubAddr         = "WIN4_VERDE_PUBADDR"
	PeerListen      = "WIN4_PEER_LISTEN"
	MigrationAddr   = "WIN4_MIGRATION_ADDR"
	Relocation      = "WIN4_RELOCATION_SERVER"
	RelocationHosts = "WIN4_RELOCATION_HOSTS_ALLOW"
	SnapDir         = "WIN4_SNAP_DIR"
	SnapReserve     = "WIN4_SNAP_RESERVE"
	MaxSessions     = "WIN4_VERDE_MAX_SESSIONS"
	DesktopName     = "WIN4_DESKTOP_NAME"
	MemoryMax       = "WIN4_MEMORY_MAX"
	CPUsMax         = "WIN4_CPUS_MAX"
	Accel           = "WIN4_ACCEL"
	Network         = "WIN4_NETWORK"
	QEMU            = "WIN4_QEMU"
	StatsInterval   = "WIN4_VERDE_STATS_INTERVAL"
	MasterLost      = "WIN4_VERDE_MASTER_LOST"
	ReservationTime = "WIN4_VERDE_RESERVATION_TIMEOUT"
	StartTimeout    = "WIN4_VERDE_START_TIMEOUT"
	HungAfter       = "WIN4_VERDE_HUNG_AFTER"
	LogoffWait      = "VERDECMD_LOGOFF_WAIT"
	ShutdownWait    = "VERDECMD_SHUTDOWN_WAIT"
	StandaloneLogin = "WIN4_VERDE_STANDALONE_LOGIN"
	LostSessions    = "WIN4_VERDE_LOST_SESSIONS"
	LeaseSelf       = "WIN4_VERDE_LEASE_SELF"
	LeaseReplace    = "WIN4_VERDE_LEASE_REPLACE"
	SSHKeys         = "WIN4_SSH_KEYS"
	SSHDir          = "WIN4_SSH_DIR"
	RejoinDays      = "WIN4_VERDE_REJOIN_DAYS"
	SatSocket       = "WIN4_VERDE_SAT_SOCKET"
	Socket          = "VERDECMD_SOCKET"
	ConnUID         = "VERDECMD_CONN_UID"
	ConnGID         = "VERDECMD_CONN_GID"
	ConnMax         = "VERDECMD_CONN_MAX"
	ConnLinger      = "VERDECMD_CONN_LINGER"
	ConnIdle        = "VERDECMD_CONN_IDLE"
	ConnAdmins      = "VERDECMD_CONN_ADMINS"
	ConnOperators   = "VERDECMD_CONN_OPERATORS"
	ConnViewers     = "VERDECMD_CONN_VIEWERS"
	ConnLevel       = "VERDECMD_CONN_LEVEL"
	LogLevel        = "VERDECMD_LOGLEVEL"
	StateDir        = "WIN4_STATE_DIR"
	PKIDir          = "WIN4_VERDE_PKI_DIR"
	PasswdFile      = "WIN4_PASSWD_FILE"
)

const (
	// DefaultPath is where the settings are unless --settings says otherwise.
	DefaultPath = "/var/lib/win4linpro/settings.global"
	// DefaultStateDir is the default of WIN4_STATE_DIR.
	DefaultStateDir = "/var/lib/win4linpro"
	// MasterPort is the master's port where an address names none.
	MasterPort = 8442
	// PeerPort is a satellite's port for other satellites where an address
	// names none.
	PeerPort = 8444

	maxSocketPath = 107 // bytes that fit into a Unix socket's address
)

// Global returns the table of settings.global. The caller may keep it but must
// not change it.
func Global() Table { return global }

var global = Table{
	{Name: ClusterMaster, Kind: Bool, Default: "no", Scope: Master, Restart: true,
		Example: "yes", Text: "Whether this computer is the master of the cluster. The service ends at once, and is not started again, where it says no."},
	{Name: CMAddr, Kind: Addresses, Scope: Both, Restart: true,
		Example: "master.example.com", Text: "Where the master is: name or IP address, optionally with a port (8442 by default), for example master.example.com or [2001:db8::5]:8442. Several, with commas between them, are tried in turn."},
	{Name: Listen, Kind: Address, Scope: Master, Restart: true,
		Example: "192.0.2.10", Text: "Address and port where the master waits for satellites: an IP address, a name, or a network interface such as eth1, which stands for its first global address and lets nobody in who comes over another one. Empty: the address of WIN4_VERDE_CMADDR that belongs to this computer, else 127.0.0.1; port 8442. All networks are listened on only where it says 0.0.0.0 or [::]."},
	{Name: PubAddr, Kind: Address, Scope: Satellite, Restart: true, Check: checkReachable,
		Example: "sat1.example.com", Text: "Name or IP address by which clients reach this satellite, or a network interface, which stands for its first global address. Empty: its host name."},
	{Name: PeerListen, Kind: Address, Scope: Satellite, Restart: true,
		Example: "eth1", Text: "Address and port where this satellite waits for other satellites, written as in WIN4_VERDE_LISTEN. Empty: the address from which it reaches the master; port 8444."},
	{Name: MigrationAddr, Kind: Address, Scope: Satellite, Restart: true,
		Example: "192.0.2.130", Text: "Address and port where other satellites send desktops and images to this one, for a network of their own; written as in WIN4_VERDE_LISTEN. Empty: as in WIN4_PEER_LISTEN; port 8444."},
	{Name: Relocation, Kind: Bool, Default: "no", Scope: Satellite, Restart: true,
		Example: "yes", Text: "Whether other satellites may move running desktops to this one. Who may is in WIN4_RELOCATION_HOSTS_ALLOW."},
	{Name: RelocationHosts, Kind: Words, Scope: Satellite, Restart: true, Check: checkHosts,
		Example: "@cluster", Text: "From which satellites running desktops may be moved to this one: regular expressions for their names with blanks between them, each for the whole name, such as sat[1-4] or rack2-.*; @cluster is every registered one. Only registered satellites are ever asked about. Empty: none."},

	{Name: SnapDir, Kind: Path, Scope: Satellite, Restart: true,
		Example: "/var/lib/win4linpro/snap", Text: "Directory for what desktops write while they run; a fast local disk is best. Empty: the users' home directories, usually on network storage and slower."},
	{Name: SnapReserve, Kind: MiB, Default: "2048", Max: 1 << 30, Scope: Satellite, Restart: true,
		Text: "Space in MiB that stays free there: with less, no new sessions come to this satellite."},
	{Name: MaxSessions, Kind: Integer, Default: "0", Max: 100000, Scope: Satellite, Restart: true,
		Example: "40", Text: "How many sessions this satellite may have at the same time. 0: as many as fit."},

	{Name: DesktopName, Kind: Text, Default: "win4", Scope: Both, Restart: true, Same: true, Check: checkFileName,
		Text: "Name of a user's desktop: the link of that name in the home directory leads to the base image. Must be the same on all computers of the cluster."},
	{Name: MemoryMax, Kind: MiB, Default: "0", Max: 1 << 30, Scope: Both, Restart: true,
		Example: "8G", Text: "Most memory in MiB that one desktop gets, whatever its desktop.conf says. 0: no limit."},
	{Name: CPUsMax, Kind: Integer, Default: "0", Max: 1024, Scope: Both, Restart: true,
		Example: "4", Text: "Most processors that one desktop gets, whatever its desktop.conf says. 0: no limit."},
	{Name: Accel, Kind: Choice, Default: "kvm", Choices: []string{"kvm", "auto", "tcg"}, Scope: Satellite, Restart: true,
		Example: "auto", Text: "How desktops are run. kvm: by the processor, and not at all where it cannot. tcg: emulated, slow, works everywhere. auto: kvm where it works, else tcg."},
	{Name: Network, Kind: Text, Default: "user", Scope: Satellite, Restart: true, Check: checkNetwork,
		Example: "bridge:br0", Text: "Network of the desktops. user: behind the address of the satellite. bridge:NAME: connected to the bridge of that name."},
	{Name: QEMU, Kind: Text, Default: "qemu-system-x86_64", Scope: Satellite, Restart: true, Check: checkProgram,
		Example: "/opt/qemu/bin/qemu-system-x86_64", Text: "The program that runs desktops: a name that is looked up in PATH, or an absolute path."},

	{Name: StatsInterval, Kind: Duration, Default: "3", Min: 1, Max: 60, Scope: Master,
		Text: "Seconds between two load reports of a satellite. The master tells it to all satellites. While it cannot keep up, because reports come late or its processors are busy, it asks for them less often by itself, up to every 15 seconds, and says so in the log, by the event master.interval and in the reply of hello. With lease (WIN4_VERDE_LOST_SESSIONS) at most a quarter of WIN4_VERDE_LEASE_SELF, since reports renew the lease."},
	{Name: MasterLost, Kind: Duration, Default: "15", Min: 5, Max: 300, Scope: Satellite, Restart: true,
		Text: "Seconds without the master after which a satellite refuses new logins."},
	{Name: ReservationTime, Kind: Duration, Default: "60", Min: 5, Max: 600, Scope: Master,
		Text: "Seconds that a place is kept for a user who was referred to a satellite."},
	{Name: StartTimeout, Kind: Duration, Default: "180", Min: 5, Max: 3600, Scope: Satellite, Restart: true,
		Text: "Seconds that a desktop has to start. One that takes longer counts as failed."},
	{Name: HungAfter, Kind: Duration, Default: "15", Min: 2, Max: 600, Scope: Satellite, Restart: true,
		Text: "Seconds without an answer of its hypervisor after which a desktop counts as hung."},
	{Name: LogoffWait, Kind: Duration, Default: "120", Min: 1, Max: 86400, Scope: Master,
		Example: "5m", Text: "Seconds that logoffuser gives a desktop to shut down before it is aborted."},
	{Name: ShutdownWait, Kind: Duration, Default: "120", Min: 1, Max: 86400, Scope: Master,
		Example: "5m", Text: "Seconds that shutdownuser waits for a desktop to shut down."},

	{Name: StandaloneLogin, Kind: Bool, Default: "no", Scope: Satellite, Restart: true,
		Text: "Whether a satellite lets users start new desktops while it cannot reach the master. The same user may then have two desktops on two satellites."},
	{Name: LostSessions, Kind: Choice, Default: "hold", Choices: []string{"hold", "lease"}, Scope: Both, Restart: true, Same: true,
		Example: "lease", Text: "What becomes of sessions on a satellite that is silent. hold: their users wait until it is back or an administrator affirms that it is powered off. lease: the satellite ends its desktops by itself after WIN4_VERDE_LEASE_SELF, and the master lets the users in elsewhere after WIN4_VERDE_LEASE_REPLACE. Should the satellite's program be killed or stopped, its guardian, a small process beside it, ends them; a satellite that is not started again within WIN4_VERDE_LEASE_SELF loses its desktops therefore. Must be the same on all computers of the cluster."},
	{Name: LeaseSelf, Kind: Duration, Default: "60", Min: 20, Max: 86400, Scope: Both, Restart: true, Same: true,
		Text: "With lease: seconds without the master after which a satellite ends its desktops. Must be the same on all computers of the cluster."},
	{Name: LeaseReplace, Kind: Duration, Default: "96", Min: 52, Max: 172800, Scope: Master, Restart: true,
		Text: "With lease: seconds of silence after which the master gives the users of a satellite a new session elsewhere. At least 1.1 times WIN4_VERDE_LEASE_SELF and 30 seconds more."},

	{Name: SSHKeys, Kind: Bool, Default: "no", Scope: Satellite, Restart: true,
		Example: "yes", Text: "Whether root of this satellite and root of the others get to each other by SSH. yes: root gets a key where it has none (id_ed25519), and the keys of all satellites that say so too stand in authorized_keys and known_hosts, between two lines that begin with # BEGIN verdecmd and # END verdecmd; all other lines stay as they are. Whoever is root on one of them is root on all then. no: those lines are removed."},
	{Name: SSHDir, Kind: Path, Default: "/root/.ssh", Scope: Satellite, Restart: true,
		Text: "Directory of these files."},

	{Name: RejoinDays, Kind: Integer, Default: "90", Max: 365, Scope: Master, Restart: true,
		Example: "30", Text: "Days after the end of its certificate in which a satellite that was off for long may come back by itself. 0: never. After that an administrator decides, by replaceserver."},

	{Name: SatSocket, Kind: Path, Default: "/var/run/win4linpro/satellite-socket", Max: maxSocketPath, Scope: Satellite, Restart: true,
		Text: "Socket of the satellite where the users of this computer log in with the command win4."},
	{Name: Socket, Kind: Path, Default: "/var/run/win4linpro/verdecmd-socket", Max: maxSocketPath, Scope: Master, Restart: true,
		Text: "Socket of the master where administrators type commands. Its lock file verdecmd.lock is in the same directory."},
	{Name: ConnUID, Kind: Text, Default: "0", Scope: Master, Restart: true, Check: checkAccount,
		Text: "User, by name or number, who owns that socket."},
	{Name: ConnGID, Kind: Text, Default: "0", Scope: Master, Restart: true, Check: checkAccount,
		Example: "admin", Text: "Group, by name or number, that owns that socket: its members may connect."},
	{Name: ConnMax, Kind: Integer, Default: "64", Min: 9, Max: 4096, Scope: Master,
		Text: "How many connections the socket serves at the same time. The last 8 are kept for root."},
	{Name: ConnLinger, Kind: Duration, Default: "2", Max: 60, Scope: Master,
		Text: "Seconds of silence after the last answer before a connection that only sent commands is closed. 0: it is not closed."},
	{Name: ConnIdle, Kind: Duration, Default: "0", Max: 604800, Scope: Master,
		Text: "Seconds of silence before an interactive connection is closed. 0: it is not closed."},
	{Name: ConnAdmins, Kind: Words, Scope: Master,
		Example: "alice @admins", Text: "Who may do everything: login names, numbers of users, @group, with blanks between them. Root always may."},
	{Name: ConnOperators, Kind: Words, Scope: Master,
		Example: "@helpdesk", Text: "Who may steer servers and sessions, written as in VERDECMD_CONN_ADMINS."},
	{Name: ConnViewers, Kind: Words, Scope: Master,
		Example: "monitoring", Text: "Who may look but change nothing, written as in VERDECMD_CONN_ADMINS."},
	{Name: ConnLevel, Kind: Choice, Default: "admin", Choices: []string{"admin", "operator", "viewer"}, Scope: Master,
		Example: "viewer", Text: "What everybody else may do who can open the socket."},

	{Name: LogLevel, Kind: Choice, Default: "info", Choices: []string{"error", "warn", "info", "debug"}, Scope: Both,
		Text: "How much is logged."},
	{Name: StateDir, Kind: Path, Default: DefaultStateDir, Scope: Both, Restart: true,
		Text: "Directory for what must survive a restart: the master's database in master/, the satellite's journal in satellite/, keys in pki/."},
	{Name: PKIDir, Kind: Path, Scope: Both, Restart: true,
		Example: "/etc/verdecmd/pki", Text: "Directory of keys and certificates. Empty: pki in WIN4_STATE_DIR."},
	{Name: PasswdFile, Kind: Path, Scope: Both, Restart: true,
		Example: "/srv/demo/passwd", Text: "For demonstrations and tests: a file in the format of /etc/passwd that takes the place of the system's users; a file named group beside it is used too. Refused with the default WIN4_STATE_DIR."},
}

// checkReachable refuses the addresses that mean all interfaces: one can listen
// there, but nobody can connect to them.
func checkReachable(value string) error {
	host, _, err := SplitAddress(value, 0)
	if err != nil {
		return err
	}
	if unspecified(host) {
		return errors.New("wants an address to which others can connect, not one that means all interfaces")
	}
	return nil
}

// checkFileName accepts what can be one name in a directory and is not hidden.
func checkFileName(value string) error {
	if value == "" || strings.HasPrefix(value, ".") || strings.HasPrefix(value, "-") || strings.Contains(value, "/") || len(value) > 64 {
		return errors.New("wants the name of a file in the home directory, without / and without a leading . or -")
	}
	return nil
}

func checkNetwork(value string) error {
	if value == "user" {
		return nil
	}
	bridge, ok := strings.CutPrefix(value, "bridge:")
	// 15 bytes is what Linux allows for the name of a network interface.
	if !ok || bridge == "" || len(bridge) > 15 || bridge == "." || bridge == ".." || strings.ContainsAny(bridge, "/: \t,") {
		return errors.New("wants user, or bridge:NAME with the name of a bridge, for example bridge:br0")
	}
	return nil
}

func checkProgram(value string) error {
	if value == "" || strings.Contains(value, "/") && !filepath.IsAbs(value) {
		return errors.New("wants the name of a program or its absolute path")
	}
	return nil
}

// checkAccount accepts the name or number of a user or group. Whether there is
// one is asked by who uses it.
func checkAccount(value string) error {
	if value == "" || strings.ContainsAny(value, " \t:,/") || strings.HasPrefix(value, "-") {
		return fmt.Errorf("wants one name or number")
	}
	return nil
}
