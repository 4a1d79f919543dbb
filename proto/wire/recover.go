package wire

import (
	"context"
	"crypto/rand"
	"fmt"
	"runtime/debug"

	"github.com/rs/zerolog"
	"google.golang.org/grpc"
)

// Report is something about the connections that somebody should see in the
// log.
type Report struct {
	What    string // "call panicked", "connection refused"
	Address string // of the peer, where known
	Method  string // of the call that panicked
	Ref     string // given to the caller of that call, to find it in the log
	Err     error
	Stack   []byte // of the panic
	Dropped int    // refused connections before this one that were not reported
}

// MarshalZerologObject writes what is known into a log line.
func (r Report) MarshalZerologObject(e *zerolog.Event) {
	e.Str("what", r.What).AnErr("cause", r.Err)
	for _, f := range []struct{ name, value string }{{"address", r.Address}, {"method", r.Method}, {"ref", r.Ref}, {"stack", string(r.Stack)}} {
		if f.value != "" {
			e.Str(f.name, f.value)
		}
	}
	if r.Dropped > 0 {
		e.Int("dropped", r.Dropped)
	}
}

// Reporter writes a Report to a log. It must be safe for many goroutines; nil
// drops reports.
type Reporter func(Report)

func (r Reporter) report(x Report) {
	if r != nil {
		r(x)
	}
}

// Recover returns interceptors that turn a panic of a handler into an error of
// kind Internal for its one caller, and every other error of a handler into
// its status, so that handlers return plain errors.
func Recover(report Reporter) (grpc.UnaryServerInterceptor, grpc.StreamServerInterceptor) {
	caught := func(method string, v any) error {
		ref := rand.Text()[:8]
		report.report(Report{What: "call panicked", Method: method, Ref: ref, Err: fmt.Errorf("panic: %v", v), Stack: debug.Stack()})
		return Errorf(Internal, "a fault of the program that answers here, ref %s in its log", ref)
	}
	unary := func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
		defer func() {
			if v := recover(); v != nil {
				resp, err = nil, caught(info.FullMethod, v)
			}
			err = ToStatus(err)
		}()
		return next(ctx, req)
	}
	stream := func(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
		defer func() {
			if v := recover(); v != nil {
				err = caught(info.FullMethod, v)
			}
			err = ToStatus(err)
		}()
		return next(srv, s)
	}
	return unary, stream
}
