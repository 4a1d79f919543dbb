package fleet

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"verdecmd/master/link"
)

// Result is what one run has measured.
type Result struct {
	Machine    Machine  `json:"machine"`
	Satellites int      `json:"satellites"`
	Sessions   int      `json:"sessions"`
	IntervalS  float64  `json:"interval_s"`
	WindowS    int      `json:"window_s"`
	TLS        bool     `json:"floor_tls"`
	Ours       *Figures `json:"ours"`
	Floor      *Figures `json:"floor,omitempty"`
	Table      []Line   `json:"table"` // the same for people
}

// Line is one row of the table. Floor, Ratio, Target and Met may be empty.
type Line struct {
	ID     string `json:"id"` // in the project's list of floors and peers
	What   string `json:"what"`
	Ours   string `json:"ours"`
	Floor  string `json:"floor"`
	Ratio  string `json:"ratio"`
	Target string `json:"target"`
	Met    string `json:"met"`
}

// Machine is where it was measured. The fleet runs on it too.
type Machine struct {
	Processor  string    `json:"processor"`
	Processors int       `json:"processors"`
	Kernel     string    `json:"kernel"`
	Load1      float64   `json:"load1"` // before
	At         time.Time `json:"at"`
}

// Figures are those of the master or of the floor. What a floor does not do is
// 0 there. CPU is user and system time of that process alone.
type Figures struct {
	BaseRSS      int64 `json:"base_rss"` // bytes, without satellites
	RSS          int64 `json:"rss"`      // with all of them
	RSSSatellite int64 `json:"rss_per_satellite"`
	RSSSessions  int64 `json:"rss_with_sessions"`

	FirstPerS float64 `json:"first_connects_per_s"` // never seen before: registered durably
	FirstCPU  float64 `json:"first_connect_cpu_us"`

	Reports     uint64  `json:"reports"`        // in the measured window
	ReportsPerS float64 `json:"reports_per_s"`  //
	ReportCPU   float64 `json:"report_cpu_us"`  // user and system, for each report
	CPU         float64 `json:"cpu_percent"`    // of one core
	Late        Late    `json:"late"`           // reports in the window
	AgeP50      float64 `json:"age_p50_s"`      // of the newest report of each satellite, at one instant
	AgeP99      float64 `json:"age_p99_s"`      //
	AgeMax      float64 `json:"age_max_s"`      //
	Lost        int64   `json:"reports_lost"`   // sent and never taken in
	InForce     float64 `json:"interval_s"`     // interval in force at the end
	Overran     int     `json:"fleet_late"`     // reports that the fleet itself sent more than 50 ms late
	FleetCPU    float64 `json:"fleet_cpu_pct"`  // of one core: the other side of the machine's load
	BusyLate    Late    `json:"busy_late"`      // reports while lists are asked for and users come and go
	BusyLogin   Spread  `json:"busy_login"`     // refer and claim meanwhile
	BusyPerS    float64 `json:"busy_logins_ps"` //

	Refer     Spread  `json:"refer"` // one caller
	Claim     Spread  `json:"claim"`
	Login     Spread  `json:"login"`
	ManyRefer Spread  `json:"refer_128"` // 128 callers
	ManyClaim Spread  `json:"claim_128"`
	RefersPS  float64 `json:"refers_per_s"`
	ClaimsPS  float64 `json:"claims_per_s"`
	LoginsPS  float64 `json:"logins_per_s"`
	ReferCPU  float64 `json:"refer_cpu_us"` // for each, 128 callers
	ClaimCPU  float64 `json:"claim_cpu_us"`

	Servers Spread `json:"list_servers"`
	Users   Spread `json:"list_users"`
	Rows    int    `json:"list_users_rows"`

	RestartS float64 `json:"restart_s"` // from the start of the process to its first answer
	// RestartAloneS is the same while no satellite tries to come back.
	RestartAloneS float64 `json:"restart_alone_s"`

	BackS    float64 `json:"back_s"`  // from the start of the process until all satellites are back
	KnownS   float64 `json:"known_s"` // and all sessions are known
	BackPerS float64 `json:"back_per_s"`
	BackCPU  float64 `json:"back_cpu_us"` // for each satellite
}

// Late is how late reports were, in seconds.
type Late struct {
	P50  float64 `json:"p50_s"`
	P99  float64 `json:"p99_s"`
	Max  float64 `json:"max_s"`
	Over uint64  `json:"over_50ms"`
}

// Spread is how long something took, in microseconds.
type Spread struct {
	N   int     `json:"n"`
	P50 float64 `json:"p50_us"`
	P99 float64 `json:"p99_us"`
	Max float64 `json:"max_us"`
}

func spread(all []time.Duration) Spread {
	if len(all) == 0 {
		return Spread{}
	}
	slices.Sort(all)
	us := func(i int) float64 { return float64(all[i].Nanoseconds()) / 1e3 }
	return Spread{N: len(all), P50: us(len(all) / 2), P99: us(len(all) * 99 / 100), Max: us(len(all) - 1)}
}

// lateBetween is the lateness of the reports between two instants. A share is
// looked for in its class as if its reports were spread evenly there.
func lateBetween(a, b link.Late) Late {
	var classes [len(link.LateBounds) + 1]uint64
	total, last := uint64(0), -1
	for i := range classes {
		classes[i] = b.Classes[i] - a.Classes[i]
		total += classes[i]
		if classes[i] > 0 {
			last = i
		}
	}
	if total == 0 {
		return Late{}
	}
	edge := func(i int) float64 {
		switch {
		case i < 0:
			return 0
		case i < len(link.LateBounds):
			return link.LateBounds[i].Seconds()
		}
		return b.Worst.Seconds()
	}
	at := func(share float64) float64 {
		want, seen := share*float64(total), 0.0
		for i, n := range classes {
			if seen+float64(n) >= want && n > 0 {
				return edge(i-1) + (edge(i)-edge(i-1))*(want-seen)/float64(n)
			}
			seen += float64(n)
		}
		return edge(len(classes) - 1)
	}
	most := min(edge(last), b.Worst.Seconds())
	out := Late{P50: min(at(0.5), most), P99: min(at(0.99), most), Max: most}
	for i, n := range classes {
		if i == len(link.LateBounds) || link.LateBounds[i] > 50*time.Millisecond {
			out.Over += n
		}
	}
	return out
}

// row is one line of the table; ratio is ours by the floor, wanted at most.
type row struct {
	id, what    string
	ours, floor float64
	show        func(float64) string
	most        float64 // of the ratio; 0: none
	target      string
	met         bool
}

func kb(v float64) string     { return fmt.Sprintf("%.1f KB", v/1e3) }
func mb(v float64) string     { return fmt.Sprintf("%.0f MB", v/1e6) }
func micros(v float64) string { return fmt.Sprintf("%.0f µs", v) }
func millis(v float64) string { return fmt.Sprintf("%.1f ms", v/1e3) }
func secondsT(v float64) string {
	if v < 1 {
		return fmt.Sprintf("%.1f ms", v*1e3)
	}
	return fmt.Sprintf("%.1f s", v)
}
func perSecond(v float64) string { return fmt.Sprintf("%.0f/s", v) }
func percent(v float64) string   { return fmt.Sprintf("%.1f %%", v) }

func (r *Result) rows() []row {
	o, f := r.Ours, r.Floor
	if f == nil {
		f = &Figures{}
	}
	return []row{
		{id: "A1", what: "memory for each satellite", ours: float64(o.RSSSatellite), floor: float64(f.RSSSatellite), show: kb, most: 1.15},
		{id: "A1", what: "memory, all satellites and sessions", ours: float64(o.RSSSessions), floor: float64(f.RSSSessions), show: mb},
		{id: "A2", what: "processor for each report", ours: o.ReportCPU, floor: f.ReportCPU, show: micros, most: 1.3},
		{id: "A3", what: "processor, of one core", ours: o.CPU, floor: f.CPU, show: percent},
		{id: "A3", what: "reports taken in", ours: o.ReportsPerS, floor: f.ReportsPerS, show: perSecond},
		{id: "A3", what: "reports late, p50", ours: o.Late.P50, floor: f.Late.P50, show: secondsT},
		{id: "A3", what: "reports late, p99", ours: o.Late.P99, floor: f.Late.P99, show: secondsT, target: "≤ 50 ms", met: o.Late.P99 <= 0.05},
		{id: "A3", what: "reports late, worst", ours: o.Late.Max, floor: f.Late.Max, show: secondsT},
		{id: "", what: "age of reports, p50", ours: o.AgeP50, show: secondsT},
		{id: "", what: "age of reports, p99", ours: o.AgeP99, show: secondsT},
		{id: "", what: "age of reports, oldest", ours: o.AgeMax, show: secondsT},
		{id: "A3", what: "reports lost", ours: float64(o.Lost), floor: float64(f.Lost), show: func(v float64) string { return fmt.Sprintf("%.0f", v) }, target: "0", met: o.Lost == 0},
		{id: "A4", what: "back after a restart", ours: o.BackPerS, floor: f.BackPerS, show: perSecond},
		{id: "A4", what: "processor for each that is back", ours: o.BackCPU, floor: f.BackCPU, show: micros, most: 1.3},
		{id: "A4", what: "all are back after", ours: o.BackS, floor: f.BackS, show: secondsT, target: "≤ 18 s", met: o.BackS <= 18},
		{id: "", what: "all sessions are known after", ours: o.KnownS, show: secondsT},
		{id: "", what: "restart until the first answer, all coming back", ours: o.RestartS, floor: f.RestartS, show: secondsT},
		{id: "", what: "the same with the satellites held back", ours: o.RestartAloneS, floor: f.RestartAloneS, show: secondsT},
		{id: "A5", what: "refer, one caller, p50", ours: o.Refer.P50, floor: f.Refer.P50, show: micros, most: 2},
		{id: "", what: "refer, one caller, p99", ours: o.Refer.P99, floor: f.Refer.P99, show: micros},
		{id: "A5", what: "claim (durable), one caller, p50", ours: o.Claim.P50, floor: f.Claim.P50, show: micros, most: 1.5},
		{id: "", what: "claim (durable), one caller, p99", ours: o.Claim.P99, floor: f.Claim.P99, show: micros},
		{id: "", what: "login (refer and claim), p50", ours: o.Login.P50, floor: f.Login.P50, show: micros},
		{id: "", what: "login (refer and claim), p99", ours: o.Login.P99, floor: f.Login.P99, show: micros},
		{id: "", what: "logins, one caller", ours: o.LoginsPS, floor: f.LoginsPS, show: perSecond},
		{id: "", what: "refers, 128 callers", ours: o.RefersPS, floor: f.RefersPS, show: perSecond},
		{id: "", what: "processor for each refer", ours: o.ReferCPU, floor: f.ReferCPU, show: micros},
		{id: "", what: "processor for each claim", ours: o.ClaimCPU, floor: f.ClaimCPU, show: micros},
		{id: "A6", what: "claims (durable), 128 callers", ours: o.ClaimsPS, floor: f.ClaimsPS, show: perSecond, target: "≥ 15000/s", met: o.ClaimsPS >= 15000},
		{id: "A6", what: "claims (durable), 128 callers, p99", ours: o.ManyClaim.P99, floor: f.ManyClaim.P99, show: millis, target: "≤ 15 ms", met: o.ManyClaim.P99 <= 15e3},
		{id: "C2", what: "list servers, p50", ours: o.Servers.P50, show: millis},
		{id: "C2", what: fmt.Sprintf("list users (%d rows), p50", o.Rows), ours: o.Users.P50, show: millis},
		{id: "C2", what: "reports late meanwhile, p99", ours: o.BusyLate.P99, show: secondsT},
		{id: "", what: fmt.Sprintf("login meanwhile (%.0f/s), p50", o.BusyPerS), ours: o.BusyLogin.P50, show: micros},
		{id: "", what: "login meanwhile, p99", ours: o.BusyLogin.P99, show: micros},
	}
}

// table prints what was measured for people.
func (r *Result) table(out io.Writer) error {
	fmt.Fprintf(out, "\n%d satellites, %d sessions, a report every %.0f s (in force: %.0f s); %s, %d processors, which the fleet shares (%.0f %% of a core), load %.1f before\n\n",
		r.Satellites, r.Sessions, r.IntervalS, r.Ours.InForce, r.Machine.Processor, r.Machine.Processors, r.Ours.FleetCPU, r.Machine.Load1)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ROW\tWHAT\tOURS\tFLOOR\tRATIO\tTARGET\tMET")
	for _, x := range r.Table {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", x.ID, x.What, x.Ours, x.Floor, x.Ratio, x.Target, x.Met)
	}
	return w.Flush()
}

// lines is the table in words.
func (r *Result) lines() (out []Line) {
	for _, x := range r.rows() {
		l := Line{ID: x.id, What: x.what, Ours: x.show(x.ours), Target: x.target}
		if x.floor != 0 {
			l.Floor, l.Ratio = x.show(x.floor), fmt.Sprintf("%.2f", x.ours/x.floor)
		}
		if x.target != "" {
			l.Met = yesNo(x.met)
		}
		if x.most > 0 {
			l.Target = fmt.Sprintf("≤ %.2f × floor", x.most)
			if x.floor != 0 {
				l.Met = yesNo(x.ours <= x.most*x.floor)
			}
		}
		out = append(out, l)
	}
	return out
}

func yesNo(v bool) string {
	if v {
		return "yes"
	}
	return "no"
}

func processor() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				return strings.TrimSpace(v)
			}
		}
	}
	return "unknown"
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

func load1() (v float64) {
	b, err := os.ReadFile("/proc/loadavg")
	if err == nil {
		_, _ = fmt.Sscanf(string(b), "%f", &v) // 0 where it is not known
	}
	return v
}
