package sim

import (
	"fmt"
	"slices"
	"time"
)

// Times of a history.
const (
	warmUp = 15 * time.Second // before the first fault
	active = 10 * time.Minute // then everything heals
)

// plan is all that a seed decides beforehand. Steps can be taken out of it
// without a change of the others.
type plan struct {
	seed       uint64
	satellites int
	users      int

	lease         bool
	self, replace time.Duration
	interval      time.Duration
	reservation   time.Duration
	startTimeout  time.Duration
	masterRate    float64

	steps []step
}

// step is something that happens from outside: a user, an administrator, a
// fault.
type step struct {
	id    int
	at    time.Duration
	kind  string // a user's or administrator's action, or the name of a fault
	on    int    // index of a user or of a satellite, as the kind wants it
	lasts time.Duration
	dice  dice // what else it draws
}

func (s step) fault() bool { _, ok := faults[s.kind]; return ok }

func (s step) String() string {
	text := fmt.Sprintf("step %d at %v: %s, on %d", s.id, s.at.Round(time.Millisecond), s.kind, s.on)
	if s.lasts > 0 {
		text += fmt.Sprintf(", for %v", s.lasts.Round(time.Millisecond))
	}
	return text
}

// weighted is a kind and how often it is drawn.
type weighted struct {
	kind   string
	weight int
}

func draw(d *dice, all []weighted) string {
	sum := 0
	for _, x := range all {
		sum += x.weight
	}
	n := d.below(sum)
	for _, x := range all {
		if n -= x.weight; n < 0 {
			return x.kind
		}
	}
	return ""
}

// admins is what administrators do beside ending sessions.
var admins = []weighted{
	{"offline", 12}, {"online", 14}, {"drain", 4}, {"cancel", 8}, {"fence", 8}, {"force", 8}, {"forget", 6}, {"settings", 4},
	{"logoff", 30}, {"shutdown", 15}, {"abort", 20},
}

// newPlan draws a plan.
func newPlan(seed uint64) plan {
	d := dice(mix(seed)).of("plan")
	p := plan{seed: seed, satellites: 5 + d.below(3), users: 50 + d.below(15), lease: d.chance(40),
		interval: pick[time.Duration](&d, 1, 2, 3, 3, 3, 5) * time.Second, reservation: pick[time.Duration](&d, 5, 10, 20, 30, 60) * time.Second,
		startTimeout: pick[time.Duration](&d, 15, 30, 180) * time.Second, masterRate: rate(&d)}
	if p.lease {
		p.self = d.between(20*time.Second, 60*time.Second).Round(time.Second)
		p.replace = p.self*11/10 + 30*time.Second + d.between(0, 5*time.Second).Round(time.Second)
	}
	add := func(at time.Duration, kind string, on int, lasts time.Duration) {
		id := len(p.steps)
		p.steps = append(p.steps, step{id: id, at: at, kind: kind, on: on, lasts: lasts, dice: dice(mix(seed)).of("step", uint64(id))})
	}
	for range 270 + d.below(60) {
		kind := "login"
		switch {
		case d.chance(1):
			kind = "login under another number"
		case d.chance(6):
			kind = "login everywhere at once"
		}
		add(d.between(time.Second, active-5*time.Second), kind, d.below(p.users), 0)
	}
	if d.chance(30) {
		add(d.between(warmUp, active-5*time.Second), "crowd", d.below(p.users), 0)
	}
	for range 130 + d.below(40) {
		add(d.between(20*time.Second, active-5*time.Second), "guest leaves", d.below(p.users), 0)
	}
	for range 90 + d.below(40) {
		kind := draw(&d, admins)
		on := d.below(p.satellites)
		if slices.Contains([]string{"logoff", "shutdown", "abort", "cancel", "force"}, kind) {
			on = d.below(p.users)
		}
		add(d.between(warmUp, active-5*time.Second), kind, on, 0)
	}
	for range 4 + d.below(10) {
		kind := draw(&d, faultWeights)
		for p.lease && faults[kind].neverUnderLease {
			kind = draw(&d, faultWeights)
		}
		f := faults[kind]
		lasts := d.between(f.least, f.most)
		add(d.between(warmUp, active-lasts), kind, d.below(p.satellites), lasts)
	}
	slices.SortStableFunc(p.steps, func(a, b step) int { return int(a.at - b.at) })
	return p
}

// rate is how fast a clock is. Two of them differ by less than the tenth that
// the times of a lease allow for.
func rate(d *dice) float64 {
	if d.chance(50) {
		return 1
	}
	return 0.955 + 0.09*float64(d.below(1000))/1000
}
