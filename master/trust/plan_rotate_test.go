package trust

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestRotation(t *testing.T) {
	fresh := Server{ID: 1, Name: "sat1", Standing: Standing{Up: true, Takes: true, Version: 8, Root: "a"}}
	renewed := Server{ID: 2, Name: "sat2", Standing: Standing{Up: true, Takes: true, Version: 10, Root: "b"}}
	down := Server{ID: 3, Name: "sat3", Standing: Standing{Takes: true, Version: 7, Root: "a"}}
	silent := Server{ID: 4, Name: "sat4", Standing: Standing{Up: true, Root: "a"}}
	adding := Begin("a", "b", nil, nil)
	adding.Since = 8
	issuing := adding.Onward(9)
	undo, err := issuing.Abort(10)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		r       Rotation
		servers []Server
		roots   string
		missing string
		text    string
	}{
		"settled":               {r: Rotation{}, servers: []Server{down}},
		"adding, all know it":   {r: adding, servers: []Server{fresh, renewed}, roots: "a b", text: "2 of 2 servers trust the new authority"},
		"adding, one is away":   {r: adding, servers: []Server{fresh, down}, roots: "a b", missing: "3", text: "1 of 2 servers trust the new authority; server 3 (sat3) is not connected"},
		"adding, one is old":    {r: adding, servers: []Server{silent}, roots: "a b", missing: "4", text: "0 of 1 servers trust the new authority; server 4 (sat4) runs a version that knows of no trust bundles"},
		"adding, one left out":  {r: adding.Skipped([]uint64{3, 3}), servers: []Server{fresh, down}, roots: "a b", text: "1 of 1 servers trust the new authority, 1 left out"},
		"adding, none is there": {r: adding, roots: "a b", text: "0 of 0 servers trust the new authority"},
		"issuing":               {r: issuing, servers: []Server{fresh, renewed}, roots: "b a", missing: "1", text: "1 of 2 servers have certificates of the new authority; server 1 (sat1) has a certificate of the other authority still"},
		"issuing, many missing": {r: issuing, servers: []Server{down, down, down, down, down, down, down}, roots: "b a", missing: "3 3 3 3 3 3 3", text: "and 2 more"},
		"issuing, not told":     {r: undo.Onward(12), servers: nil, roots: "a"},
		"renewed before told":   {r: issuing, servers: []Server{{ID: 5, Name: "sat5", Standing: Standing{Up: true, Takes: true, Version: 8, Root: "b"}}}, roots: "b a", missing: "5", text: "server 5 (sat5) has bundle 8, not yet 9"},
		"removing":              {r: issuing.Onward(10), servers: []Server{fresh}, roots: "b", text: "removing the old authority"},
		"taken back":            {r: undo, servers: []Server{fresh, renewed}, roots: "a b", missing: "1 2", text: "taking it back: 0 of 2 servers have certificates of the old authority"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := strings.Join(test.r.Roots(), " "); got != test.roots {
				t.Errorf("roots %q, want %q", got, test.roots)
			}
			var ids []string
			missing := test.r.Missing(test.servers)
			for _, m := range missing {
				ids = append(ids, fmt.Sprint(m.ID))
			}
			if got := strings.Join(ids, " "); got != test.missing {
				t.Errorf("missing %q, want %q", got, test.missing)
			}
			if test.text == "" {
				return
			}
			if _, text := test.r.Tell(len(test.servers), len(test.r.Skip), missing); !strings.Contains(text, test.text) {
				t.Errorf("got %q, want %q", text, test.text)
			}
		})
	}
}

func TestAbort(t *testing.T) {
	adding := Begin("a", "b", nil, nil)
	tests := map[string]struct {
		r     Rotation
		stage Stage
		roots string
		err   error
	}{
		"nothing under way":        {Rotation{}, Settled, "", ErrSettled},
		"nothing was issued":       {adding, Removing, "a", nil},
		"some have certificates":   {adding.Onward(2), Issuing, "a b", nil},
		"the old one is removed":   {adding.Onward(2).Onward(3), Removing, "b", ErrTooLate},
		"taken back a second time": {func() Rotation { r, _ := adding.Onward(2).Abort(3); return r }(), Issuing, "a b", nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := test.r.Abort(9)
			if !errors.Is(err, test.err) || got.Stage != test.stage || strings.Join(got.Roots(), " ") != test.roots {
				t.Errorf("got %+v, %v; want %s, %q, %v", got, err, test.stage, test.roots, test.err)
			}
		})
	}
}

// world is a master and its satellites in a history of changed authorities:
// what is stored, what is in files, what each machine trusts and shows.
type world struct {
	t     *testing.T
	r     *rand.Rand
	steps []string

	stored Rotation
	files  []string
	keys   map[string]bool
	own    string // who has issued the master's certificate
	// version and roots are those of the bundle.
	version, named uint64 // named: the last authority that was made
	roots          []string
	copies         []uint64 // of the database: the version of the bundle
	sats           []*machine
	next           uint64
}

type machine struct {
	Standing // as the master knows it
	id       uint64
	up       bool
	version  uint64
	roots    []string
	cert     string
	onTheWay string // a certificate that was issued and has not arrived; empty: none
}

func (w *world) note(format string, args ...any) {
	w.steps = append(w.steps, fmt.Sprintf(format, args...))
}

func (w *world) servers() (out []Server) {
	for _, m := range w.sats {
		out = append(out, Server{m.id, "sat", m.Standing})
	}
	return out
}

// commit stores a change and carries it out, unless the program ends between.
func (w *world) commit(next Rotation) {
	w.version++
	next.Since = w.version
	w.stored = next
	if w.r.IntN(6) == 0 {
		w.crash("before the files are written")
		return
	}
	w.apply()
}

// apply makes files, own certificate and bundle what the stage wants.
func (w *world) apply() {
	if roots := w.stored.Roots(); roots != nil {
		w.files = roots
		w.own = roots[0]
	}
	if w.stored.Stage == Removing {
		w.keys = map[string]bool{w.stored.To: true}
	}
	if !slices.Equal(w.roots, w.files) {
		w.roots = slices.Clone(w.files)
		w.version++
	}
	if w.stored.Stage == Removing && w.r.IntN(4) > 0 { // else the program ends before that is stored
		w.stored = w.stored.Onward(w.version)
	}
}

// crash is a new start of the master.
func (w *world) crash(when string) {
	w.note("kill -9 %s", when)
	for _, m := range w.sats {
		m.Standing = Standing{}
	}
	if r := Agree(w.stored, w.files, w.version+1); r.Stage != w.stored.Stage || r.Since != w.stored.Since {
		w.version++
		w.stored = r
	}
	w.apply()
	for _, m := range w.sats {
		if m.up {
			w.link(m)
		}
	}
}

// link opens the link of a satellite, if both believe each other.
func (w *world) link(m *machine) {
	if slices.Contains(m.roots, w.own) && slices.Contains(w.files, m.cert) {
		m.Open(epoch, true, m.version, w.version, m.cert)
	}
}

func (w *world) step() {
	switch n := w.r.IntN(100); {
	case n < 8 && w.stored.Stage == Settled:
		w.named++
		to := fmt.Sprintf("ca%d", w.named)
		w.keys[to] = true
		w.note("rotateca to %s", to)
		w.commit(Begin(w.files[0], to, nil, nil))
	case n < 11:
		if next, err := w.stored.Abort(w.version + 1); err == nil && !w.stored.Undo {
			w.note("abort in %s", w.stored.Stage)
			w.commit(next)
		}
	case n < 14:
		w.crash("at rest")
	case n < 16:
		w.copies = append(w.copies, w.version)
	case n < 17 && len(w.copies) > 0:
		c := w.copies[w.r.IntN(len(w.copies))]
		w.note("restore of a copy (bundle %d)", c)
		w.stored, w.version, w.copies, w.roots = Rotation{}, c+leap, nil, nil
		w.crash("and the copy takes the place of the database")
	case n < 19 && len(w.sats) < 6:
		w.next++
		m := &machine{id: w.next, up: true, roots: slices.Clone(w.files), cert: w.files[0]}
		w.note("satellite %d joins with a certificate of %s", m.id, m.cert)
		w.sats = append(w.sats, m)
		if w.r.IntN(2) == 0 {
			w.link(m)
		} else {
			m.up = false
		}
	case n < 20 && len(w.sats) > 1:
		w.sats = slices.Delete(w.sats, 0, 1) // forgotten
	case n < 40 && w.stored.Stage != Settled:
		if len(w.stored.Missing(w.servers())) == 0 {
			w.note("onward from %s", w.stored.Stage)
			w.commit(w.stored.Onward(0))
		} else if w.r.IntN(20) == 0 { // left out: it must register again, and is another one then
			id := w.stored.Missing(w.servers())[0].ID
			w.note("skip=%d", id)
			w.stored = w.stored.Skipped([]uint64{id})
			w.sats = slices.DeleteFunc(w.sats, func(m *machine) bool { return m.id == id })
		}
	case len(w.sats) == 0:
	default:
		w.happens(w.sats[w.r.IntN(len(w.sats))], n)
	}
}

// happens is what a satellite does.
func (w *world) happens(m *machine, n int) {
	switch {
	case n < 48:
		m.up = !m.up
		m.Close()
		if m.up {
			w.link(m)
		}
	case n < 70 && m.Up: // it gets the bundle
		if w.version > m.version && slices.ContainsFunc(w.roots, func(k string) bool { return slices.Contains(m.roots, k) && w.keys[k] }) && slices.Contains(w.roots, m.cert) {
			m.version, m.roots = w.version, slices.Clone(w.roots)
			m.Acked(epoch, m.version, "", w.version)
		}
	case n < 85 && m.Up && m.onTheWay == "": // renewed soon, or because it is time
		if m.roots[0] != m.cert || w.r.IntN(8) == 0 {
			m.onTheWay = w.files[0] // and the answer takes its time (pitfall 8)
		}
	case m.onTheWay != "":
		cert := m.onTheWay
		m.onTheWay = ""
		if m.roots[0] != cert {
			return // by now another one issues
		}
		m.cert = cert
		m.Close()
		if m.up {
			w.link(m)
		}
	}
}

// holds checks what must be true at any time.
func (w *world) holds() {
	w.t.Helper()
	for _, m := range w.sats {
		if !slices.Contains(m.roots, w.own) || !slices.Contains(w.files, m.cert) {
			w.t.Fatalf("satellite %d (trusts %v, has a certificate of %s) and the master (trusts %v, has one of %s) do not know each other:\n%s",
				m.id, m.roots, m.cert, w.files, w.own, strings.Join(w.steps, "\n"))
		}
	}
	if !w.keys[w.files[0]] {
		w.t.Fatalf("the key of the authority that issues, %s, is gone:\n%s", w.files[0], strings.Join(w.steps, "\n"))
	}
}

// RELIABILITY 4.2 and 4.4, pitfalls 8 and 10: whatever happens and wherever the
// master is killed, aborted or restored from an old copy, master and satellites
// know each other at every step; and when all are up again the change ends, with
// one authority that has issued all certificates.
func TestRotationHistories(t *testing.T) {
	ended, aborted := 0, 0
	for seed := range uint64(3000) {
		w := &world{t: t, r: rand.New(rand.NewPCG(seed, 5)), files: []string{"ca0"}, own: "ca0", keys: map[string]bool{"ca0": true}, version: 1, roots: []string{"ca0"}}
		w.note("seed %d", seed)
		for range 150 {
			w.step()
			w.holds()
		}
		for _, m := range w.sats {
			if m.up = true; !m.Up {
				w.link(m)
			}
		}
		undo := w.stored.Undo
		for i := 0; w.stored.Stage != Settled; i++ {
			for _, m := range w.sats {
				w.happens(m, 90)
				w.happens(m, 60)
				w.happens(m, 80)
			}
			if len(w.stored.Missing(w.servers())) == 0 {
				w.commit(w.stored.Onward(0))
			}
			w.holds()
			if i > 100 {
				_, text := w.stored.Tell(len(w.sats), 0, w.stored.Missing(w.servers()))
				t.Fatalf("it does not end: %+v, %s\n%s", w.stored, text, strings.Join(w.steps, "\n"))
			}
		}
		if len(w.files) != 1 || w.own != w.files[0] {
			t.Fatalf("in the end the files name %v, and the master's certificate is of %s:\n%s", w.files, w.own, strings.Join(w.steps, "\n"))
		}
		if w.named > 0 && w.files[0] != "ca0" {
			ended++
		}
		if undo {
			aborted++
		}
	}
	if ended < 1000 || aborted < 20 {
		t.Errorf("the histories reach too little: %d authorities changed, %d taken back at the end", ended, aborted)
	}
}
