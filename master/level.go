package master

import (
	"sync/atomic"

	"github.com/rs/zerolog"
)

// Level is a log level that may change at any time. It is a hook: a logger with
// it, made for the lowest level, and all that come from that logger, obey it.
type Level struct{ now atomic.Int32 }

// NewLevel returns a Level of that name; info for an unknown one.
func NewLevel(name string) *Level {
	l := &Level{}
	l.Set(name)
	return l
}

// Set makes a level of that name count from now on; info for an unknown one.
func (l *Level) Set(name string) {
	level, err := zerolog.ParseLevel(name)
	if err != nil || name == "" {
		level = zerolog.InfoLevel
	}
	l.now.Store(int32(level))
}

func (l *Level) String() string { return zerolog.Level(l.now.Load()).String() }

// Run implements zerolog.Hook.
func (l *Level) Run(e *zerolog.Event, level zerolog.Level, _ string) {
	if level < zerolog.Level(l.now.Load()) {
		e.Discard()
	}
}
