package settings

import (
	"fmt"
	"regexp"
	"strings"
)

// AllHosts stands for every registered host in a list of expressions for names.
const AllHosts = "@cluster"

// A list of hosts is asked once for each desktop that is to be moved; it is
// bounded so that nobody waits for it.
const (
	maxHosts = 64  // expressions
	maxHost  = 256 // bytes of one
)

// HostPattern compiles an expression for the names of hosts. It is for the
// whole name, whether that is written or not: sat1 is not sat12.
func HostPattern(expression string) (*regexp.Regexp, error) {
	if len(expression) > maxHost {
		return nil, fmt.Errorf("%.40q... is %d bytes long, at most %d are possible: use several shorter expressions", expression, len(expression), maxHost)
	}
	// By itself first: a)|(b is right only inside of other parentheses.
	if _, err := regexp.Compile(expression); err != nil {
		return nil, fmt.Errorf("%.80q is not a regular expression: %w", expression, err)
	}
	p, err := regexp.Compile(`\A(?:` + expression + `)\z`)
	if err != nil { // \Q without \E
		return nil, fmt.Errorf("%.80q has no end: %w", expression, err)
	}
	return p, nil
}

// checkHosts accepts what HostPattern and AllHosts are.
func checkHosts(value string) error {
	words := strings.Fields(value)
	if len(words) > maxHosts {
		return fmt.Errorf("has %d expressions, at most %d are possible: one may stand for several names, as sat[1-9] does", len(words), maxHosts)
	}
	for _, w := range words {
		if strings.HasPrefix(w, "@") && w != AllHosts {
			return fmt.Errorf("%.80q is no group of hosts: there is only %s", w, AllHosts)
		}
		if w == AllHosts {
			continue
		}
		if _, err := HostPattern(w); err != nil {
			return err
		}
	}
	return nil
}
