package guard

import (
	"testing"
	"time"

	"verdecmd/satellite/desktop"
)

const hour = time.Hour // some time since the computer was started

// When a guardian leaves its post.
func TestLeaves(t *testing.T) {
	type look struct {
		at, end time.Duration
		alone   bool
		left    int
		want    bool
	}
	tests := map[string][]look{
		"its program lives":               {{hour, 0, false, 0, false}, {2 * hour, hour, false, 0, false}},
		"no lease, no program":            {{hour, 0, true, 0, true}},
		"a lease that goes on":            {{hour, hour + 1, true, 0, false}, {2 * hour, 3 * hour, true, 0, false}},
		"a desktop that does not die":     {{2 * hour, hour, true, 1, false}, {3 * hour, hour, true, 1, false}},
		"all gone, but a start may come":  {{2 * hour, hour, true, 0, false}, {2*hour + idleFor - 1, hour, true, 0, false}, {2*hour + idleFor, hour, true, 0, true}},
		"a start came while it waited":    {{2 * hour, hour, true, 0, false}, {2*hour + 1, hour, true, 1, false}, {2*hour + idleFor, hour, true, 0, false}},
		"not before the program's time":   {{hour + After, hour, true, 0, false}, {hour + After + 1, hour, true, 0, false}, {hour + After + idleFor, hour, true, 0, false}},
		"a program that came and went":    {{2 * hour, hour, true, 0, false}, {2*hour + 1, hour, false, 0, false}, {2*hour + idleFor, hour, true, 0, false}},
		"a lease that was renewed though": {{2 * hour, hour, true, 0, false}, {2*hour + 1, 3 * hour, true, 0, false}, {2*hour + idleFor, hour, true, 0, false}},
	}
	for name, looks := range tests {
		t.Run(name, func(t *testing.T) {
			var p Post
			for i, l := range looks {
				if got := p.Leaves(l.end, l.at, l.alone, l.left); got != l.want {
					t.Errorf("look %d: got %v, want %v", i, got, l.want)
				}
			}
		})
	}
}

// S1: a desktop is killed when its lease is over and its program has had time
// to end it, not before, and again until it is gone.
func TestLook_S1(t *testing.T) {
	all := []Desktop{{Session: "s1", Process: desktop.Process{PID: 7}}, {Session: "s2"}}
	tests := map[string]struct {
		end, now time.Duration
		kills    int
		left     int
	}{
		"no lease":                 {0, hour, 0, 2},
		"a lease":                  {hour + 1, hour, 0, 2},
		"over, its program's time": {hour, hour + After, 0, 2},
		"over":                     {hour, hour + After + 1, 2, 1},
		"over for long":            {1, hour, 2, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var p Post
			for round := range 2 {
				kills := 0
				left, leave := p.Look(tt.end, tt.now, false, all, func(d Desktop) bool { kills++; return d.Session == "s1" })
				if kills != tt.kills || left != tt.left || leave {
					t.Errorf("round %d: got %d kills, %d left, leaves %v; want %d, %d", round, kills, left, leave, tt.kills, tt.left)
				}
			}
		})
	}
}

// A keeper has a guardian while there is a lease, and dismisses others only when
// its own is at work.
func TestNext(t *testing.T) {
	tests := map[string]struct {
		end              time.Duration
		runs             bool
		began, beat, now time.Duration
		want             Deed
	}{
		"no lease":                  {0, true, 1, 2, 3, Remove},
		"none runs":                 {hour, false, 0, 0, 3, Start},
		"a lease that is over":      {1, false, 0, 0, hour, Start},
		"just started":              {hour, true, hour, 0, hour + frozenFor, Nothing},
		"does not come":             {hour, true, hour, 0, hour + frozenFor + 1, Replace},
		"at work":                   {hour, true, hour, hour + 1, hour + frozenFor + 1, Dismiss},
		"frozen":                    {hour, true, hour, hour + 1, hour + frozenFor + 2, Replace},
		"the beat of an earlier on": {hour, true, hour + 5, hour, hour + frozenFor + 5, Dismiss},
	}
	for name, tt := range tests {
		if got := Next(tt.end, tt.runs, tt.began, tt.beat, tt.now); got != tt.want {
			t.Errorf("%s: got %d, want %d", name, got, tt.want)
		}
	}
}

// A new desktop wants a guardian that was seen a moment ago.
func TestAwake(t *testing.T) {
	for beat, want := range map[time.Duration]bool{0: false, hour: true, hour - awakeFor: true, hour - awakeFor - 1: false} {
		if err := Awake(beat, hour); (err == nil) != want {
			t.Errorf("seen at %v, now %v: got %v", beat, hour, err)
		}
	}
}
