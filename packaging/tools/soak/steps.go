package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// build makes a test program, once.
type build struct {
	name, what string
	race       bool
}

var builds = []build{{"cluster.test", ".", true}, {"store.test", "./master/store", false}}

func (b build) run(dir string) error {
	args := []string{"test", "-c", "-o", filepath.Join(dir, b.name)}
	if b.race {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, b.what)...)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("building %s: %w", b.name, err)
	}
	return nil
}

// step is one turn of a check. $DIR, $SEED and $MINUTES in its words are the
// directory of the test programs, a random number and how long it may take.
type step struct {
	name string
	in   string // directory
	env  []string
	args []string
	// kind and count are what it is worth when it succeeds; without a kind the
	// program writes to $DIR/counts itself, a line for each thing survived.
	kind  string
	count int
	// stops: an interrupt ends it early and in order. Else it is left to its end.
	stops bool
}

// histories is how many of one step are drawn.
const histories = 2000

var steps = []step{
	{name: "chaos", in: ".", stops: true, args: []string{"$DIR/cluster.test", "-test.run=^TestChaos$", "-test.timeout=0", "-chaos.seed=$SEED", "-chaos.minutes=$MINUTES",
		"-chaos.freeze=60s", "-chaos.kills=3", "-chaos.fills=25", "-chaos.counts=$DIR/counts"}},
	{name: "histories", in: ".", stops: true, args: []string{"bin/verdecmd", "simulate", "--check", "--histories", "2000", "--seed", "$SEED"}, kind: "histories", count: histories},
	{name: "cluster-histories", in: ".", env: []string{"VERDECMD_L2_SEED=$SEED", "VERDECMD_L2_HISTORIES=50"},
		args: []string{"$DIR/cluster.test", "-test.run=^TestSimChaos$", "-test.timeout=0"}, kind: "cluster-histories", count: 50},
	{name: "crash-images", in: "master/store", env: []string{"VERDECMD_CRASH_IMAGES=5000", "VERDECMD_CRASH_SEED=$SEED"},
		args: []string{"$DIR/store.test", "-test.run=^TestCrashImages$", "-test.timeout=0"}, kind: "crash-images", count: 5000},
	{name: "floods", in: ".", env: []string{"VERDECMD_FLOOD_SECONDS=5"},
		args: []string{"$DIR/cluster.test", "-test.run=^TestFlood$", "-test.timeout=0"}, kind: "floods", count: 1},
}

// wanted is what the sum of all runs is to be before a first release, by kind,
// in the order of the table. 0: no figure is asked for.
var wanted = []struct {
	kind  string
	count int
	what  string
}{
	{"kill-master", 1000, "kill -9 of the master under load"},
	{"kill-satellite", 500, "kill -9 of a satellite with desktops"},
	{"freeze", 300, "freezes of any process, 0.1 to 60 s"},
	{"partition", 200, "networks that were cut"},
	{"full-disk", 500, "full disks"},
	{"second-master", 0, "two masters on copies of one state"},
	{"lease", 0, "satellites frozen for longer than their lease"},
	{"stranger", 0, "strangers with the number of a desktop"},
	{"histories", 100000, "simulated histories"},
	{"cluster-histories", 10000, "histories over real links in fake time"},
	{"crash-images", 100000, "images of a disk after a power cut"},
	{"floods", 0, "floods of all kinds"},
}
