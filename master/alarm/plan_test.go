package alarm

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"verdecmd/monitor"
)

var begin = time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)

// wrong and right are signs about one object; once is something that happens.
func wrong(kind, object string) Sign {
	return Sign{Kind: kind, Object: object, Severity: monitor.Warning, Text: kind + " " + object, Lasting: true}
}

func right(kind, object string) Sign { return Sign{Kind: kind, Object: object, Over: true} }

func once(kind, object string) Sign {
	return Sign{Kind: kind, Object: object, Severity: monitor.Warning, Text: kind + " " + object, Quiet: time.Hour}
}

// seen is an alarm in a word: its number, object, count, and whether it is over.
func seen(b *Book) (out []string) {
	ids := []uint64{}
	for id := range b.all {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		r := b.all[id]
		text := fmt.Sprintf("%d %s %s x%d", r.ID, r.Kind, r.Object, r.Count)
		if !r.Acked.IsZero() {
			text += strings.TrimSuffix(" acked by "+r.AckedBy+" "+r.Note, " ")
		}
		if !r.active() {
			text += strings.TrimSuffix(" cleared by "+r.ClearedBy, " by ")
		}
		out = append(out, text)
	}
	return out
}

// S11: raised once, folded with a count, over by recovery or by an administrator,
// and back where the cause lasts. Numbers are never used again.
func TestBook(t *testing.T) {
	type step struct {
		at   time.Duration
		sign Sign   // where it has a kind
		do   string // ack, ack all, clear, tick
		id   uint64
		note string // of ack, by alice; none: it is by root
	}
	tests := map[string]struct {
		steps []step
		want  []string
	}{
		"raised":                   {[]step{{sign: wrong("a", "1")}}, []string{"1 a 1 x1"}},
		"folded":                   {[]step{{sign: wrong("a", "1")}, {at: time.Second, sign: wrong("a", "1")}, {sign: wrong("a", "1")}}, []string{"1 a 1 x3"}},
		"another object":           {[]step{{sign: wrong("a", "1")}, {sign: wrong("a", "2")}}, []string{"1 a 1 x1", "2 a 2 x1"}},
		"another kind":             {[]step{{sign: wrong("a", "1")}, {sign: wrong("b", "1")}}, []string{"1 a 1 x1", "2 b 1 x1"}},
		"recovered":                {[]step{{sign: wrong("a", "1")}, {sign: right("a", "1")}}, []string{"1 a 1 x1 cleared"}},
		"recovered twice":          {[]step{{sign: wrong("a", "1")}, {sign: right("a", "1")}, {sign: right("a", "1")}}, []string{"1 a 1 x1 cleared"}},
		"right and never wrong":    {[]step{{sign: right("a", "1")}}, nil},
		"wrong again is a new one": {[]step{{sign: wrong("a", "1")}, {sign: right("a", "1")}, {sign: wrong("a", "1")}}, []string{"1 a 1 x1 cleared", "2 a 1 x1"}},
		"acknowledged":             {[]step{{sign: wrong("a", "1")}, {do: "ack", id: 1}}, []string{"1 a 1 x1 acked by root"}},
		"acknowledged and folded":  {[]step{{sign: wrong("a", "1")}, {do: "ack", id: 1}, {sign: wrong("a", "1")}}, []string{"1 a 1 x2 acked by root"}},
		"acknowledged and over":    {[]step{{sign: wrong("a", "1")}, {do: "ack", id: 1}, {sign: right("a", "1")}}, []string{"1 a 1 x1 acked by root cleared"}},
		"known, with another note": {[]step{{sign: wrong("a", "1")}, {do: "ack", id: 1}, {do: "ack", id: 1, note: "mine"}, {do: "ack", id: 1}}, []string{"1 a 1 x1 acked by alice mine"}},
		"all: what nobody knows": {[]step{{sign: wrong("a", "1")}, {sign: wrong("a", "2")}, {do: "ack", id: 1, note: "mine"}, {do: "ack all", note: "night shift"}},
			[]string{"1 a 1 x1 acked by alice mine", "2 a 2 x1 acked by bob night shift"}},
		"over and acknowledged": {[]step{{sign: wrong("a", "1")}, {sign: right("a", "1")}, {do: "ack", id: 1}}, []string{"1 a 1 x1 cleared"}},
		"cleared by hand":       {[]step{{sign: wrong("a", "1")}, {do: "clear", id: 1}}, []string{"1 a 1 x1 cleared by root"}},
		"back while it lasts":   {[]step{{sign: wrong("a", "1")}, {do: "clear", id: 1}, {at: comeBack, do: "tick"}}, []string{"1 a 1 x1 cleared by root", "2 a 1 x1"}},
		"not at once":           {[]step{{sign: wrong("a", "1")}, {do: "clear", id: 1}, {at: comeBack - 1, do: "tick"}}, []string{"1 a 1 x1 cleared by root"}},
		"not when it is over": {[]step{{sign: wrong("a", "1")}, {do: "clear", id: 1}, {sign: right("a", "1")}, {at: time.Hour, do: "tick"}},
			[]string{"1 a 1 x1 cleared by root"}},
		"told again before that":     {[]step{{sign: wrong("a", "1")}, {do: "clear", id: 1}, {sign: wrong("a", "1")}, {at: time.Hour, do: "tick"}}, []string{"1 a 1 x1 cleared by root", "2 a 1 x1"}},
		"what happened and is quiet": {[]step{{sign: once("a", "1")}, {at: time.Hour - 1, do: "tick"}, {at: time.Hour, do: "tick"}}, []string{"1 a 1 x1 cleared"}},
		"what happens again": {[]step{{sign: once("a", "1")}, {at: time.Hour - 1, sign: once("a", "1")}, {at: time.Hour + time.Minute, do: "tick"}},
			[]string{"1 a 1 x2"}},
		"what happened does not come back": {[]step{{sign: once("a", "1")}, {do: "clear", id: 1}, {at: time.Hour, do: "tick"}}, []string{"1 a 1 x1 cleared by root"}},
		"what lasts is never quiet":        {[]step{{sign: wrong("a", "1")}, {at: 1000 * time.Hour, do: "tick"}}, []string{"1 a 1 x1"}},
		"the clock goes back":              {[]step{{at: time.Hour, sign: once("a", "1")}, {sign: once("a", "1")}, {at: time.Hour + time.Minute, do: "tick"}}, []string{"1 a 1 x2"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := NewBook(0)
			for _, s := range test.steps {
				now := begin.Add(s.at)
				switch {
				case s.sign.Kind != "":
					b.Sign(now, s.sign)
				case s.do == "ack":
					by := "root"
					if s.note != "" {
						by = "alice"
					}
					for _, r := range b.Ack(now, []uint64{s.id}, by, s.note) {
						b.Acked(r)
					}
				case s.do == "ack all":
					for _, r := range b.Ack(now, nil, "bob", s.note) {
						b.Acked(r)
					}
				case s.do == "clear":
					if r, ok := b.Clear(now, s.id, "root"); ok {
						b.Removed(r)
					}
				case s.do == "tick":
					b.Tick(now)
				}
			}
			if got := seen(b); !slices.Equal(got, test.want) {
				t.Errorf("\n got %q\nwant %q", got, test.want)
			}
		})
	}
}

// S18: active alarms are bounded, what is more is told in one of its own, and is
// told one by one when there is room.
func TestMore(t *testing.T) {
	b := NewBook(1)
	for i := range MaxEach + 50 {
		b.Sign(begin, wrong("a", fmt.Sprint(i)))
	}
	b.Sign(begin, wrong("b", "1"))
	if n := len(b.active); n != MaxEach+2 {
		t.Fatalf("%d active alarms, want %d", n, MaxEach+2)
	}
	more := b.active[identity{"a", More}]
	if more == nil || more.Count != 50 || more.Text != fmt.Sprintf("a %d", MaxEach+49) {
		t.Fatalf("the alarm about all the others is %+v", more)
	}
	b.Tick(begin.Add(time.Hour))
	if n := len(b.active); n != MaxEach+2 {
		t.Errorf("%d active alarms after an hour", n)
	}
	for i := range 20 {
		b.Sign(begin, right("a", fmt.Sprint(i)))
	}
	b.Tick(begin.Add(2 * time.Hour))
	if n := len(b.active); n != MaxEach+2 || b.active[identity{"a", "200"}] == nil {
		t.Errorf("%d active alarms when 20 are over, want the next ones in their place", n)
	}
	for i := range MaxEach {
		b.Sign(begin, right("a", fmt.Sprint(i)))
	}
	b.Tick(begin.Add(3 * time.Hour))
	if n := len(b.active); n != 51 || b.active[identity{"a", More}] != nil {
		t.Errorf("%d active alarms when there is room for all, want 51", n)
	}
	for i := range MaxEach + 50 {
		b.Sign(begin, right("a", fmt.Sprint(i)))
	}
	if len(b.causes) != 1 || b.each["a"] != 0 {
		t.Errorf("%d causes are left, %d of the kind a", len(b.causes), b.each["a"])
	}

	for i := range 5000 { // one who guesses passwords from many addresses
		b.Sign(begin, once("c", fmt.Sprint(i)))
	}
	if n := b.each["c"]; n != MaxEach || len(b.causes) != 1 {
		t.Errorf("%d alarms of addresses, %d causes", n, len(b.causes))
	}
	b.Tick(begin.Add(time.Hour))
	if n := len(b.active); n != 1 {
		t.Errorf("%d active alarms after a quiet hour, want 1", n)
	}
}

// S18: cleared alarms are kept for 30 days, at most 1000 of them.
func TestExpired(t *testing.T) {
	b := NewBook(1)
	for i := range KeepMax + 10 {
		at := begin.Add(time.Duration(i) * time.Second)
		b.Sign(at, wrong("a", "1"))
		b.Sign(at, right("a", "1"))
	}
	b.Sign(begin, wrong("a", "1"))
	got := b.Expired(begin.Add(time.Hour))
	if want := []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}; !slices.Equal(got, want) {
		t.Errorf("got %v, want the ten oldest", got)
	}
	for _, id := range append(got, KeepMax+11) { // the last one is active
		b.Forget(id)
	}
	if len(b.all) != KeepMax+1 {
		t.Errorf("%d alarms are left, want %d", len(b.all), KeepMax+1)
	}
	if got := b.Expired(begin.Add(KeepFor + 20*time.Second)); len(got) != 10 || got[0] != 11 {
		t.Errorf("after 30 days: %d, first %v", len(got), got[:1])
	}
}

// What became of an alarm is told in its order, and once.
func TestNews(t *testing.T) {
	raised := Record{ID: 1, Since: begin}
	acked, cleared := raised, raised
	acked.Acked = begin
	cleared.Cleared = begin
	both := acked
	both.Cleared = begin
	for _, test := range []struct {
		name   string
		before *Record
		after  Record
		want   []string
	}{
		{"new", nil, raised, []string{Raised}},
		{"new and over at once", nil, cleared, []string{Raised, Cleared}},
		{"all at once", nil, both, []string{Raised, Acked, Cleared}},
		{"counted", &raised, raised, nil},
		{"acknowledged", &raised, acked, []string{Acked}},
		{"over", &acked, both, []string{Cleared}},
		{"over already", &both, both, nil},
	} {
		if got := News(test.before, test.after); !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
}

// Whatever happens in whatever order: one active alarm of an identity, numbers
// that grow, no alarm without its cause and no cause without an alarm for long,
// and a book that was kept and read again is the same.
func TestBookAtRandom(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		b, now, last := NewBook(1), begin, uint64(0)
		wrongs := map[identity]bool{}
		for range 200 {
			now = now.Add(time.Duration(r.IntN(40)) * time.Second)
			i := identity{string(rune('a' + r.IntN(2))), fmt.Sprint(r.IntN(3))}
			switch r.IntN(6) {
			case 0, 1:
				b.Sign(now, wrong(i.kind, i.object))
				wrongs[i] = true
			case 2:
				b.Sign(now, right(i.kind, i.object))
				delete(wrongs, i)
			case 3:
				if a := b.active[i]; a != nil {
					x, _ := b.Clear(now, a.ID, "root")
					b.Removed(x)
				}
			case 4:
				for _, x := range b.Ack(now, nil, "root", "") {
					b.Acked(x)
				}
			case 5:
				b.Tick(now)
			}
			if b.next < last {
				t.Fatalf("seed %d: number %d comes after %d", seed, b.next, last)
			}
			last = b.next
			actives := map[identity]int{}
			for id, a := range b.all {
				if id != a.ID || a.ID >= b.next {
					t.Fatalf("seed %d: alarm %d under %d, the next is %d", seed, a.ID, id, b.next)
				}
				if a.active() {
					actives[a.identity()]++
					if !wrongs[a.identity()] {
						t.Fatalf("seed %d: %s %s has an alarm and no cause", seed, a.Kind, a.Object)
					}
				}
			}
			for i, n := range actives {
				if n > 1 || b.active[i] == nil {
					t.Fatalf("seed %d: %d active alarms about %v", seed, n, i)
				}
			}
		}
		b.Tick(now.Add(comeBack))
		for i := range wrongs {
			if b.active[i] == nil {
				t.Fatalf("seed %d: %v lasts and has no alarm", seed, i)
			}
		}
		again := NewBook(b.next)
		for _, a := range b.all {
			again.Restored(*a)
		}
		if !reflect.DeepEqual(seen(b), seen(again)) || !reflect.DeepEqual(b.each, clean(again.each, b.each)) || len(b.causes) != len(again.causes) {
			t.Fatalf("seed %d: read again it is\n%q\nand was\n%q", seed, seen(again), seen(b))
		}
	}
}

// clean adds the zeros of another count.
func clean(m, of map[string]int) map[string]int {
	for k := range of {
		m[k] += 0
	}
	return m
}

// Texts and objects of guests and users are bounded.
func TestBounds(t *testing.T) {
	b := NewBook(1)
	id, _ := b.Sign(begin, wrong("a", strings.Repeat("ä", 4000)))
	if r := b.Get(id); len(r.Text) > maxText || len(r.Object) > maxObject || !strings.HasSuffix(r.Object, "ä...") {
		t.Errorf("%d bytes of text, object %q", len(r.Text), r.Object)
	}
	b.Sign(begin, right("a", strings.Repeat("ä", 4000)))
	if b.Get(id).active() {
		t.Error("a long object is not found again")
	}
}
