package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestChaosCheckers: each checker of TestChaos finds what it is there for, and
// nothing where all is well.
func TestChaosCheckers(t *testing.T) {
	t.Parallel()
	at := func(user, session, host string, pid int, from, to time.Duration) *life {
		return &life{user: user, session: session, host: host, uuid: "u-" + session, pid: pid, start: from * time.Second, last: to * time.Second}
	}
	told := func(l *life, when time.Duration, what string) *life {
		l.told = append(l.told, one{when * time.Second, what})
		return l
	}
	granted := map[string]claim{"s1": {"alice", "s1", "sat1", 0}, "s2": {"alice", "s2", "sat2", 9 * time.Second}, "s3": {"bob", "s3", "sat1", 0}}
	late := at("alice", "s1", "sat1", 1, 0, 10)
	late.locked = true
	tests := map[string]struct {
		lives         []*life
		wishes        []wish
		killed, alive []int
		offline       []window
		want          string // beginnings of the violations
	}{
		"all well":                    {lives: []*life{at("alice", "s1", "sat1", 1, 0, 10), at("alice", "s2", "sat2", 2, 11, 20), at("bob", "s3", "sat1", 3, 0, 20)}, killed: []int{1}, alive: []int{2, 3}},
		"two at once":                 {lives: []*life{at("alice", "s1", "sat1", 1, 0, 10), at("alice", "s2", "sat2", 2, 9, 20)}, alive: []int{1, 2}, want: "S1"},
		"a short one within another":  {lives: []*life{at("alice", "s1", "sat1", 1, 0, 30), at("alice", "s2", "sat2", 2, 9, 10)}, alive: []int{1, 2}, want: "S1"},
		"the disk in use":             {lives: []*life{late}, alive: []int{1}, want: "S2"},
		"not granted":                 {lives: []*life{at("bob", "s9", "sat1", 1, 0, 10)}, alive: []int{1}, want: "S4"},
		"granted to another":          {lives: []*life{at("bob", "s1", "sat1", 1, 0, 10)}, alive: []int{1}, want: "S4"},
		"granted elsewhere":           {lives: []*life{at("alice", "s1", "sat2", 1, 0, 10)}, alive: []int{1}, want: "S4"},
		"started twice":               {lives: []*life{at("alice", "s1", "sat1", 1, 0, 10), at("alice", "s1", "sat1", 2, 11, 12)}, killed: []int{1}, alive: []int{2}, want: "S4"},
		"gone by itself":              {lives: []*life{at("alice", "s1", "sat1", 1, 0, 10)}, want: "S7"},
		"stopped":                     {lives: []*life{told(at("alice", "s1", "sat1", 1, 0, 10), 5, "stop")}, alive: []int{1}, want: "S7"},
		"ended as asked":              {lives: []*life{told(at("alice", "s1", "sat1", 1, 0, 10), 10, "quit")}, wishes: []wish{{"alice", 9 * time.Second, 11 * time.Second}}},
		"ended, another was asked":    {lives: []*life{told(at("bob", "s3", "sat1", 1, 0, 10), 10, "quit")}, alive: []int{1}, wishes: []wish{{"alice", 9 * time.Second, 11 * time.Second}}, want: "S8"},
		"ended by an old word":        {lives: []*life{told(at("alice", "s2", "sat2", 1, 11, 20), 20, "quit")}, alive: []int{1}, wishes: []wish{{"alice", 0, 4 * time.Second}}, want: "S8"},
		"asked before it started":     {lives: []*life{told(at("alice", "s2", "sat2", 1, 11, 12), 12, "quit")}, wishes: []wish{{"alice", 0, 10 * time.Second}}},
		"granted while offline":       {lives: []*life{at("alice", "s2", "sat2", 1, 11, 12)}, alive: []int{1}, offline: []window{{"sat2", 5 * time.Second, windowEnd}}, want: "S6"},
		"granted just before offline": {lives: []*life{at("alice", "s2", "sat2", 1, 11, 12)}, alive: []int{1}, offline: []window{{"sat2", 8 * time.Second, windowEnd}}},
		"granted before offline":      {lives: []*life{at("bob", "s3", "sat1", 1, 9, 10)}, alive: []int{1}, offline: []window{{"sat1", 5 * time.Second, windowEnd}}},
		"granted when online again":   {lives: []*life{at("alice", "s2", "sat2", 1, 11, 12)}, alive: []int{1}, offline: []window{{"sat2", 5 * time.Second, 8 * time.Second}}},
		"another server is offline":   {lives: []*life{at("alice", "s2", "sat2", 1, 11, 12)}, alive: []int{1}, offline: []window{{"sat1", 5 * time.Second, windowEnd}}},
	}
	set := func(pids []int) map[int]bool {
		m := map[int]bool{}
		for _, p := range pids {
			m[p] = true
		}
		return m
	}
	for name, tt := range tests {
		var got []string
		for _, v := range judge(tt.lives, granted, tt.wishes, set(tt.killed), set(tt.alive), tt.offline) {
			got = append(got, v.text[:2])
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

// What the witness writes is read back as it was.
func TestReadLives(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "log")
	text := "5000000000 start alice s1 u-1 sat1 17\n5100000000 beat alice s1 u-1 sat1 17\n6000000000 start bob s2 u-2 sat2 17\n" +
		"7000000000 quit alice s1 u-1 sat1 17\n7000000001 end alice s1 u-1 sat1 17\n"
	check(t, appendTo(file, text))
	lives, err := readLives(file)
	check(t, err)
	got := fmt.Sprint(lives)
	want := "[desktop of alice, session s1 on sat1, process 17, seen 5.000 to 7.000 desktop of bob, session s2 on sat2, process 17, seen 6.000 to 6.000]"
	if got != want || len(lives[0].told) != 2 {
		t.Errorf("got %s, want %s; told %v, want two records", got, want, lives[0].told)
	}
	check(t, appendTo(file, "cut off\n"))
	if _, err := readLives(file); err == nil {
		t.Error("a record that is none was read")
	}
}
