package qemu

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"verdecmd/satellite/desktop"
)

// bare starts the same QEMU without any of us: no user, no overlay of its own,
// nothing prepared. It returns when QMP has answered, or, with boot, when the
// guest is up, and how long that took.
func bare(b *testing.B, s *site, boot bool) (took, cpu time.Duration) {
	b.Helper()
	spec := s.spec("")
	d := s.driver()
	prepared, err := d.prepare(b.Context(), spec.Image.Disk, s.user)
	must(b, err, os.MkdirAll(spec.Dir, 0o700), copyFile(prepared, filepath.Join(spec.Dir, overlayFile)),
		os.Chmod(filepath.Join(spec.Dir, overlayFile), 0o600))
	cmd := exec.Command("qemu-system-x86_64", arguments(spec, options{accel: "tcg", cpu: "qemu64"})...)
	cmd.Dir, cmd.Stderr = spec.Dir, os.Stderr
	begun := time.Now()
	must(b, cmd.Start())
	defer cmd.Wait()
	defer cmd.Process.Kill()
	var conn net.Conn
	for conn == nil {
		if conn, err = net.Dial("unix", filepath.Join(spec.Dir, qmpSocket)); err != nil {
			time.Sleep(500 * time.Microsecond)
		}
	}
	q, err := newQMP(b.Context(), conn, func(qmpEvent) {})
	must(b, err)
	defer q.close()
	if boot {
		waitUp(b, filepath.Join(spec.Dir, serialFile))
	}
	took = time.Since(begun)
	st, err := readStat(cmd.Process.Pid)
	must(b, err)
	return took, st.cpu
}

func ours(b *testing.B, s *site, boot bool) (took, cpu time.Duration) {
	b.Helper()
	spec := s.spec("")
	d := s.driver()
	_, err := d.prepare(b.Context(), spec.Image.Disk, s.user) // once per version, not per session
	must(b, err)
	begun := time.Now()
	r, err := d.Start(context.Background(), spec)
	must(b, err)
	if boot {
		waitUp(b, filepath.Join(spec.Dir, serialFile))
	}
	took = time.Since(begun)
	cpu, err = r.CPUTime()
	must(b, err, r.Kill())
	for range r.Events() {
	}
	must(b, desktop.RemoveDir(spec.Dir))
	return took, cpu
}

func waitUp(b *testing.B, serial string) {
	for limit := time.Now().Add(bootLimit); ; time.Sleep(10 * time.Millisecond) {
		if text, _ := os.ReadFile(serial); strings.Contains(string(text), "GUEST UP") {
			return
		}
		if time.Now().After(limit) {
			b.Fatal("the guest does not come up")
		}
	}
}

func compare(b *testing.B, boot bool) {
	s := newSite(b)
	s.cfg.Log = zerolog.Nop()
	guestImage(b)
	var floor, our, floorCPU, ourCPU []time.Duration
	for b.Loop() { // in turn, so that other load hits both
		took, cpu := bare(b, s, boot)
		floor, floorCPU = append(floor, took), append(floorCPU, cpu)
		took, cpu = ours(b, s, boot)
		our, ourCPU = append(our, took), append(ourCPU, cpu)
	}
	median := func(d []time.Duration) float64 {
		slices.Sort(d)
		return d[len(d)/2].Seconds() * 1000
	}
	b.ReportMetric(median(floor), "bare-ms")
	b.ReportMetric(median(our), "ours-ms")
	b.ReportMetric(median(our)-median(floor), "added-ms")
	b.ReportMetric(median(our)/median(floor), "ours/bare")
	b.ReportMetric((our[0]-floor[0]).Seconds()*1000, "added-min-ms") // the fastest of each
	// On a busy machine only this says something: QEMU's processor time.
	b.ReportMetric(median(ourCPU)/median(floorCPU), "cpu-ours/bare")
}

// BenchmarkStart is PERFORMANCE D1: launch to first QMP answer; we add at most 3 ms.
func BenchmarkStart(b *testing.B) { compare(b, false) }

// BenchmarkBoot is PERFORMANCE D5: at most 1.02 of bare QEMU.
func BenchmarkBoot(b *testing.B) { compare(b, true) }

// BenchmarkOverlay is PERFORMANCE D6: the session's copy of the prepared overlay.
func BenchmarkOverlay(b *testing.B) {
	s := newSite(b)
	prepared, err := s.driver().prepare(b.Context(), guestImage(b).Disk, s.user)
	must(b, err)
	dir, err := makeDir(filepath.Join(s.snap(), "s1"), s.user, s.cfg.AsRoot)
	must(b, err)
	defer dir.close()
	for b.Loop() {
		must(b, copyOverlay(prepared, dir))
		dir.unlink(overlayFile)
	}
}
