package monitor

import (
	"errors"
	"os"
)

// mainForTest makes the test binary the monitor: the tests run it as a
// process of its own.
func mainForTest() int {
	cmd := Command()
	cmd.SetArgs(os.Args[1:])
	cmd.Version = "test"
	err := cmd.Execute()
	var exit *ExitError
	switch {
	case errors.As(err, &exit):
		return exit.Status
	case err != nil:
		os.Stderr.WriteString(err.Error() + "\n")
		return 125
	}
	return 0
}
