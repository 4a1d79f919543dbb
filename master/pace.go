package master

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"verdecmd/master/cluster"
	"verdecmd/master/link"
	"verdecmd/monitor"
)

// window is how long the master looks at what it can do before it judges.
const window = 10 * time.Second

// pace is how often satellites report, and why not as often as is wished.
type pace struct {
	mu    sync.Mutex // guards all
	rules link.Pacing
	wish  cluster.Limits // as the settings have it
	why   string         // empty: as wished
}

// SetLimits takes over changed settings, here and on the satellites.
func (m *Master) SetLimits(l cluster.Limits) {
	m.pace.mu.Lock()
	defer m.pace.mu.Unlock()
	m.pace.wish = l
	m.pace.rules.Wish(l.Interval)
	if m.pace.rules.Interval() == l.Interval {
		m.pace.why = ""
	}
	m.setPace()
}

// setPace makes the interval count: here, where reports grow too old by it, and
// on the satellites. pace.mu must be held.
func (m *Master) setPace() {
	l := m.pace.wish
	l.Interval = m.pace.rules.Interval()
	m.with(func(c *cluster.Cluster) { c.SetLimits(l) })
	m.link.SetTimes(link.Times{Interval: l.Interval})
}

// interval tells which interval is in force, which is wished, and why they
// differ.
func (m *Master) interval() (now, wish time.Duration, why string) {
	m.pace.mu.Lock()
	defer m.pace.mu.Unlock()
	return m.pace.rules.Interval(), m.pace.wish.Interval, m.pace.why
}

// keepPace stretches the interval while the master cannot keep up.
func (m *Master) keepPace(ctx context.Context) error {
	tick := time.NewTicker(window)
	defer tick.Stop()
	before, used, at := m.link.Late(), m.cfg.Used(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		late, cpu, now := m.link.Late(), m.cfg.Used(), time.Now()
		m.judge(link.Window{Took: now.Sub(at), Reports: late.Count() - before.Count(), Late: late.Over(link.LateAfter) - before.Over(link.LateAfter),
			CPU: cpu - used, Processors: runtime.GOMAXPROCS(0)})
		before, used, at = late, cpu, now
	}
}

// judge takes a window in and tells what has changed.
func (m *Master) judge(w link.Window) {
	m.pace.mu.Lock()
	defer m.pace.mu.Unlock()
	before := m.pace.rules.Interval()
	why := m.pace.rules.Judge(w)
	if why == "" {
		return
	}
	m.setPace()
	now, wish := m.pace.rules.Interval(), m.pace.wish.Interval
	m.pace.why = why
	text, log := fmt.Sprintf("Satellites report every %v from now on, not every %v as is wished: %s.", now, wish, why), m.cfg.Log.Warn()
	switch {
	case now == wish:
		m.pace.why = ""
		text, log = fmt.Sprintf("Satellites report every %v again, as is wished: %s.", now, why), m.cfg.Log.Info()
	case now < before:
		text, log = fmt.Sprintf("Satellites report every %v from now on; wished is every %v: %s.", now, wish, why), m.cfg.Log.Info()
	}
	log.Dur("interval", now).Dur("wish", wish).Dur("before", before).Str("why", why).Msg("the interval between load reports has changed")
	m.event("master.interval", text, monitor.Pair{Key: "interval", Value: now.Seconds()}, monitor.Pair{Key: "wish", Value: wish.Seconds()}, monitor.Pair{Key: "msg", Value: why})
}

// used is the time of processors that this program has used.
func used() time.Duration {
	var use unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &use) != nil {
		return 0
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}
