package monitor

import (
	"bufio"
	"context"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The example clients in the documentation list users, are refused something
// and get an event, each in the same way; V-69, V-84, PROTOCOL 16.
func TestExampleClients(t *testing.T) {
	const dir = "../docs/clients/"
	program := filepath.Join(t.TempDir(), "client")
	if out, err := exec.Command("go", "build", "-o", program, dir+"client.go").CombinedOutput(); err != nil {
		t.Fatalf("client.go: %v\n%s", err, out)
	}
	users := "alice on server 1: running\nbob on server 1: running\ncarol on server 2: running\n"
	refused := "refused: 550 not-found: no \"such\" user: no such account\n"
	events := "waiting for events after 4712\nevent: server.offline\nevent: server.online\n"
	tests := map[string]struct {
		cmd     []string
		refused string
	}{
		"go":     {[]string{program}, refused},
		"python": {[]string{"python3", dir + "client.py"}, refused},
		"php":    {[]string{"php", dir + "client.php"}, refused},
		"perl":   {[]string{"perl", dir + "client.pl"}, refused},
		"nc":     {[]string{"sh", dir + "client.sh"}, `refused: 550 not-found kind=user id="no \"such\" user" msg="no such account"` + "\n"},
		"socat":  {[]string{"env", "TOOL=socat", "sh", dir + "client.sh"}, `refused: 550 not-found kind=user id="no \"such\" user" msg="no such account"` + "\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ts := serve(t, newFake(), nil)
			greeting := "greeting: " + ts.dial(t).ask("hello").end + "\n"
			ctx, cancel := context.WithTimeout(t.Context(), mostWait)
			defer cancel()
			cmd := exec.CommandContext(ctx, tt.cmd[0], append(tt.cmd[1:], ts.path, "2")...)
			cmd.WaitDelay = 5 * time.Second
			var stderr safeBuffer
			cmd.Stderr = &stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatalf("%v; packaging/setup/setup --need test installs it", err)
			}
			var got strings.Builder
			r := bufio.NewReader(out)
			for {
				line, err := r.ReadString('\n')
				got.WriteString(line)
				if strings.HasPrefix(line, "waiting") {
					ts.emit("server.offline", "sat1 is offline", Pair{"server", 1})
					ts.emit("server.online", "sat1 is online", Pair{"server", 1})
				}
				if err == io.EOF {
					break
				} else if err != nil {
					t.Fatal(err)
				}
			}
			if err := cmd.Wait(); err != nil || stderr.String() != "" {
				t.Errorf("%v: %s", err, stderr.String())
			}
			if want := greeting + users + tt.refused + events; got.String() != want {
				t.Errorf("got\n%s\nwant\n%s", got.String(), want)
			}
		})
	}
}
