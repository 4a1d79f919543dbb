package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	chaosSeed    = flag.Uint64("chaos.seed", 0, "what is drawn by chance in TestChaos; 0: another seed each time")
	chaosMinutes = flag.Int("chaos.minutes", 0, "go round in TestChaos for so many minutes, or until Ctrl-C; 0: once")
	chaosFreeze  = flag.Duration("chaos.freeze", 12*time.Second, "the longest freeze of a process in TestChaos")
	chaosFills   = flag.Int("chaos.fills", 1, "how often TestChaos fills a disk in each round")
	chaosKills   = flag.Int("chaos.kills", 1, "how many times the usual number of kills TestChaos does in each round")
	chaosOnly    = flag.String("chaos.only", "", "names of groups of TestChaos, separated by commas; empty: all")
)

// plan is what a history does. All of it comes from the seed, but for the
// timing of the programs.
type plan struct {
	seed           uint64
	masterKills    int
	satelliteKills int
	freezes        int
	longest        time.Duration // of the freezes
	fills          int           // of a disk
}

// What is promised of a computer with nothing else to do, and how much more is
// left to one that is slow and also runs the rest of the tests, under -race.
const (
	backWithin      = 2 * time.Second  // a killed master answers again
	adoptWithin     = 3 * time.Second  // a killed satellite has its desktops again
	connectedWithin = 10 * time.Second // all satellites are back at a restarted master
	knownWithin     = 30 * time.Second // after the last fault everything is known (LV1)
	patience        = 10
)

// TestChaos lets the real programs, each on a computer of its own as far as the
// network goes, meet what computers and networks do to programs. The checkers
// look from outside: at what the desktops themselves have told (S1, S2, S4, S6
// to S9), at what administrators were told (S5), and at what is open at the end
// (S18, LV1). V-08, V-39, V-40, V-72, V-91, V-95 by the real programs.
//
// A failure prints the seed and what was done around it. The same seed does the
// same again, but the programs' timing is their own.
func TestChaos(t *testing.T) {
	t.Parallel()
	groups := []struct {
		name string
		f    func(*testing.T, plan)
	}{
		{"masterkills", chaosMasterKills},
		{"satellitekills", chaosSatelliteKills},
		{"freezes", chaosFreezes},
		{"lease", chaosLease},
		{"masters", chaosMasters},
		{"partitions", chaosPartitions},
		{"fulldisk", chaosFullDisk},
		{"stranger", chaosStranger},
	}
	if *chaosMinutes > 0 {
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, os.Interrupt)
		defer signal.Stop(signals)
		go func() { <-signals; stopChaos.Store(true) }()
	}
	seed := *chaosSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	end := time.Now().Add(time.Duration(*chaosMinutes) * time.Minute)
	for round := 0; ; round++ {
		t.Logf("round %d: seed %d", round, seed)
		var wg sync.WaitGroup // side by side whatever -parallel says: they mostly wait
		for i, g := range groups {
			if *chaosOnly != "" && !strings.Contains(","+*chaosOnly+",", ","+g.name+",") {
				continue
			}
			p := plan{seed: seed + uint64(i), masterKills: 15 * *chaosKills, satelliteKills: 10 * *chaosKills, freezes: 8, longest: *chaosFreeze, fills: *chaosFills}
			wg.Go(func() { t.Run(fmt.Sprintf("%s-%d", g.name, round), func(t *testing.T) { g.f(t, p) }) })
		}
		wg.Wait()
		if t.Failed() || stopChaos.Load() || !time.Now().Before(end) {
			return
		}
		seed = rand.Uint64()
	}
}

// stopChaos: what is under way comes to its end, nothing new begins.
var stopChaos atomic.Bool
