package master

import (
	"maps"
	"os"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"verdecmd/master/cluster"
	"verdecmd/master/link"
	"verdecmd/monitor"
)

// Metrics are the figures of the master. None is about a user.
func (b backend) Metrics() []monitor.Metric {
	m := b.m
	now := time.Now()
	family := func(name, help, kind string) monitor.Metric {
		return monitor.Metric{Name: name, Help: help, Type: kind}
	}
	one := func(v float64, labels ...string) monitor.Sample { return monitor.Sample{Labels: labels, Value: v} }
	info := family("verdecmd_info", "The version of the master; always 1.", "gauge")
	info.Samples = []monitor.Sample{one(1, "version", m.cfg.Version)}
	servers := family("verdecmd_server_info", "A server with its state and its link; always 1.", "gauge")
	cpu := family("verdecmd_server_cpu_ratio", "Busy share of a server's processors.", "gauge")
	free := family("verdecmd_server_memory_free_bytes", "Free memory of a server.", "gauge")
	total := family("verdecmd_server_memory_bytes", "Memory of a server.", "gauge")
	snap := family("verdecmd_server_snap_free_bytes", "Free space of a server's snap directory.", "gauge")
	age := family("verdecmd_server_report_age_seconds", "Time since the last report of a server.", "gauge")
	held := family("verdecmd_server_sessions", "Sessions on a server.", "gauge")
	reserved := family("verdecmd_server_reservations", "Places held on a server.", "gauge")
	states := family("verdecmd_sessions", "Sessions by state.", "gauge")
	all, inState, places := m.measured(now)
	for _, s := range all {
		server := []string{"server", strconv.FormatUint(s.id, 10)}
		add := func(m *monitor.Metric, v float64) { m.Samples = append(m.Samples, one(v, server...)) }
		servers.Samples = append(servers.Samples, one(1, "server", server[1], "name", s.name, "state", string(s.state), "link", s.link))
		add(&held, float64(s.sessions))
		add(&reserved, float64(s.reserved))
		if s.age < 0 {
			continue
		}
		add(&cpu, s.load.CPUBusy)
		add(&free, float64(s.load.MemoryFree))
		add(&total, float64(s.load.MemoryTotal))
		add(&snap, float64(s.load.SnapFree))
		add(&age, s.age.Seconds())
	}
	for _, state := range []string{cluster.Starting, cluster.Running, cluster.Hung, cluster.Stopping, cluster.Aborting, cluster.Lost, cluster.Failed} {
		states.Samples = append(states.Samples, one(float64(inState[state]), "state", state))
	}
	jobs := family("verdecmd_jobs", "Jobs under way, by action.", "gauge")
	by := map[string]int{"logoffuser": 0, "shutdownuser": 0, "abortuser": 0, backupAction: 0}
	for _, j := range m.jobs.List(false) {
		by[j.Action]++
	}
	for _, action := range slices.Sorted(maps.Keys(by)) {
		jobs.Samples = append(jobs.Samples, one(float64(by[action]), "action", action))
	}
	commits := family("verdecmd_store_commits_total", "Commits of the database by result.", "counter")
	commits.Samples = []monitor.Sample{
		one(float64(m.commits.done.Load()), "result", "done"),
		one(float64(m.commits.refused.Load()), "result", "conflict"),
		one(float64(m.commits.failed.Load()), "result", "failed"),
	}
	active := family("verdecmd_alarms", "Active alarms by severity.", "gauge")
	counts, _ := m.alarm.Counts()
	for _, severity := range monitor.Severities {
		active.Samples = append(active.Samples, one(float64(counts[severity]), "severity", severity))
	}
	interval, wished, _ := m.interval()
	late := m.link.Late()
	lateness := family("verdecmd_report_late_seconds", "How late load reports came.", "histogram")
	sum := uint64(0)
	for i, n := range late.Classes {
		le := "+Inf"
		if i < len(link.LateBounds) {
			le = strconv.FormatFloat(link.LateBounds[i].Seconds(), 'g', -1, 64)
		}
		sum += n
		lateness.Samples = append(lateness.Samples, monitor.Sample{Suffix: "_bucket", Labels: []string{"le", le}, Value: float64(sum)})
	}
	lateness.Samples = append(lateness.Samples, monitor.Sample{Suffix: "_sum", Value: late.Sum.Seconds()}, monitor.Sample{Suffix: "_count", Value: float64(sum)})
	out := []monitor.Metric{info, lateness, servers, cpu, free, total, snap, age, held, reserved, states, jobs, commits, active,
		monitor.Counter("verdecmd_store_commit_seconds_total", "Time that commits of the database took.", time.Duration(m.commits.nanos.Load()).Seconds()),
		monitor.Gauge("verdecmd_reservations", "Places held for logins.", float64(places)),
		monitor.Gauge("verdecmd_report_late_worst_seconds", "The latest load report since the start of the master.", late.Worst.Seconds()),
		monitor.Gauge("verdecmd_report_interval_seconds", "Time between two load reports of a satellite that is in force.", interval.Seconds()),
		monitor.Gauge("verdecmd_report_interval_wished_seconds", "The same as the settings have it.", wished.Seconds()),
		monitor.Gauge("verdecmd_events_seq", "Number of the newest event.", float64(m.events.Seq())),
		monitor.Gauge("verdecmd_epoch", "Which start of the master this is.", float64(m.cfg.Epoch)),
		monitor.Gauge("verdecmd_uptime_seconds", "Time since the start of the master.", now.Sub(m.started).Seconds()),
	}
	return append(out, processMetrics(m.started)...)
}

// measured is what the figures of a server are made of.
type measured struct {
	id                 uint64
	name, link         string
	state              cluster.State
	sessions, reserved int
	load               cluster.Load
	age                time.Duration // of its last report; negative: none yet
}

// measured copies what figures are made of: reports wait meanwhile, so they are
// made afterwards.
func (m *Master) measured(now time.Time) (all []measured, inState map[string]int, places int) {
	inState = map[string]int{}
	m.with(func(c *cluster.Cluster) {
		servers := c.Servers()
		all = make([]measured, len(servers))
		for i, s := range servers {
			x := measured{id: s.ID, name: s.Name, link: c.Link(s, now), state: s.State, load: s.Load, age: -1}
			x.sessions, x.reserved = c.Counts(s.ID)
			if !s.Reported.IsZero() {
				x.age = max(0, now.Sub(s.Reported))
			}
			all[i] = x
		}
		c.EachSession(func(x *cluster.Session) { inState[x.State()]++ })
		_, places = c.Total()
	})
	return all, inState, places
}

// processMetrics are the figures that all programs tell under these names.
func processMetrics(started time.Time) []monitor.Metric {
	out := []monitor.Metric{
		monitor.Gauge("go_goroutines", "Goroutines.", float64(runtime.NumGoroutine())),
		monitor.Gauge("process_start_time_seconds", "Start of the process since the epoch of Unix.", float64(started.UnixMilli())/1000),
	}
	heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/total:bytes"}}
	metrics.Read(heap)
	out = append(out,
		monitor.Gauge("go_memstats_heap_alloc_bytes", "Memory of live and not yet freed objects.", float64(heap[0].Value.Uint64())),
		monitor.Gauge("go_memstats_sys_bytes", "Memory that the runtime has from the system.", float64(heap[1].Value.Uint64())))
	var use unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &use) == nil {
		seconds := time.Duration(use.Utime.Nano() + use.Stime.Nano()).Seconds()
		out = append(out, monitor.Counter("process_cpu_seconds_total", "Time of processors used.", seconds))
	}
	if raw, err := os.ReadFile("/proc/self/statm"); err == nil {
		if f := strings.Fields(string(raw)); len(f) > 1 {
			pages, _ := strconv.ParseFloat(f[1], 64)
			out = append(out, monitor.Gauge("process_resident_memory_bytes", "Resident memory.", pages*float64(os.Getpagesize())))
		}
	}
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		out = append(out, monitor.Gauge("process_open_fds", "Open files and sockets.", float64(len(fds)-1))) // one is ours
	}
	return out
}
