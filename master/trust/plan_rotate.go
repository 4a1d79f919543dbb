package trust

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Stage is how far one authority has taken the place of another.
type Stage string

// The stages, in their order. In each of them master and satellites verify each
// other, whichever of them is one stage behind.
const (
	Settled  Stage = ""         // there is one authority
	Adding   Stage = "adding"   // From issues; all are to learn that To is trusted too
	Issuing  Stage = "issuing"  // To issues; all are to get certificates from it
	Removing Stage = "removing" // To issues and is trusted alone
)

// Rotation is one authority that takes the place of another. Settled it tells of
// the last one that has ended; the zero value is none ever.
type Rotation struct {
	Stage Stage  `json:"stage"`
	From  string `json:"from"` // by their fingerprints
	To    string `json:"to"`
	// Next is the certificate (DER) of the one that was made for it; its key is a
	// file.
	Next []byte `json:"next"`
	// Undo: it is taken back, and To is the one from before.
	Undo bool `json:"undo,omitempty"`
	// Since is the first bundle that names the authorities of this stage.
	Since uint64 `json:"since"`
	// Skip are servers that nobody waits for any more, by number.
	Skip []uint64 `json:"skip,omitempty"`
}

// Errors of changing a Rotation.
var (
	ErrSettled = errors.New("no authority is taking the place of another one")
	ErrTooLate = errors.New("the old authority is removed already")
)

// Begin is the first stage.
func Begin(from, to string, next []byte, skip []uint64) Rotation {
	return Rotation{Stage: Adding, From: from, To: to, Next: next}.Skipped(skip)
}

// Roots are the authorities that are trusted, the one that issues first.
func (r Rotation) Roots() []string {
	switch r.Stage {
	case Adding:
		return []string{r.From, r.To}
	case Issuing:
		return []string{r.To, r.From}
	case Removing:
		return []string{r.To}
	}
	return nil
}

// Onward is the next stage; since is the first bundle that tells of it. Of one
// that has ended it stays known how: who began it may not have been told yet.
func (r Rotation) Onward(since uint64) Rotation {
	switch r.Stage {
	case Adding:
		r.Stage = Issuing
	case Issuing:
		r.Stage = Removing
	default:
		r.Stage, r.Next, since = Settled, nil, 0
	}
	r.Since = since
	return r
}

// Abort takes it back: the authority from before is the one that all are to end
// with. Where the new one has issued nothing yet, it just goes.
func (r Rotation) Abort(since uint64) (Rotation, error) {
	switch {
	case r.Stage == Settled:
		return r, ErrSettled
	case r.Stage == Removing:
		return r, ErrTooLate
	case r.Undo:
		return r, nil
	case r.Stage == Adding:
		r.Stage = Removing
	}
	r.From, r.To, r.Undo, r.Since = r.To, r.From, true, since
	return r, nil
}

// Skipped adds servers that nobody waits for.
func (r Rotation) Skipped(ids []uint64) Rotation {
	r.Skip = slices.Compact(slices.Sorted(slices.Values(slices.Concat(r.Skip, ids))))
	return r
}

// Server is one that is known, as the rotation sees it.
type Server struct {
	ID   uint64
	Name string
	Standing
}

// Missing is a server that holds a stage up.
type Missing struct {
	ID        uint64
	Name, Why string
}

// Missing are the servers that this stage waits for. A server that joins
// meanwhile gets certificate and authorities as they are, and is waited for like
// the others.
func (r Rotation) Missing(all []Server) (out []Missing) {
	for _, s := range all {
		if slices.Contains(r.Skip, s.ID) {
			continue
		}
		if why := r.missing(s); why != "" {
			out = append(out, Missing{s.ID, s.Name, why})
		}
	}
	slices.SortFunc(out, func(a, b Missing) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

func (r Rotation) missing(s Server) string {
	switch r.Stage {
	case Adding:
		return s.missing(r.Since)
	case Issuing:
		switch {
		case s.Root == r.To:
			// And it knows who issues: an answer to an earlier request, with a
			// certificate of the other one, is on its way to nobody who takes it.
			return s.missing(r.Since)
		case !s.Up:
			return "is not connected"
		case !s.Takes:
			return "runs a version that knows of no trust bundles"
		default:
			return "has a certificate of the other authority still"
		}
	}
	return ""
}

// Tell says how far it is: a share of 100, and in words what it waits for.
func (r Rotation) Tell(servers, skipped int, missing []Missing) (percent int, text string) {
	wanted := servers - skipped
	done := wanted - len(missing)
	share := 100
	if wanted > 0 {
		share = 100 * done / wanted
	}
	var what string
	switch r.Stage {
	case Adding:
		percent, what = share*45/100, fmt.Sprintf("%d of %d servers trust the new authority", done, wanted)
	case Issuing:
		percent, what = 45+share/2, fmt.Sprintf("%d of %d servers have certificates of the new authority", done, wanted)
	default:
		return 95, "removing the old authority"
	}
	if r.Undo {
		what = fmt.Sprintf("taking it back: %d of %d servers have certificates of the old authority", done, wanted)
	}
	if skipped > 0 {
		what += fmt.Sprintf(", %d left out", skipped)
	}
	const most = 5
	var names []string
	for _, m := range missing[:min(len(missing), most)] {
		names = append(names, fmt.Sprintf("server %d (%s) %s", m.ID, m.Name, m.Why))
	}
	if more := len(missing) - most; more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	if len(names) > 0 {
		what += "; " + strings.Join(names, "; ")
	}
	return percent, what
}

// Agree makes a stored rotation fit the files, which are written after it: files
// are the authorities that they name, the one that issues first. Where the
// program ended between the two, what is stored is done again. Of a database
// that is an old copy no rotation is left, see FromCopy, and the files are right:
// whoever issues now ends up alone. It may be that no satellite trusts the other
// one, so there is no way to that. since is the first bundle that will tell of
// it.
func Agree(r Rotation, files []string, since uint64) Rotation {
	if slices.ContainsFunc(files, func(f string) bool { return f != r.From && f != r.To }) {
		r = Rotation{} // somebody has put other files there
	}
	if r.Stage == Settled && len(files) > 1 {
		return Rotation{Stage: Issuing, From: files[1], To: files[0], Undo: true, Since: since}
	}
	return r
}
