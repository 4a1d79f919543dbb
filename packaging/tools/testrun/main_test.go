package main

import (
	"strings"
	"testing"
)

func TestSummary(t *testing.T) {
	const (
		pass    = `{"Action":"pass","Package":"p","Test":"TestA"}` + "\n"
		noise   = `{"Action":"output","Package":"p","Test":"TestA","Output":"noise\n"}` + "\n"
		kvm     = `{"Action":"output","Package":"p","Test":"TestK","Output":"    k_test.go:3: needs kvm\n"}` + "\n" + `{"Action":"output","Package":"p","Test":"TestK","Output":"--- SKIP: TestK (0.00s)\n"}` + "\n" + `{"Action":"skip","Package":"p","Test":"TestK"}` + "\n"
		root    = `{"Action":"output","Package":"p","Test":"TestR","Output":"    r_test.go:3: needs root\n"}` + "\n" + `{"Action":"skip","Package":"p","Test":"TestR"}` + "\n"
		fail    = `{"Action":"output","Package":"p","Test":"TestF","Output":"broken\n"}` + "\n" + `{"Action":"fail","Package":"p","Test":"TestF"}` + "\n"
		died    = `{"Action":"output","Package":"p","Test":"TestD","Output":"panic: x\n"}` + "\n" + `{"Action":"fail","Package":"p"}` + "\n"
		compile = `{"Action":"build-output","Output":"a.go:1: undefined\n"}` + "\n"
	)
	tests := map[string]struct {
		in     string
		strict bool
		want   string
		wantOK bool
	}{
		"a passed test is silent":       {in: noise + pass, want: "1 passed, 0 failed, 0 skipped\n", wantOK: true},
		"an excused skip is listed":     {in: kvm, strict: true, want: "skipped:\n  p TestK: k_test.go:3: needs kvm\n0 passed, 0 failed, 1 skipped\n", wantOK: true},
		"another skip passes at home":   {in: root, want: "skipped:\n  p TestR: r_test.go:3: needs root\n0 passed, 0 failed, 1 skipped\n", wantOK: true},
		"another skip fails in CI":      {in: root, strict: true, want: "skipped:\n  p TestR: r_test.go:3: needs root\n1 skipped for a need that this machine must meet (all but kvm, cgroup2, nfs, systemd)\n0 passed, 0 failed, 1 skipped\n"},
		"a failed test is shown":        {in: fail, want: "broken\n0 passed, 1 failed, 0 skipped\n", wantOK: true},
		"a dead binary's test, too":     {in: died, want: "panic: x\n0 passed, 1 failed, 0 skipped\n", wantOK: true},
		"an error of the compiler":      {in: compile, want: "a.go:1: undefined\n0 passed, 0 failed, 0 skipped\n", wantOK: true},
		"what is not JSON goes through": {in: "hello\n", want: "hello\n0 passed, 0 failed, 0 skipped\n", wantOK: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			s := summary{out: &out, strict: tt.strict}
			s.read(strings.NewReader(tt.in))
			if ok := s.end(); ok != tt.wantOK || out.String() != tt.want {
				t.Errorf("got %v and %q, want %v and %q", ok, out.String(), tt.wantOK, tt.want)
			}
		})
	}
}
