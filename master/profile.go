package master

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"syscall"
)

// startProfile writes profiles for developers into dir: of the processors from
// SIGUSR1 to SIGUSR2, and of the memory at SIGUSR2. It listens nowhere.
func startProfile(dir string) (end func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var cpu *os.File
		n := 0
		for s := range signals {
			switch {
			case s == syscall.SIGUSR1 && cpu == nil:
				n++
				f, err := os.Create(filepath.Join(dir, fmt.Sprintf("cpu-%d-%d.pprof", os.Getpid(), n)))
				if err == nil && pprof.StartCPUProfile(f) == nil {
					cpu = f
				}
			case s == syscall.SIGUSR2 && cpu != nil:
				pprof.StopCPUProfile()
				if err := errors.Join(cpu.Close(), memoryProfile(filepath.Join(dir, fmt.Sprintf("heap-%d-%d.pprof", os.Getpid(), n)))); err != nil {
					fmt.Fprintln(os.Stderr, "profile:", err)
				}
				cpu = nil
			}
		}
		pprof.StopCPUProfile()
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
		<-done
	}, nil
}

func memoryProfile(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	text := fmt.Sprintf("heap: %d KiB live, %d in use, %d idle, %d of them released; stacks %d KiB of %d goroutines\n",
		m.HeapAlloc>>10, m.HeapInuse>>10, m.HeapIdle>>10, m.HeapReleased>>10, m.StackInuse>>10, runtime.NumGoroutine())
	return errors.Join(pprof.WriteHeapProfile(f), f.Close(), os.WriteFile(path+".txt", []byte(text), 0o600))
}
