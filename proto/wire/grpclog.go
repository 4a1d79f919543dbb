package wire

import (
	"fmt"
	"strings"

	"github.com/rs/zerolog"
	"google.golang.org/grpc/grpclog"
)

// GRPCLogger makes gRPC's own messages lines of log, for grpclog.SetLoggerV2.
// Info messages are dropped, warnings become debug lines and errors
// warnings: they are about single connections and of use to developers.
func GRPCLogger(log zerolog.Logger) grpclog.LoggerV2 {
	return grpcLogger{log.With().Str("part", "grpc").Logger()}
}

type grpcLogger struct{ log zerolog.Logger }

func (l grpcLogger) write(level zerolog.Level, text string) {
	l.log.WithLevel(level).Str("text", Clean(strings.TrimSpace(text), maxText)).Msg("grpc")
}

func (l grpcLogger) Info(a ...any)               {}
func (l grpcLogger) Infoln(a ...any)             {}
func (l grpcLogger) Infof(f string, a ...any)    {}
func (l grpcLogger) Warning(a ...any)            { l.debug(fmt.Sprint(a...)) }
func (l grpcLogger) Warningln(a ...any)          { l.debug(fmt.Sprintln(a...)) }
func (l grpcLogger) Warningf(f string, a ...any) { l.debug(fmt.Sprintf(f, a...)) }
func (l grpcLogger) Error(a ...any)              { l.warn(fmt.Sprint(a...)) }
func (l grpcLogger) Errorln(a ...any)            { l.warn(fmt.Sprintln(a...)) }
func (l grpcLogger) Errorf(f string, a ...any)   { l.warn(fmt.Sprintf(f, a...)) }
func (l grpcLogger) Fatal(a ...any)              { l.fatal(fmt.Sprint(a...)) }
func (l grpcLogger) Fatalln(a ...any)            { l.fatal(fmt.Sprintln(a...)) }
func (l grpcLogger) Fatalf(f string, a ...any)   { l.fatal(fmt.Sprintf(f, a...)) }
func (l grpcLogger) V(int) bool                  { return false }
func (l grpcLogger) debug(text string)           { l.write(zerolog.DebugLevel, text) }
func (l grpcLogger) warn(text string)            { l.write(zerolog.WarnLevel, text) }

// fatal must not return: gRPC would go on with what it calls impossible.
func (l grpcLogger) fatal(text string) { l.write(zerolog.ErrorLevel, text); panic("grpc: " + text) }
