package monitor

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of PROTOCOL 13.
const (
	maxLine   = 8191  // bytes of a command line without its end
	maxWords  = 256   // words of a command line
	maxReply  = 65535 // bytes of a line that we send, without its end
	maxChars  = 255   // characters of a free text
	maxChoice = 200   // candidates of complete
)

// word is one word of a command line with its quotation marks resolved.
// Quoted tells that its beginning stood in quotation marks: such a word is
// never a flag. Eq is where the sign of key=value stands, -1 where there is
// none or where anything up to it was quoted.
type word struct {
	text   string
	quoted bool
	eq     int
}

// checkChars refuses what no line may contain: control characters other than
// the tab, C1 controls, and what is not UTF-8.
func checkChars(line []byte) *Error {
	for i := 0; i < len(line); {
		b := line[i]
		if b < utf8.RuneSelf {
			if (b < 0x20 && b != '\t') || b == 0x7f {
				return refusef(505, "the line has the control character 0x%02x at byte %d", b, i+1)
			}
			i++
			continue
		}
		r, n := utf8.DecodeRune(line[i:])
		if r == utf8.RuneError && n == 1 {
			return refusef(505, "the line is not UTF-8 at byte %d", i+1)
		}
		if r <= 0x9f {
			return refusef(505, "the line has the control character U+%04X at byte %d", r, i+1)
		}
		i += n
	}
	return nil
}

func isBlank(b byte) bool { return b == ' ' || b == '\t' }

// cutName splits a line into its command name, in lower case, and the rest
// after one blank, for the commands that take the rest as it is. The name is
// empty for lines that are to be ignored.
func cutName(line string) (name, rest string) {
	line = strings.TrimLeft(line, " \t")
	if line == "" || line[0] == '#' {
		return "", ""
	}
	if i := strings.IndexAny(line, " \t"); i >= 0 {
		return strings.ToLower(line[:i]), line[i+1:]
	}
	return strings.ToLower(line), ""
}

// splitWords takes a line apart as PROTOCOL 2 says. The line has passed
// checkChars.
func splitWords(line string) ([]word, *Error) {
	var words []word
	for i := 0; ; {
		for i < len(line) && isBlank(line[i]) {
			i++
		}
		if i == len(line) {
			return words, nil
		}
		if len(words) == maxWords {
			return nil, refusef(501, "the line has more than %d words", maxWords)
		}
		w, next, err := readWord(line, i)
		if err != nil {
			return nil, err
		}
		words = append(words, w)
		i = next
	}
}

// readWord reads the word that begins at i and returns where it ends.
func readWord(line string, i int) (word, int, *Error) {
	w := word{eq: -1, quoted: line[i] == '"' || line[i] == '\''}
	var text []byte
	bare := true // nothing was quoted so far
	escaped := false
	start := i
	for i < len(line) && !isBlank(line[i]) {
		switch b := line[i]; b {
		case '\'':
			end := strings.IndexByte(line[i+1:], '\'')
			if end < 0 {
				return w, 0, refusef(503, "the quotation mark ' at byte %d is not closed", i+1)
			}
			text = append(text, line[i+1:i+1+end]...)
			i += end + 2
			bare = false
		case '"':
			open := i
			bare = false
			for i++; ; {
				if i >= len(line) {
					return w, 0, refusef(503, "the quotation mark \" at byte %d is not closed", open+1)
				}
				if line[i] == '"' {
					i++
					break
				}
				if line[i] != '\\' {
					text = append(text, line[i])
					i++
					continue
				}
				c, n, ok := unescape(line[i:])
				if !ok {
					return w, 0, refusef(503, "unknown escape at byte %d; known are \\\" \\\\ \\n \\r \\t \\xHH", i+1)
				}
				text = append(text, c)
				escaped = true
				i += n
			}
		default:
			if b == '=' && bare && w.eq < 0 {
				w.eq = len(text)
			}
			text = append(text, b)
			i++
		}
	}
	w.text = string(text)
	if escaped && (strings.IndexByte(w.text, 0) >= 0 || !utf8.ValidString(w.text)) {
		return w, 0, refusef(505, "an escape in the word at byte %d makes a NUL or is not UTF-8", start+1)
	}
	return w, i, nil
}

// unescape reads the escape at the beginning of s: its byte and its length.
func unescape(s string) (c byte, n int, ok bool) {
	if len(s) < 2 {
		return 0, 0, false
	}
	switch s[1] {
	case '"', '\\':
		return s[1], 2, true
	case 'n':
		return '\n', 2, true
	case 'r':
		return '\r', 2, true
	case 't':
		return '\t', 2, true
	case 'x':
		if len(s) >= 4 {
			hi, lo := unhex(s[2]), unhex(s[3])
			if hi >= 0 && lo >= 0 {
				return byte(hi<<4 | lo), 4, true
			}
		}
	}
	return 0, 0, false
}

func unhex(b byte) int {
	switch {
	case b >= '0' && b <= '9':
		return int(b - '0')
	case b >= 'a' && b <= 'f':
		return int(b-'a') + 10
	case b >= 'A' && b <= 'F':
		return int(b-'A') + 10
	}
	return -1
}

// Quote writes a word so that a command line gives it back as it is, for
// programs that put lines together from arguments.
func Quote(s string) string {
	plain := s != "" && s[0] != '#'
	for i := 0; plain && i < len(s); i++ {
		b := s[i]
		plain = b > ' ' && b != 0x7f && b != '"' && b != '\'' && (b < 0x80 || utf8.ValidString(s))
	}
	if plain && checkChars([]byte(s)) == nil {
		return s
	}
	return string(appendQuoted(nil, s))
}

// quoteArg quotes an argument of the shell. The key of key=value stays bare,
// else it would not be taken for one.
func quoteArg(s string) string {
	if i := strings.IndexByte(s, '='); i > 0 && isKey(s[:i]) && i+1 < len(s) {
		return s[:i+1] + Quote(s[i+1:])
	}
	return Quote(s)
}

// isKey tells whether s has the form of an option's key.
func isKey(s string) bool {
	for i := 0; i < len(s); i++ {
		if b := s[i]; !(b >= 'a' && b <= 'z' || i > 0 && (b >= '0' && b <= '9' || b == '-')) {
			return false
		}
	}
	return s != ""
}

// bind gives the words after the command's name to its arguments. What it
// returns is checked for form, not for meaning.
func (cmd *Entry) bind(words []word) (map[string]string, *Error) {
	if len(words) == 0 && !cmd.needs() {
		return nil, nil
	}
	args := make(map[string]string, len(words))
	set := func(a *Arg, value string) *Error {
		if _, twice := args[a.Name]; twice {
			return cmd.misuse("%s is given twice", a.Name)
		}
		if err := a.check(cmd, value); err != nil {
			return err
		}
		args[a.Name] = value
		return nil
	}
	position, literal := 0, false
	for _, w := range words {
		if !literal && w.text == "--" && !w.quoted {
			literal = true
			continue
		}
		a := cmd.flagOrOption(w, literal)
		value := w.text
		switch {
		case a != nil && a.Kind == Option:
			value = w.text[w.eq+1:]
		case a != nil: // a flag
		case !literal && w.eq > 0 && isKey(w.text[:w.eq]):
			key := w.text[:w.eq]
			user := cmd.positional(0)
			if key != "name" || user == nil || user.Type != TypeUser {
				return nil, cmd.misuse("the option %s is not known here", key)
			}
			// name=1234 forces a login name where digits would be a UID.
			a, value = user, w.text[w.eq+1:]
			args[byName] = "yes"
			position++
		default:
			if a = cmd.positional(position); a == nil {
				return nil, cmd.misuse("%q is too much", w.text)
			}
			position++
		}
		if err := set(a, value); err != nil {
			return nil, err
		}
	}
	for i := range cmd.Args {
		a := &cmd.Args[i]
		if _, ok := args[a.Name]; !ok && !a.Optional && a.Kind != Flag {
			return nil, cmd.misuse("%s is missing", a.hint())
		}
	}
	return args, nil
}

// byName is the key in the bound arguments that tells of name=LOGIN. It
// cannot be the name of an argument.
const byName = "name="

func (cmd *Entry) flagOrOption(w word, literal bool) *Arg {
	if literal {
		return nil
	}
	for i := range cmd.Args {
		a := &cmd.Args[i]
		if a.Kind == Flag && !w.quoted && w.text == a.Name || a.Kind == Option && w.eq > 0 && w.text[:w.eq] == a.Name {
			return a
		}
	}
	return nil
}

func (cmd *Entry) positional(n int) *Arg {
	for i := range cmd.Args {
		if cmd.Args[i].Kind == Positional {
			if n == 0 {
				return &cmd.Args[i]
			}
			n--
		}
	}
	return nil
}

// misuse is a 501 with the usage. The terse formats get the words too, except
// where the usage says it all.
func (cmd *Entry) misuse(format string, args ...any) *Error {
	msg := fmt.Sprintf(format, args...)
	return &Error{
		Code:  501,
		Pairs: []Pair{{"usage", cmd.Usage()}, {"msg", msg}},
		Text:  fmt.Sprintf("%s. Usage: %s.", upperFirst(msg), cmd.Usage()),
	}
}

func upperFirst(s string) string {
	if s != "" && s[0] >= 'a' && s[0] <= 'z' {
		return string(s[0]-'a'+'A') + s[1:]
	}
	return s
}

// refusef is a refusal without pairs.
func refusef(code int, format string, args ...any) *Error {
	return Errorf(code, nil, format, args...)
}
