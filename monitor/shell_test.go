package monitor

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Tab in a shell asks the master, and knows the commands without one.
func TestShellCompletion(t *testing.T) {
	ts := serve(t, newFake(), nil)
	nobody := filepath.Join(t.TempDir(), "no-socket")
	tests := map[string]struct {
		socket string
		words  []string
		want   string // the start of the output
		last   string // cobra's directive: 4 no files, 2 no blank
	}{
		"commands":             {ts.path, []string{"offl"}, "offlineserver\ttake a server out of service for new logins\n", ":4"},
		"servers":              {ts.path, []string{"offlineserver", ""}, "1\tsat1.example.com\n2\tsat2.example.com\n3\tsat3\n", ":6"},
		"users":                {ts.path, []string{"user", "al"}, "alice\trunning on server 1\n", ":4"},
		"keys":                 {ts.path, []string{"users", "st"}, "state=\tonly those in this state\n", ":6"},
		"values":               {ts.path, []string{"users", "state=ru"}, "state=running\n", ":4"},
		"after an option":      {ts.path, []string{"users", "server=1", "im"}, "image=\t", ":6"},
		"formats":              {ts.path, []string{"-f", ""}, "text\ntsv\njson\n", ":4"},
		"bad characters":       {ts.path, []string{"user", "\x01"}, ":4", ":4"},
		"without a master":     {nobody, []string{"offl"}, "offlineserver\t", ":4"},
		"arguments, no master": {nobody, []string{"user", "al"}, ":4", ":4"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for end := time.Now().Add(mostWait); ; { // a slow master has not answered within its second
				cmd := exec.Command(os.Args[0], append([]string{"__complete", "-s", tt.socket}, tt.words...)...)
				cmd.Env = append(os.Environ(), "VERDECMON_TEST_MAIN=1")
				out, err := cmd.Output()
				lines := strings.Split(strings.TrimSpace(string(out)), "\n")
				if err == nil && strings.HasPrefix(string(out), tt.want) && lines[len(lines)-1] == tt.last {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("got %q, %v, want %q and %s at the end", out, err, tt.want, tt.last)
				}
			}
		})
	}
}

// The completion that is installed works in a real bash.
func TestBashCompletion(t *testing.T) {
	ts := serve(t, newFake(), nil)
	bin := t.TempDir()
	program := "#!/bin/sh\nVERDECMON_TEST_MAIN=1 exec " + os.Args[0] + " \"$@\"\n"
	if err := os.WriteFile(bin+"/verdecmon", []byte(program), 0o755); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct{ line, want string }{
		"a command":       {"verdecmon offl", "offlineserver "},
		"several":         {"verdecmon offlineserver ", "1 2 3 reason= "},
		"a key":           {"verdecmon users st", "state= "},
		"a value":         {"verdecmon users state=ru", "running "},
		"a user":          {"verdecmon logoffuser al", "alice "},
		"an option of it": {"verdecmon --keep", "--keep-going "},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			script := `. /usr/share/bash-completion/bash_completion && . ../packaging/completion/verdecmon
COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9
COMP_WORDS=(); rest=$1
while [[ $rest =~ ^(\ *)([^\ =]+|=)(.*)$ ]]; do COMP_WORDS+=("${BASH_REMATCH[2]}"); rest=${BASH_REMATCH[3]}; done
[[ $1 == *\  ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
compopt() { :; } # only bash itself may call it
__start_verdecmon
for r in "${COMPREPLY[@]}"; do printf '%s ' ${r%%(*}; done`
			for end := time.Now().Add(mostWait); ; { // as above
				cmd := exec.Command("bash", "-c", script, "bash", tt.line)
				cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "VERDECMON_SOCKET="+ts.path)
				out, err := cmd.CombinedOutput()
				if err == nil && string(out) == tt.want {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("%s: got %q, %v, want %q", tt.line, out, err, tt.want)
				}
			}
		})
	}
}
