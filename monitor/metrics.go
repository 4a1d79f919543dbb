package monitor

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Metric is one family of figures for a monitoring system.
type Metric struct {
	Name, Help string
	Type       string // counter, gauge or histogram
	Samples    []Sample
}

// Sample is one figure of a family. Labels are names and values in turn; they
// say which server, command or state, never which user: the number of figures
// must not grow with the users.
type Sample struct {
	Suffix string // _bucket, _sum or _count of a histogram
	Labels []string
	Value  float64
}

// Gauge is a family of one figure.
func Gauge(name, help string, value float64) Metric {
	return Metric{name, help, "gauge", []Sample{{Value: value}}}
}

// Counter is a family of one figure that only grows.
func Counter(name, help string, value float64) Metric {
	return Metric{name, help, "counter", []Sample{{Value: value}}}
}

// lines writes the family in the text format of Prometheus, version 0.0.4.
func (m *Metric) lines(out []string) []string {
	out = append(out, "# HELP "+m.Name+" "+strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(m.Help), "# TYPE "+m.Name+" "+m.Type)
	for _, s := range m.Samples {
		var b strings.Builder
		b.WriteString(m.Name + s.Suffix)
		for i := 0; i+1 < len(s.Labels); i += 2 {
			b.WriteByte(",{"[b2i(i == 0)])
			b.WriteString(s.Labels[i] + `="` + labelEscape.Replace(s.Labels[i+1]) + `"`)
		}
		if len(s.Labels) > 1 {
			b.WriteByte('}')
		}
		out = append(out, b.String()+" "+figure(s.Value))
	}
	return out
}

var labelEscape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func b2i(v bool) int {
	if v {
		return 1
	}
	return 0
}

func figure(v float64) string {
	switch {
	case math.IsNaN(v):
		return "NaN"
	case math.IsInf(v, 1):
		return "+Inf"
	case math.IsInf(v, -1):
		return "-Inf"
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

func metricsReply(all []Metric) Reply {
	slices.SortStableFunc(all, func(a, b Metric) int { return strings.Compare(a.Name, b.Name) })
	var lines []string
	for i := range all {
		lines = all[i].lines(lines)
	}
	return Reply{Code: 216, Pairs: []Pair{{"lines", len(lines)}}, Text: count(len(lines), "line") + ".", Document: lines}
}

// took are the upper bounds of the histogram of commands, in seconds.
var took = [...]float64{0.001, 0.01, 0.1, 1, 10, 100}

// commandStats counts what the commands of one name did.
type commandStats struct {
	codes   [7]uint64 // by the first digit of the final code
	buckets [len(took) + 1]uint64
	seconds float64
}

// socketStats counts what the admin socket does.
type socketStats struct {
	mu          sync.Mutex // guards what follows
	connections uint64
	refused     uint64
	badLines    uint64 // those that were no known command
	commands    map[string]*commandStats
}

func (s *socketStats) command(name string, code int, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.commands == nil {
		s.commands = map[string]*commandStats{}
	}
	c := s.commands[name]
	if c == nil {
		c = &commandStats{}
		s.commands[name] = c
	}
	c.codes[min(max(code/100, 0), 6)]++
	at := 0
	for at < len(took) && d.Seconds() > took[at] {
		at++
	}
	c.buckets[at]++
	c.seconds += d.Seconds()
}

func (s *socketStats) count(n *uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*n++
}

// metrics are the figures of the admin socket itself.
func (s *server) metrics(t *Table) []Metric {
	s.mu.Lock()
	conns := s.conns
	s.mu.Unlock()
	st := &s.stats
	st.mu.Lock()
	defer st.mu.Unlock()
	total := Metric{"verdecmd_commands_total", "Commands by name and first digit of the final code.", "counter", nil}
	seconds := Metric{"verdecmd_command_seconds", "How long commands took until their final reply, with what they waited for.", "histogram", nil}
	for _, cmd := range t.commands {
		c := st.commands[cmd.Name]
		if c == nil {
			continue
		}
		for digit, n := range c.codes {
			if n > 0 {
				total.Samples = append(total.Samples, Sample{"", []string{"command", cmd.Name, "code", strconv.Itoa(digit) + "xx"}, float64(n)})
			}
		}
		sum := uint64(0)
		for i, n := range c.buckets {
			sum += n
			le := "+Inf"
			if i < len(took) {
				le = figure(took[i])
			}
			seconds.Samples = append(seconds.Samples, Sample{"_bucket", []string{"command", cmd.Name, "le", le}, float64(sum)})
		}
		seconds.Samples = append(seconds.Samples, Sample{"_sum", []string{"command", cmd.Name}, c.seconds}, Sample{"_count", []string{"command", cmd.Name}, float64(sum)})
	}
	return []Metric{
		total, seconds,
		Gauge("verdecmd_connections", "Connections to the admin socket.", float64(conns)),
		Counter("verdecmd_connections_total", "Connections to the admin socket that were served.", float64(st.connections)),
		Counter("verdecmd_connections_refused_total", "Connections to the admin socket that were refused.", float64(st.refused)),
		Counter("verdecmd_bad_lines_total", "Lines on the admin socket that were no command.", float64(st.badLines)),
	}
}
