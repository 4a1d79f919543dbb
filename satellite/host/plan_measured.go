package host

import "time"

// Measured is what was found out about a host. What is nil was not looked for.
type Measured struct {
	Survey    Survey
	Satellite bool // it runs desktops, or has been enrolled to
	Master    bool // it is the cluster's master
	// Failed are the checks of which nothing was measured, and why.
	Failed map[string]string

	Answer  *Answer // of the master
	Probe   *Probe
	Names   *Names
	Address *Address
	People  *People
	Locks   *Locks
	Snap    *Snap
	Cards   []Card
	Network string // the bridge that desktops are connected to; empty: none
	Keys    []Secret
	Self    uint32 // the user who runs this program
	Files   uint64 // how many may be open; 0: not looked for
}

// Answer is what the master has told.
type Answer struct {
	Address, Version string
	Offset           time.Duration // of the clock here
	RTT              time.Duration
	Settings         map[string]string
	Servers          []Server // of the cluster
}

// Server is a server of the cluster as the master knows it.
type Server struct {
	ID            uint64
	Name, Address string
}

// Probe is what the hypervisor can do here.
type Probe struct {
	Accelerator string // kvm, tcg; empty: none that the settings allow
	Why         string // it is this one
	Version     string // of QEMU
	Problems    []string
	Failed      string // why QEMU does not start with the accelerator; empty: it does
	Device      string // /dev/kvm with owner, group and mode; empty: it does not matter
	DeviceFault string // what is wrong with it
}

// Names is how names are resolved here.
type Names struct {
	Host    string
	IPs     []string // of Host
	Error   string   // why it has none
	Own     bool     // one of them belongs to this host and is no loopback
	Back    []string // names that the first such address leads back to
	Masters []Name
}

// Name is a name and what it is resolved to.
type Name struct {
	Name  string
	IPs   []string
	Error string
}

// Address is where clients reach the host.
type Address struct {
	Text     string // as it is set
	IPs      []string
	Error    string // why it has none
	Own      bool   // one of them belongs to this host
	Loopback bool   // all of them lead back to who uses them
	Bind     string // why nothing can listen there
	Peer     string // where other satellites reach this one; empty: not known
}

// People is who has a home with a desktop, and who owns it.
type People struct {
	Homes []Home
	// Here are the accounts of this host by name: of the owners of homes, and of
	// those that other hosts have told.
	Here map[string]Account
	Cut  bool // there are more than were looked at
}

// Home is a home directory.
type Home struct {
	Name  string // of its user
	Dir   string
	Owner uint32 // of the directory
	Group uint32 // the same
}

// Locks is how POSIX locks behave where the homes are.
type Locks struct {
	Dir      string // where it was tried
	Excludes bool   // two processes of this host exclude each other
	None     string // why no lock can be had there at all
	Error    string // why it could not be tried
	Peers    []PeerLock
}

// PeerLock is what another host said about a file that is locked here.
type PeerLock struct {
	Name            string
	Found, Excludes bool
	Error           string
}

// Snap is the directory for what desktops write.
type Snap struct {
	Dir           string // empty: none is set
	Kind          string // local, tmpfs, network
	Free, Reserve uint64 // bytes
	Error         string
}

// Card is a network interface.
type Card struct {
	Name string
	Use  string // what goes over it
	Mbit int    // 0: it does not tell
}

// Secret is a file that nobody else may read, or write.
type Secret struct {
	Path string
	Mode uint32
	Mask uint32 // what of it must not be
	UID  uint32
}
