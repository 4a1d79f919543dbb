package planted

// Checkers that are to find a bug.
const (
	Simulator = "simulator" // verdecmd simulate --check
	Chaos     = "chaos"     // the real programs under faults
	Images    = "images"    // crash images and damaged files of the database
)

// Described is a bug with what it does.
type Described struct {
	Name Name
	What string // as its author might have got it wrong
	By   string // the checker that finds it
}

// Bugs are all bugs that can be planted, by the part of the program.
func Bugs() []Described {
	return []Described{
		{"late-expiry", "reservations expire one report interval too late", Simulator},
		{"double-return", "a reservation that ends gives its place back twice", Simulator},
		{"reservation-not-charged", "placement does not see the reservation that was just made", Simulator},
		{"claimed-twice", "a reservation that is being claimed can be claimed again", Simulator},
		{"claim-not-voided", "a claim becomes a session though its link has ended meanwhile", Simulator},
		{"number-twice", "session numbers are not set aside before they are given", Simulator},
		{"old-list-counts", "a list made before a session was claimed says that it is gone", Simulator},
		{"silent-is-gone", "sessions of a server that is silent for a while count as ended", Simulator},
		{"short-lease", "sessions of a silent server are released at half the lease", Simulator},

		{"answer-before-commit", "a claim is answered before it is on the disk", Simulator},
		{"release-forgotten", "an end that the disk refused is not tried again", Simulator},
		{"offline-not-stored", "offlineserver is answered and not stored", Simulator},
		{"journal-not-compared", "a satellite with another journal is believed", Simulator},

		{"alarm-shown-before-stored", "an alarm is shown and announced before it is on the disk", Simulator},
		{"alarm-clear-overtakes", "that an alarm is over is told at once, while its raise still waits for the disk", Simulator},
		{"alarm-not-tried-again", "an alarm that the disk refused is forgotten", Simulator},

		{"no-epoch-check", "a satellite obeys a master of an older epoch", Simulator},
		{"epoch-not-noted", "a satellite forgets the newest epoch when it restarts", Simulator},
		{"lease-forgotten", "a satellite that starts again forgets that its desktops have a lease", Simulator},
		{"guardian-early", "a guardian ends desktops before their lease is over", Simulator},
		{"guardian-asleep", "a guardian does nothing when a lease is over", Simulator},
		{"start-before-journal", "a desktop is started before the journal knows of it", Simulator},
		{"old-answer-accepted", "a claim's answer counts though its link was replaced", Simulator},
		{"no-answer-is-gone", "a desktop that gives no sign after a restart counts as gone", Simulator},
		{"logoff-never-forces", "a log-off's limit passes and nothing happens", Simulator},
		{"logoff-starts-over", "an order that is repeated gives a log-off its whole time again", Simulator},
		{"order-forgotten", "a satellite that starts again forgets what its desktops were ordered", Simulator},
		{"abort-asks", "an abort asks the guest and uses no force", Simulator},

		{"pid-alone", "a desktop is found again by its process number alone", Chaos},
		{"no-fsync", "commits are answered before the disk has them", Images},
		{"seal-unchecked", "records are read without a look at their seals", Images},
	}
}
