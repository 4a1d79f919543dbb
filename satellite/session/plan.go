package session

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	pb "verdecmd/proto"
	"verdecmd/proto/planted"
	"verdecmd/proto/wire"
	"verdecmd/satellite/desktop"
	"verdecmd/satellite/link"
)

// Entry is a session in the journal. It is written before its process is
// started: Process is empty until then.
type Entry struct {
	Spec    desktop.Spec
	Process desktop.Process
	State   desktop.State
	Started time.Time
	Client  string
	Epoch   uint64 // of the master that granted it; 0: none did
}

// EntryFile is the name of a session's file in the journal.
func EntryFile(session string) string { return session + ".json" }

// Encode is the contents of the entry's file.
func (e Entry) Encode() ([]byte, error) { return json.Marshal(e) }

// DecodeEntry reads a file of the journal.
func DecodeEntry(file string, b []byte) (Entry, error) {
	var e Entry
	err := json.Unmarshal(b, &e)
	if err == nil && EntryFile(e.Spec.Session) != file {
		err = fmt.Errorf("it describes session %q", e.Spec.Session)
	}
	return e, err
}

// Lease is when the lease was renewed last. The time since the computer
// started is what counts: a restarted computer has no desktops to end.
type Lease struct {
	At   time.Duration
	Self time.Duration // 0: none, the desktops may run for ever
}

// DecodeLease reads the lease that an earlier start of the program noted;
// booted is the time since the computer started.
func DecodeLease(b []byte, booted time.Duration) (Lease, error) {
	var l Lease
	if err := json.Unmarshal(b, &l); err != nil {
		return l, err
	}
	if planted.Bug("lease-forgotten") {
		return Lease{}, nil
	}
	if l.At < 0 || l.Self < 0 {
		return l, errors.New("its times are negative")
	}
	if l.At > booted {
		l.At = 0 // of an earlier start of the computer
	}
	return l, nil
}

// leaseKill is how long after the end of the lease a desktop that was to be
// aborted is killed, whatever its session waits for.
const leaseKill = 5 * time.Second

// Over tells whether the desktops must end, because the master may give their
// users new ones soon, and whether there is no more time to wait for anything.
func (l Lease) Over(booted time.Duration) (over, kill bool) {
	late := booted - l.At - l.Self
	return l.Self > 0 && late > 0, l.Self > 0 && late > leaseKill
}

// End is when the lease is over, by the time since the computer started; 0: there
// is none.
func (l Lease) End() time.Duration {
	if l.Self == 0 {
		return 0
	}
	return max(1, l.At+l.Self)
}

// Inventory is what a satellite knows of its sessions and of the master's word,
// as a plain value. It is not safe for several goroutines.
type Inventory struct {
	rows    map[string]*pb.Session
	ended   recent[*pb.Ended]
	refused recent[*pb.Refused]
	version uint64
	link    uint64 // the link on which answers count
	epoch   uint64
	lease   Lease
	barred  error         // why nothing may run here any more; nil: it may
	barFrom time.Duration // since when, by the time since the computer started
}

// recent is the newest news of one kind, each with the version that brought it.
type recent[T any] struct {
	at    []uint64
	items []T
}

const keepRecent = 256

// maxText bounds each text of a message to the master, in bytes. Users and
// guests have a hand in some: a file name that is no UTF-8 or a console line
// without end must not break the link that all sessions share.
const maxText = 512

func (r *recent[T]) add(version uint64, x T) {
	r.at, r.items = append(r.at, version), append(r.items, x)
	if n := len(r.at) - keepRecent; n > 0 {
		r.at, r.items = slices.Delete(r.at, 0, n), slices.Delete(r.items, 0, n)
	}
}

func (r *recent[T]) since(version uint64) []T {
	i := sort.Search(len(r.at), func(i int) bool { return r.at[i] > version })
	return slices.Clone(r.items[i:])
}

// NewInventory is that of a program that has just started; epoch is the highest
// that an earlier start obeyed.
func NewInventory(epoch uint64) *Inventory {
	return &Inventory{rows: map[string]*pb.Session{}, version: 1, epoch: epoch}
}

// Adopt takes in a session of an earlier start, whatever state it is in: from
// the first Hello on the master must know of it.
func (v *Inventory) Adopt(row *pb.Session) { v.rows[row.Id] = row }

// errOldLink tells that the master's answer came over a link that has ended.
var errOldLink = errors.New("the link to the master was replaced meanwhile")

// errLeaseOver: a desktop that would start now would have to end at once.
var errLeaseOver = wire.Errorf(wire.NotReady, "this satellite has had no lease from the master for too long, so no desktop is started here; log in again in a moment")

// Accept takes in a new session, if the link on which the master granted it is
// still the present one: the inventory that opened a later link did not have
// it, so the master has given it up. link 0 is without a master. Nothing begins
// when the lease is over either: a program that was stopped for long goes on in
// the middle of a login.
func (v *Inventory) Accept(row *pb.Session, link uint64, booted time.Duration) error {
	if link != 0 && v.link != link && !planted.Bug("old-answer-accepted") {
		return errOldLink
	}
	if v.barred != nil {
		return v.barred
	}
	if over, _ := v.lease.Over(booted); over {
		return errLeaseOver
	}
	v.rows[row.Id] = row
	v.version++
	return nil
}

// Bar lets no session begin any more, for this reason, and ends those that are
// here: the cluster has given this computer's place away, and its users may have
// desktops elsewhere.
func (v *Inventory) Bar(why error, booted time.Duration) {
	if v.barred == nil {
		v.barred, v.barFrom = why, booted
	}
}

// Barred is why nothing may begin here any more; nil: it may.
func (v *Inventory) Barred() error { return v.barred }

// LeaseOver is why desktops are ended when the lease is over.
const LeaseOver = "its satellite had no lease from the master for too long"

// MustEnd is why all desktops here must end; empty: they need not. kill tells
// that there is no more time to wait for anything.
func (v *Inventory) MustEnd(booted time.Duration) (because string, kill bool) {
	if over, kill := v.lease.Over(booted); over {
		return LeaseOver, kill
	}
	if v.barred != nil {
		return "its server is of the cluster no more", booted-v.barFrom > leaseKill
	}
	return "", false
}

// Show changes what is told of a session, if it is here, with the next report.
func (v *Inventory) Show(row *pb.Session) {
	if v.rows[row.Id] != nil {
		v.rows[row.Id] = row
	}
}

// Touch makes the next report one of news.
func (v *Inventory) Touch() { v.version++ }

// Gone takes a session out: its process is gone.
func (v *Inventory) Gone(e *pb.Ended) {
	delete(v.rows, e.Id)
	v.version++
	v.ended.add(v.version, e)
}

// Refuse notes a login that came to nothing, for the administrator.
func (v *Inventory) Refuse(user string, err error) {
	v.version++
	v.refused.add(v.version, &pb.Refused{User: user, Text: wire.Clean(err.Error(), maxText)})
}

// Hello is the inventory for a new link. From now on only answers that were
// asked on this link count.
func (v *Inventory) Hello(on uint64) link.News {
	v.link = on
	return v.News(0)
}

// News is what is here now and what has come since the version given.
func (v *Inventory) News(since uint64) link.News {
	return link.News{Version: v.version, Sessions: &pb.Sessions{Sessions: v.list()}, Ended: v.ended.since(since), Refused: v.refused.since(since)}
}

// Version grows with every change.
func (v *Inventory) Version() uint64 { return v.version }

// list is all sessions, by ID.
func (v *Inventory) list() []*pb.Session {
	var out []*pb.Session
	for _, row := range v.rows {
		out = append(out, row)
	}
	slices.SortFunc(out, func(a, b *pb.Session) int { return strings.Compare(a.Id, b.Id) })
	return out
}

// Sessions are the sessions here, by ID.
func (v *Inventory) Sessions() []string {
	var out []string
	for _, row := range v.list() {
		out = append(out, row.Id)
	}
	return out
}

// Of is the session of a user here, or nil.
func (v *Inventory) Of(user string, uid uint32) *pb.Session {
	for _, row := range v.list() {
		if row.User == user && row.Uid == uid {
			return row
		}
	}
	return nil
}

// Find is the session that an order is for.
func (v *Inventory) Find(session string) error {
	if v.rows[session] == nil {
		return wire.Errorf(wire.NotFound, "no session %s here", session)
	}
	return nil
}

// Epoch is the highest that was ever obeyed.
func (v *Inventory) Epoch() uint64 { return v.epoch }

// MustNote tells whether an epoch must be on the disk before it is obeyed.
func (v *Inventory) MustNote(epoch uint64) bool {
	return epoch > v.epoch && !planted.Bug("epoch-not-noted")
}

// Obey is to be called when the epoch is on the disk.
func (v *Inventory) Obey(epoch uint64) { v.epoch = max(v.epoch, epoch) }

// Lease is the present lease.
func (v *Inventory) Lease() Lease { return v.lease }

// Renew takes a lease in; note tells whether the next start of the program must
// know.
func (v *Inventory) Renew(l Lease) (note bool) {
	note = l.Self != 0 || v.lease.Self != 0
	v.lease = l
	return note
}
