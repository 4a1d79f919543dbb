package wire

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// Strangers cannot fill the log.
func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []Report
		th := &throttle{to: func(r Report) { got = append(got, r) }}
		for range 1000 {
			th.report(Report{What: "connection refused"})
		}
		if len(got) != burst {
			t.Errorf("got %d reports of 1000, want %d", len(got), burst)
		}
		time.Sleep(period)
		th.report(Report{What: "connection refused"})
		if n := len(got); n != burst+1 || got[n-1].Dropped != 1000-burst {
			t.Errorf("got %d reports, the last one tells of %d dropped", n, got[n-1].Dropped)
		}
		(&throttle{}).report(Report{}) // nobody listens
	})
}

func TestLogLines(t *testing.T) {
	var b bytes.Buffer
	log := zerolog.New(&b).Level(zerolog.DebugLevel)
	g := GRPCLogger(log)
	g.Infof("%s", "info")
	g.Warningln("warning\nwith a second line")
	g.Errorf("error %d", 7)
	log.Warn().Object("report", Report{What: "call panicked", Ref: "ABC", Err: errors.New("why"), Stack: []byte("stack")}).Msg("x")
	func() {
		defer func() { recover() }()
		g.Fatal("fatal")
		t.Error("Fatal returned")
	}()
	got := b.String()
	for _, want := range []string{
		`{"level":"debug","part":"grpc","text":"warning with a second line","message":"grpc"}`,
		`{"level":"warn","part":"grpc","text":"error 7","message":"grpc"}`,
		`{"level":"warn","report":{"what":"call panicked","cause":"why","ref":"ABC","stack":"stack"},"message":"x"}`,
		`{"level":"error","part":"grpc","text":"fatal","message":"grpc"}`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if strings.Contains(got, `"info"`) {
		t.Errorf("got an info line: %s", got)
	}
}
