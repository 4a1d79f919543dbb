package monitor

import (
	"unicode/utf8"
)

// Nothing that is written to a connection may hold a control character, so
// that no text from a user or a guest can drive an administrator's terminal.
// The functions here write untrusted text in each of the forms.

const hexDigits = "0123456789abcdef"

// plainTSV, plainJSON: bytes that stand for themselves. bareByte: bytes of a
// value in an end-line that needs no quotation marks.
var plainTSV, plainJSON, bareByte = byteTables()

func byteTables() (tsv, json, bare [256]bool) {
	for b := 0x20; b < 0x7f; b++ {
		tsv[b] = b != '\\'
		json[b] = b != '\\' && b != '"'
		bare[b] = b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9'
	}
	for _, b := range "._:/,@%+-" {
		bare[b] = true
	}
	return tsv, json, bare
}

// cut shortens s to at most limit bytes, between characters.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit] + "..."
}

// shown tells whether the character at the beginning of s, n bytes long, may
// be written as it is. It is for bytes from 0x80 on.
func shown(s string) (n int, ok bool) {
	r, n := utf8.DecodeRuneInString(s)
	return n, !(r == utf8.RuneError && n == 1) && r > 0x9f
}

func appendHex(b []byte, raw string) []byte {
	for i := 0; i < len(raw); i++ {
		b = append(b, '\\', 'x', hexDigits[raw[i]>>4], hexDigits[raw[i]&15])
	}
	return b
}

// appendEscaped writes s with the escapes that tsv, words in quotation marks
// and texts share. The bytes of plain stand for themselves; a backslash is
// doubled unless people are to read it.
func appendEscaped(b []byte, s string, plain *[256]bool, people bool) []byte {
	for i := 0; i < len(s); {
		start := i
		for i < len(s) && plain[s[i]] {
			i++
		}
		b = append(b, s[start:i]...)
		if i == len(s) {
			break
		}
		switch c := s[i]; {
		case c == '\\' && people || c == '"' && people:
			b = append(b, c)
		case c == '\\' || c == '"':
			b = append(b, '\\', c)
		case c == '\t':
			b = append(b, `\t`...)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\r':
			b = append(b, `\r`...)
		case c < utf8.RuneSelf:
			b = appendHex(b, s[i:i+1])
		default:
			n, ok := shown(s[i:])
			if ok {
				b = append(b, s[i:i+n]...)
			} else {
				b = appendHex(b, s[i:i+n])
			}
			i += n
			continue
		}
		i++
	}
	return b
}

// appendTSV writes a value of a tsv row.
func appendTSV(b []byte, s string, limit int) []byte {
	i := 0
	for i < len(s) && plainTSV[s[i]] {
		i++
	}
	if i == len(s) && i <= limit {
		return append(b, s...)
	}
	return appendEscaped(b, cut(s, limit), &plainTSV, false)
}

// appendQuoted writes s as a dquoted word.
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	if s == "-" {
		b = append(b, `\x2d`...) // a bare - is no value
	} else {
		b = appendEscaped(b, s, &plainJSON, false)
	}
	return append(b, '"')
}

// appendClean writes s for people: escapes for what is not to be shown, and
// everything else as it is.
func appendClean(b []byte, s string, limit int) []byte {
	return appendEscaped(b, cut(s, limit), &plainTSV, true)
}

// appendJSON writes s as a JSON string.
func appendJSON(b []byte, s string, limit int) []byte {
	s = cut(s, limit)
	b = append(b, '"')
	for i := 0; i < len(s); {
		start := i
		for i < len(s) && plainJSON[s[i]] {
			i++
		}
		b = append(b, s[start:i]...)
		if i == len(s) {
			break
		}
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\r':
			b = append(b, `\r`...)
		case c == '\t':
			b = append(b, `\t`...)
		case c < utf8.RuneSelf:
			b = append(b, `\u00`...)
			b = append(b, hexDigits[c>>4], hexDigits[c&15])
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			switch {
			case r == utf8.RuneError && n == 1:
				b = append(b, `\ufffd`...)
			case r <= 0x9f:
				b = append(b, `\u00`...)
				b = append(b, hexDigits[r>>4], hexDigits[r&15])
			default:
				b = append(b, s[i:i+n]...)
			}
			i += n
			continue
		}
		i++
	}
	return append(b, '"')
}

func yesNo(v bool) string {
	if v {
		return "yes"
	}
	return "no"
}
