package link

import (
	"context"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"verdecmd/master/cluster"
	"verdecmd/master/placement"
	pb "verdecmd/proto"
	"verdecmd/proto/planted"
	"verdecmd/proto/wire"
)

// Limits of what a satellite may tell; more is cut or refused, so that no
// satellite fills the master's memory.
const (
	maxText     = 512
	maxSessions = 4096
	maxSerial   = 24
	maxMemory   = 1 << 46 // bytes of one guest
)

// Admit takes a hello apart and refuses that of a satellite which has obeyed a
// newer master than the one of this epoch.
func Admit(id wire.Identity, m *pb.Hello, epoch uint64) (cluster.Hello, error) {
	h, err := FromHello(id, m)
	if err == nil && m.EpochSeen > epoch && !planted.Bug("no-epoch-check") {
		err = wire.Errorf(wire.OldEpoch, "this master has epoch %d, but %s has obeyed epoch %d: this master has been replaced, or its database is an old copy", epoch, id.Name, m.EpochSeen)
	}
	return h, err
}

// FromHello takes a hello apart. The identity comes from the certificate,
// nothing in the message can change it.
func FromHello(id wire.Identity, m *pb.Hello) (cluster.Hello, error) {
	h := cluster.Hello{UUID: id.ID, Instance: text(m.Instance), Address: text(m.Address), Version: text(m.Version), Journal: text(m.Journal)}
	if m.Instance == "" || m.Report.GetSessions() == nil {
		return h, wire.Errorf(wire.BadRequest, "a hello must carry the satellite's instance and its sessions")
	}
	if m.Protocol != wire.Protocol {
		h.Mismatch = text(strings.Join([]string{"its software", m.Version, "speaks another version of the link's protocol than the master; install the same version on both"}, " "))
	}
	r, err := FromReport(m.Report)
	if err != nil {
		return h, err
	}
	h.Load, h.Sessions, h.Ended = r.Load, r.Sessions, r.Ended
	h.Facts = fromFacts(m.Facts)
	return h, nil
}

// shown is the certificate that a link was opened with.
func shown(ctx context.Context, id wire.Identity) cluster.Certificate {
	from, until := wire.PeerCertificate(ctx)
	return cluster.Certificate{Serial: id.Serial, From: from, Until: until}
}

func fromFacts(f *pb.HostFacts) cluster.Facts {
	if f == nil {
		f = &pb.HostFacts{}
	}
	out := cluster.Facts{
		Hostname: text(f.Hostname), Arch: text(f.Arch), Kernel: text(f.Kernel), CPUVendor: text(f.CpuVendor),
		CPUs: int(f.Cpus), Memory: f.MemoryBytes,
		Accelerator: text(f.Accelerator), AcceleratorWhy: text(f.AcceleratorWhy), QEMU: text(f.Qemu),
		SnapDir: text(f.SnapDir), SnapKind: text(f.SnapKind), SnapReserve: f.SnapReserveBytes,
		MaxSessions: int(f.MaxSessions), Problems: texts(f.Problems, 16), AsRoot: f.AsRoot,
	}
	out.Features = append([]string{out.Arch, out.Accelerator, out.CPUVendor}, texts(f.Features, 64)...)
	slices.Sort(out.Features)
	out.Features = slices.Compact(out.Features)
	return out
}

// FromReport takes a load report apart. It refuses one that cannot be true.
func FromReport(m *pb.Report) (Report, error) {
	l := m.GetLoad()
	if l == nil {
		l = &pb.Load{}
	}
	out := Report{Load: cluster.Load{
		CPUBusy: l.CpuBusy, Load1: l.Load1, MemoryTotal: l.MemoryTotal, MemoryFree: l.MemoryFree,
		SnapFree: l.SnapFree, HomeFree: l.HomeFree, HasPressure: l.HasPressure,
		PressureCPU: share(l.PressureCpu), PressureMem: share(l.PressureMemory), PressureIO: share(l.PressureIo),
	}}
	if ms := m.GetNowUnixMs(); ms != 0 {
		out.Clock = time.UnixMilli(ms)
	}
	if m.GetSessions() != nil {
		if n := len(m.Sessions.Sessions); n > maxSessions {
			return out, wire.Errorf(wire.BadRequest, "%d sessions in one report, at most %d", n, maxSessions)
		}
		out.Sessions = []cluster.Reported{}
		for _, s := range m.Sessions.Sessions {
			if err := CheckUser(s.User); err != nil {
				return out, err
			}
			if s.Id == "" || len(s.Id) > 64 {
				return out, wire.Errorf(wire.BadRequest, "session %q: not a session's name", text(s.Id))
			}
			out.Sessions = append(out.Sessions, cluster.Reported{
				ID: s.Id, User: s.User, UID: s.Uid, Memory: min(s.MemoryBytes, maxMemory),
				Seen: cluster.Seen{
					Desktop: text(s.Desktop), Image: text(s.Image), State: state(s.State), Current: s.Current,
					Started: time.Unix(s.StartedUnix, 0), Client: text(s.Client), Display: text(s.Display),
					CPU: finite(s.Cpu), PID: int(s.Pid), Why: text(s.Why), Serial: texts(s.Serial, maxSerial),
				},
			})
		}
	}
	for _, e := range m.GetEnded() {
		out.Ended = append(out.Ended, cluster.Ended{ID: text(e.Id), User: text(e.User), How: text(e.How), Why: text(e.Why)})
	}
	for _, r := range m.GetRefused() {
		if err := CheckUser(r.User); err != nil {
			return out, err
		}
		out.Refused = append(out.Refused, Refused{User: r.User, Text: text(r.Text)})
	}
	return out, nil
}

// FromRefer takes a login apart.
func FromRefer(r *pb.ReferRequest) (cluster.Login, error) {
	if err := CheckUser(r.User); err != nil {
		return cluster.Login{}, err
	}
	n := r.Need
	if n == nil || n.MemoryBytes == 0 || n.MemoryBytes > maxMemory {
		return cluster.Login{}, wire.Errorf(wire.BadRequest, "login of %s: the memory that the desktop needs is missing or impossible", r.User)
	}
	return cluster.Login{User: r.User, UID: r.Uid, Client: text(r.Client),
		Need: placement.Need{Memory: n.MemoryBytes, Requires: texts(n.Requires, 16), Avoid: texts(n.Avoid, 16)}}, nil
}

// CheckUser refuses what is no login name.
func CheckUser(name string) error {
	if name == "" || len(name) > 256 || !utf8.ValidString(name) {
		return wire.Errorf(wire.BadRequest, "user %q: not a login name", text(name))
	}
	return nil
}

// state lets only states pass that a satellite can know.
func state(s string) string {
	switch s {
	case cluster.Starting, cluster.Running, cluster.Hung, cluster.Stopping, cluster.Aborting, cluster.Failed:
		return s
	}
	return cluster.Starting
}

// text cuts what a satellite says to a length that lists can show. What is not
// printable is escaped where it is shown.
func text(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "")
	}
	return s
}

func texts(in []string, most int) []string {
	var out []string
	for _, s := range in[:min(len(in), most)] {
		out = append(out, text(s))
	}
	return out
}

func share(f float64) float64 { return min(1, finite(f)) }

func finite(f float64) float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) || f < 0 {
		return 0
	}
	return f
}
