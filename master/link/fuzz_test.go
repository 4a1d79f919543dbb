package link

import (
	"math"
	"testing"

	"google.golang.org/protobuf/proto"

	"verdecmd/master/cluster"
	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

func seed(f *testing.F, m proto.Message) {
	b, err := proto.Marshal(m)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
}

var oddReport = &pb.Report{
	Load:     &pb.Load{CpuBusy: math.NaN(), Load1: math.Inf(1), MemoryTotal: 1, MemoryFree: math.MaxUint64, HasPressure: true, PressureCpu: -1, PressureIo: math.Inf(1)},
	Sessions: &pb.Sessions{Sessions: []*pb.Session{{Id: "s1", User: "alice", State: "dancing", StartedUnix: math.MinInt64, MemoryBytes: math.MaxUint64, Cpu: math.NaN(), Pid: -1}}},
	Ended:    []*pb.Ended{{}}, Refused: []*pb.Refused{{User: "bob"}},
}

// FuzzReport: whatever can be decoded gives an error or values within bounds.
func FuzzReport(f *testing.F) {
	seed(f, oddReport)
	seed(f, &pb.Report{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &pb.Report{}
		if proto.Unmarshal(b, m) != nil {
			return
		}
		r, err := FromReport(m)
		if err != nil {
			return
		}
		checkSessions(t, r.Sessions)
		for _, x := range []float64{r.Load.PressureCPU, r.Load.PressureMem, r.Load.PressureIO} {
			if !(x >= 0 && x <= 1) {
				t.Errorf("pressure %v", x)
			}
		}
		if (m.Sessions == nil) != (r.Sessions == nil) {
			t.Error("absent and empty sessions are mixed up")
		}
		for _, e := range r.Ended {
			if len(e.ID) > maxText || len(e.Why) > maxText {
				t.Error("a long text passed")
			}
		}
	})
}

// FuzzHello: as FuzzReport. The identity is the certificate's always.
func FuzzHello(f *testing.F) {
	h := goodHello()
	h.Report = oddReport
	h.Facts = &pb.HostFacts{Cpus: math.MaxUint32, MaxSessions: math.MaxUint32, Features: []string{"b", "a", "a"}}
	seed(f, h)
	seed(f, goodHello())
	seed(f, &pb.Hello{})
	id := wire.Identity{ID: "the-uuid", Name: "sat1"}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &pb.Hello{}
		if proto.Unmarshal(b, m) != nil {
			return
		}
		h, err := FromHello(id, m)
		if err != nil {
			return
		}
		if h.UUID != id.ID || h.Instance == "" || h.Sessions == nil {
			t.Errorf("got %+v", h)
		}
		if len(h.Facts.Features) > 64+3 || len(h.Facts.Problems) > 16 || len(h.Address) > maxText {
			t.Error("more passed than the limits allow")
		}
		checkSessions(t, h.Sessions)
	})
}

func checkSessions(t *testing.T, all []cluster.Reported) {
	for _, s := range all {
		if s.ID == "" || len(s.ID) > 64 || s.User == "" || s.Memory > maxMemory || !(s.Seen.CPU >= 0) || len(s.Seen.Serial) > maxSerial {
			t.Errorf("session %+v", s)
		}
		if state(s.Seen.State) != s.Seen.State {
			t.Errorf("state %q", s.Seen.State)
		}
	}
}
