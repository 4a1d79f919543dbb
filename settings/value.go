package settings

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// CheckValue says whether the setting may have this value. The error is
// complete: it names setting, value and what is wanted.
func (s Setting) CheckValue(value string) error {
	if err := CheckText(value); err != nil {
		return fmt.Errorf("the value of %s %w", s.Name, err)
	}
	if value == s.Default {
		return nil
	}
	if err := s.check(value); err != nil {
		return fmt.Errorf("%s is %.80q: %w", s.Name, value, err)
	}
	return nil
}

func (s Setting) check(value string) error {
	if value == "" && s.Kind != Text {
		return fmt.Errorf("wants %s, or no line at all for the default, %s", s.Kind, s.Default)
	}
	var err error
	switch s.Kind {
	case Bool:
		_, err = parseBool(value)
	case Integer:
		var n int64
		n, err = parseInteger(value)
		err = cmp.Or(err, s.inRange(float64(n), ""))
	case Duration:
		var d time.Duration
		d, err = parseDuration(value)
		err = cmp.Or(err, s.inRange(d.Seconds(), " s"))
	case MiB:
		var n int64
		n, err = parseMiB(value)
		err = cmp.Or(err, s.inRange(float64(n), " MiB"))
	case Path:
		if !filepath.IsAbs(value) {
			err = errors.New("wants an absolute path, one that begins with /")
		} else if n := int64(len(value)); s.Max > 0 && n > s.Max {
			err = fmt.Errorf("%d bytes long, at most %d are possible here: choose a shorter path", n, s.Max)
		}
	case Address:
		_, _, err = SplitAddress(value, 0)
	case Addresses:
		_, err = splitAddresses(value, 0)
	case Choice:
		if !slices.Contains(s.Choices, value) {
			err = fmt.Errorf("wants %s", orList(s.Choices))
		}
	}
	if err == nil && s.Check != nil {
		err = s.Check(value)
	}
	return err
}

func (s Setting) inRange(n float64, unit string) error {
	switch {
	case s.Max > 0 && (n < float64(s.Min) || n > float64(s.Max)):
		return fmt.Errorf("wants %d to %d%s", s.Min, s.Max, unit)
	case n < float64(s.Min):
		return fmt.Errorf("wants at least %d%s", s.Min, unit)
	}
	return nil
}

func parseBool(value string) (bool, error) {
	switch strings.ToLower(value) {
	case "yes":
		return true, nil
	case "no":
		return false, nil
	}
	return false, errors.New("wants yes or no")
}

// maxNumber keeps sums and products of settings far from an overflow.
const maxNumber = 1 << 40

func parseInteger(value string) (int64, error) {
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil || n > maxNumber {
		return 0, errors.New("wants a whole number")
	}
	return int64(n), nil
}

func parseDuration(value string) (time.Duration, error) {
	if n, err := parseInteger(value); err == nil && n <= 1e9 {
		return time.Duration(n) * time.Second, nil
	}
	d, err := time.ParseDuration(value)
	if err != nil || d < 0 {
		return 0, errors.New("wants a time in seconds, or with a unit, such as 90, 1m30s or 500ms")
	}
	return d, nil
}

var sizePattern = regexp.MustCompile(`^([0-9]{1,12}) ?([KMGT]?)(iB|B)?$`)

func parseMiB(value string) (int64, error) {
	m := sizePattern.FindStringSubmatch(value)
	if m == nil || m[2] == "" && m[3] != "" {
		return 0, errors.New("wants a size in MiB, or with a unit, such as 2048, 512M or 2G")
	}
	n, err := parseInteger(m[1])
	if err != nil {
		return 0, err
	}
	switch m[2] {
	case "K":
		if n%1024 != 0 {
			return 0, errors.New("wants whole MiB")
		}
		n /= 1024
	case "G":
		n <<= 10
	case "T":
		n <<= 20
	}
	if n > maxNumber {
		return 0, errors.New("wants a smaller size")
	}
	return n, nil
}

// orList is "a", "a or b", "a, b or c".
func orList(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
