package host

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"verdecmd/proto/wire"
)

func digestOf(b byte) (d digest) {
	d[0] = b
	return d
}

// S17, RELIABILITY 4.4, pitfall 4: what becomes of a token, both orders of use
// and expiry among it. No refusal uses a token up.
func TestTokenAdmit(t *testing.T) {
	made := time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)
	hash, key := digestOf(1), digestOf(2)
	fresh := token{ID: 7, Hash: hash, Role: wire.Satellite, Name: "sat1", Address: "192.0.2.1", Made: made, Expires: made.Add(time.Hour), By: "root"}
	used := fresh
	used.Used = &use{At: made.Add(time.Minute), Key: key, From: "192.0.2.9", Answer: Joined{Name: "sat1", Server: 3}}
	wide := fresh
	wide.Name, wide.Address = "", ""
	byPassword := used
	byPassword.ByPassword, byPassword.Hash = true, digest{}
	right := claim{Hash: hash, Key: key, Role: wire.Satellite, Name: "sat1", Address: "192.0.2.1"}
	with := func(f func(*claim)) claim { c := right; f(&c); return c }
	tests := map[string]struct {
		t     *token
		after time.Duration
		c     claim
		again bool
		want  string // of the refusal
	}{
		"in time":                         {t: &fresh, after: time.Minute, c: right},
		"at the last moment":              {t: &fresh, after: time.Hour - 1, c: right},
		"at its end":                      {t: &fresh, after: time.Hour, c: right, want: "expired at 2026-11-21T21:00:00Z and it is 2026-11-21T21:00:00Z"},
		"long after":                      {t: &fresh, after: 900 * time.Hour, c: right, want: "expired"},
		"no such token":                   {t: nil, c: right, want: "is not known here"},
		"no such token, no secret":        {t: nil, c: with(func(c *claim) { c.Hash = digest{} }), want: "is not known here"},
		"another secret":                  {t: &fresh, c: with(func(c *claim) { c.Hash[31] = 1 }), want: "is not known here"},
		"another secret, used":            {t: &used, c: with(func(c *claim) { c.Hash[31] = 1 }), want: "is not known here"},
		"used, the same machine":          {t: &used, after: 30 * time.Minute, c: right, again: true},
		"used, the same, expired":         {t: &used, after: time.Hour, c: right, want: "used already, at 2026-11-21T20:01:00Z by sat1 from 192.0.2.9"},
		"used, another key":               {t: &used, after: 2 * time.Minute, c: with(func(c *claim) { c.Key = digestOf(3) }), want: "used already"},
		"used, another name":              {t: &used, after: 2 * time.Minute, c: with(func(c *claim) { c.Name = "sat2" }), want: "used already"},
		"another name":                    {t: &fresh, c: with(func(c *claim) { c.Name = "sat2" }), want: "is for the host sat1, this one is sat2"},
		"another address":                 {t: &fresh, c: with(func(c *claim) { c.Address = "192.0.2.2" }), want: "is for the address 192.0.2.1"},
		"another role":                    {t: &fresh, c: with(func(c *claim) { c.Role = wire.Master }), want: "is for a satellite, not for a master"},
		"not bound":                       {t: &wide, c: with(func(c *claim) { c.Name, c.Address = "sat9", "elsewhere" })},
		"made by password, empty secret":  {t: &byPassword, c: with(func(c *claim) { c.Hash = digest{} }), want: "is not known here"},
		"made by password, some secret":   {t: &byPassword, c: right, want: "is not known here"},
		"expired and for another machine": {t: &fresh, after: time.Hour, c: with(func(c *claim) { c.Name = "sat2" }), want: "expired"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			before, _ := json.Marshal(test.t)
			again, err := test.t.admit(made.Add(test.after), test.c)
			if again != test.again || (err == nil) != (test.want == "") || err != nil && (!strings.Contains(err.Error(), test.want) || wire.KindOf(err) != wire.Denied) {
				t.Errorf("got again %v, %v; want %v, %q", again, err, test.again, test.want)
			}
			if after, _ := json.Marshal(test.t); string(after) != string(before) {
				t.Errorf("the token was changed from %s to %s", before, after)
			}
		})
	}
}

// S17: histories of tokens that are made, shown by several machines, lost on the
// way, deleted and that expire, in any order. Each token makes at most one
// certificate, in its life, for whom it is bound to; the same machine gets the
// same answer, and a new token for a name is the only one for it.
func TestTokenHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)
		all := map[uint64]*token{}
		type given struct {
			key     digest
			name    string
			answers int // certificates that were made
		}
		log := map[uint64]*given{}
		var last uint64
		names := rapid.SampledFrom([]string{"sat1", "sat2", "sat3"})
		t.Repeat(map[string]func(*rapid.T){
			"wait": func(t *rapid.T) { now = now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "minutes")) * time.Minute) },
			"create": func(t *rapid.T) {
				last++
				x := &token{ID: last, Hash: digestOf(byte(last)), Role: wire.Satellite, Made: now, Expires: now.Add(time.Hour)}
				if rapid.Bool().Draw(t, "bound") {
					x.Name = names.Draw(t, "name")
				}
				for _, id := range killedBy(all, x.Name) {
					delete(all, id)
				}
				all[x.ID] = x
				log[x.ID] = &given{}
			},
			"delete": func(t *rapid.T) { delete(all, rapid.Uint64Range(0, last).Draw(t, "id")) },
			"show": func(t *rapid.T) {
				id := rapid.Uint64Range(0, last+1).Draw(t, "id")
				c := claim{Hash: digestOf(byte(id)), Key: digestOf(rapid.ByteRange(1, 3).Draw(t, "key")), Role: wire.Satellite, Name: names.Draw(t, "name")}
				x := all[id]
				again, err := x.admit(now, c)
				switch {
				case err != nil:
				case x == nil || !now.Before(x.Expires) || now.Before(x.Made):
					t.Fatalf("token %d, %+v, lets in at %v", id, x, now)
				case again:
					if g := log[id]; g.answers != 1 || g.key != c.Key || g.name != c.Name {
						t.Fatalf("token %d gives %+v the answer of %+v", id, c, g)
					}
				default:
					g := log[id]
					if g.answers++; g.answers > 1 {
						t.Fatalf("token %d lets in %+v after %+v", id, c, g)
					}
					if x.Name != "" && x.Name != c.Name {
						t.Fatalf("token %d for %s lets in %s", id, x.Name, c.Name)
					}
					g.key, g.name = c.Key, c.Name
					next := *x
					next.Used = &use{At: now, Key: c.Key, Answer: Joined{Name: c.Name}}
					all[id] = &next
				}
			},
			"": func(t *rapid.T) {
				live := map[string]uint64{}
				for id, x := range all {
					if x.Name != "" && x.Used == nil {
						if other := live[x.Name]; other != 0 {
							t.Fatalf("tokens %d and %d are for %s", id, other, x.Name)
						}
						live[x.Name] = id
					}
				}
			},
		})
	})
}

// What a machine that joins by password may use beside it: the answer that it
// was given already, and the place of a server that was given away.
func TestPasswordTokens(t *testing.T) {
	now := time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)
	key := digestOf(2)
	place := &token{ID: 1, Hash: digestOf(1), Role: wire.Satellite, Name: "sat1", Address: "a", Server: 4, Expires: now.Add(time.Hour)}
	plain := &token{ID: 2, Hash: digestOf(2), Role: wire.Satellite, Name: "sat2", Address: "a", Expires: now.Add(time.Hour)}
	joined := func(password bool) *token {
		x := &token{ID: 3, Role: wire.Satellite, Expires: now.Add(time.Hour)}
		x.Used = &use{At: now, Key: key, Password: password, Answer: Joined{Name: "sat3"}}
		return x
	}
	all := map[uint64]*token{1: place, 2: plain, 3: joined(true)}
	c := func(name, address string) claim {
		return claim{Key: key, Role: wire.Satellite, Name: name, Address: address}
	}
	if got := permit(all, now, c("sat1", "a")); got != place {
		t.Errorf("same name and address: got %+v", got)
	}
	for what, got := range map[string]*token{
		"another address":          permit(all, now, c("sat1", "b")),
		"too late":                 permit(all, now.Add(time.Hour), c("sat1", "a")),
		"a token for a new server": permit(all, now, c("sat2", "a")),
		"somebody else's answer":   answered(all, now, c("sat1", "a")),
		"an answer that is old":    answered(all, now.Add(time.Hour), c("sat3", "a")),
		"an answer to a token":     answered(map[uint64]*token{3: joined(false)}, now, c("sat3", "a")),
	} {
		if got != nil {
			t.Errorf("%s: got %+v", what, got)
		}
	}
	if got := answered(all, now, c("sat3", "a")); got == nil || got.ID != 3 {
		t.Errorf("a lost answer: got %+v", got)
	}
}

func TestDigestText(t *testing.T) {
	want := digestOf(0xab)
	b, err := json.Marshal(want)
	var got digest
	if err2 := json.Unmarshal(b, &got); err != nil || err2 != nil || got != want {
		t.Errorf("%s: got %v, %v, %v", b, got, err, err2)
	}
	for _, bad := range []string{`""`, `"ab"`, `"` + strings.Repeat("g", 64) + `"`, `"` + strings.Repeat("a", 65) + `"`, `"` + strings.Repeat("a", 66) + `"`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s is a digest", bad)
		}
	}
}
