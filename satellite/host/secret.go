package host

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"verdecmd/proto/wire"
)

// maxSecret is more than a token or a password ever has, in bytes.
const maxSecret = 1 << 10

// readSecret reads a token or a password out of a file, or from standard input
// where path is "-". what says which in errors, which never quote it. A file must
// be its owner's alone.
func readSecret(path, what string, stdin io.Reader) (string, error) {
	if path == "-" {
		return oneLine(what+" on standard input", stdin)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("file of the %s: %w", what, err)
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return "", fmt.Errorf("file of the %s: %w", what, err)
	case !st.Mode().IsRegular():
		return "", fmt.Errorf("%s is no regular file; to hand the %s over through a pipe, write - for the file", path, what)
	case st.Mode().Perm()&0o077 != 0:
		return "", fmt.Errorf("%s has mode %04o, so others could have read the %s: chmod 0600 %s", path, st.Mode().Perm(), what, path)
	}
	return oneLine(path, f)
}

// oneLine reads the one line that there is to be.
func oneLine(where string, r io.Reader) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("%s: %w", where, err)
	}
	text := strings.TrimRight(string(b), "\r\n")
	switch {
	case len(b) > maxSecret:
		return "", fmt.Errorf("%s: more than %d bytes, that is another file", where, maxSecret)
	case text == "":
		return "", fmt.Errorf("%s is empty", where)
	case strings.ContainsAny(text, "\r\n"):
		return "", fmt.Errorf("%s has more than one line", where)
	}
	return text, nil
}

// tokenIn finds the token in a line that says more about it, as the monitor
// writes it for scripts: created id=3 token=vd1-... A line without one is
// returned as it is.
func tokenIn(line string) string {
	for _, w := range strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\",=:{}", r) }) {
		if strings.HasPrefix(w, wire.TokenPrefix) {
			return w
		}
	}
	return line
}

// noSecrets refuses a token among the words of the command line, wherever it
// stands there.
func noSecrets(words []string) error {
	for _, w := range words {
		if !strings.HasPrefix(strings.ToLower(strings.TrimSpace(w)), wire.TokenPrefix) {
			continue
		}
		void := "it is to be deleted on the master (tokens, deletetoken)"
		if t, err := wire.ParseToken(w); err == nil {
			void = fmt.Sprintf(`delete it on the master with "deletetoken %d"`, t.ID)
		}
		return errors.New("a token on the command line can be read by every user of this computer, and stays in the history of the shell: " + void +
			", make another one with \"createtoken\", and hand it over in a file: --token-file FILE, or - for standard input")
	}
	return nil
}
