package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// fleetResult is what of the JSON of "verdecmd simulate" is shown.
type fleetResult struct {
	Machine struct {
		Processor  string  `json:"processor"`
		Processors int     `json:"processors"`
		Kernel     string  `json:"kernel"`
		Load1      float64 `json:"load1"`
		At         string  `json:"at"`
	} `json:"machine"`
	Satellites int     `json:"satellites"`
	Sessions   int     `json:"sessions"`
	IntervalS  float64 `json:"interval_s"`
	WindowS    int     `json:"window_s"`
	Ours       *struct {
		FleetCPU float64 `json:"fleet_cpu_pct"`
		CPU      float64 `json:"cpu_percent"`
		Overran  int     `json:"fleet_late"`
		Reports  int     `json:"reports"`
		InForce  float64 `json:"interval_s"`
	} `json:"ours"`
	Table []struct {
		ID, What, Ours, Floor, Ratio, Target, Met string
	} `json:"table"`
}

const scaleHead = `# How far it goes

%smake scale%s writes this page: it runs

    verdecmd simulate --satellites N --sessions 20000 --seconds %d --floor --json

for each N below. The command starts a real master in a process of its own, with a database on a disk, certificates, and
the admin socket, and connects N simulated satellites to it over TLS, each with its own certificate and address. They say
hello, report in the slots that they are given, run sessions, take logins in, and come back by the rules of the real
satellite when the master is killed. After each phase the master's list of users is compared with what the satellites
run: a run in which they differ fails and writes nothing. The reports that it counted are compared with those that were
sent; what was lost is in the table. The first answer after a restart comes when all records have been read and verified:
as many as there are sessions and satellites here, not the million of row A7 in the list of goals.

The floor is measured just before by the same satellites against another process of the same program: gRPC as it comes
with the same TLS, the same messages in the same slots, a bare record in a bbolt file for each claim, and nothing else.
**Only the ratios travel.** Processor time is that of the master's process alone, user and system.

`

const scaleTail = `
## How to read it

- **Late** is by how much more than an interval a report comes after the one before was due, as the master sees it. The
  satellites are on the same machine: when its processors are busy, it is they who are late, and both columns show it.
  The line above each table says how busy the fleet was, and how many reports it sent late by itself.
- **Memory for each satellite** is what the resident memory has grown by, garbage that is not yet collected included.
- **Claim** is the durable step of a login: the record is synced to the disk before the answer. With many callers their
  records share a sync. **Refer** touches no disk. What satellites tell about new sessions is held back while these two
  are measured with many callers.
- **Back after a restart** counts from the start of the new process. Satellites wait a random time of up to 1 s, then up
  to 1.6 s and so on up to 5 s, between two tries: where the processors do not limit it, this does.

## What limits it

- A report costs a wake-up, not its bytes: with slots many of them share one. Reports without slots cost several times
  as much.
- A connection costs what TLS and gRPC cost: four goroutines and their buffers. The master adds one goroutine and about
  2 KB of books, and saves gRPC's read buffer, which TLS makes superfluous.
- After a restart a connection costs a signature, two verifications and a key exchange on the master; nothing of ours
  comes near. Of those that come back at once only 32 for each processor are computed at a time, and who would wait
  longer than 7 s is sent away to come again: all at a time would take longer than a handshake may, and be in vain.
- A satellite that was never seen before is registered first, one after the other, with a sync of the disk each.
- With many callers the time of a claim is shared by two round trips of gRPC, the sync, and the fleet itself.
- Each satellite is one open file of the master. It takes at most 16,384, and raises its own limit as far as the system
  lets it: where %sulimit -Hn%s says less, raise that (%sLimitNOFILE=%s of the service).

Where the machine of the master cannot keep up, it says so and asks for reports less often by itself: three times 10 s in
a row in which its processors are busy with it for more than 75 %%, or in which more than 10 %% of the reports come more
than 0.5 s late, stretch the interval by a step (1.5, 2, 3, 4, 5 times the wish, at most 15 s, and under leases at most
a quarter of %sWIN4_VERDE_LEASE_SELF%s). After a calm minute it goes back by a step, if what the shorter interval would
cost leaves half of the processors free. Reports are too old after three intervals of those in force. The event
%smaster.interval%s, a line in the log, %shello%s and %smetrics%s tell the interval in force and why.
`

// scale makes the page of one or more results.
func scale(in io.Reader, path string) error {
	var b strings.Builder
	d := json.NewDecoder(in)
	for first := true; ; first = false {
		var r fleetResult
		err := d.Decode(&r)
		if errors.Is(err, io.EOF) && !first {
			break
		}
		if err != nil {
			return fmt.Errorf("figures of the fleet: %w", err)
		}
		if r.Ours == nil || len(r.Table) == 0 {
			return fmt.Errorf("figures of %d satellites: there are none", r.Satellites)
		}
		if first {
			fmt.Fprintf(&b, scaleHead, "`", "`", r.WindowS)
		}
		fmt.Fprintf(&b, "## %d satellites, %d sessions, a report every %.0f s\n\n", r.Satellites, r.Sessions, r.IntervalS)
		fmt.Fprintf(&b, "%s, %d processors, Linux %s, %s; load before: %.1f. While reports were measured the master took %.0f %% of one core and\nthe fleet, on the same processors, %.0f %%; the fleet itself sent %d of %d reports more than 50 ms late.",
			r.Machine.Processor, r.Machine.Processors, r.Machine.Kernel, r.Machine.At, r.Machine.Load1, r.Ours.CPU, r.Ours.FleetCPU, r.Ours.Overran, r.Ours.Reports)
		if r.Ours.InForce > r.IntervalS {
			fmt.Fprintf(&b, " **The master has stretched the interval to %.1f s.**", r.Ours.InForce)
		}
		if r.Machine.Load1 > 0.5*float64(r.Machine.Processors) {
			b.WriteString(" **Others used the machine: times are not to be trusted, ratios of processor time are.**")
		}
		b.WriteString("\n\n| row | what | ours | floor | ratio | goal | met |\n| --- | --- | --- | --- | --- | --- | --- |\n")
		for _, x := range r.Table {
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n", x.ID, x.What, x.Ours, x.Floor, x.Ratio, x.Target, x.Met)
		}
		b.WriteString("\n")
	}
	q := "`"
	fmt.Fprintf(&b, strings.TrimPrefix(scaleTail, "\n"), q, q, q, q, q, q, q, q, q, q, q, q)
	return os.WriteFile(path, []byte(b.String()), 0o644)
}
