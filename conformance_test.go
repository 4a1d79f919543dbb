package main_test

import (
	"fmt"
	"strings"
	"testing"
)

// Every line of PROTOCOL 17 is a test that names its number.
func TestConformanceIsTested(t *testing.T) {
	named := map[string][]string{}
	for _, s := range sources(t) {
		if !s.test() {
			continue
		}
		for _, group := range s.file.Comments {
			text := strings.Join(strings.Fields(group.Text()), " ")
			for {
				_, rest, ok := strings.Cut(text, "PROTOCOL 17, ")
				if !ok {
					break
				}
				list, _, _ := strings.Cut(rest, ":")
				for _, w := range strings.FieldsFunc(list, func(r rune) bool { return r < '0' || r > '9' }) {
					named[w] = append(named[w], s.name)
				}
				text = rest
			}
		}
	}
	for line := 1; line <= 14; line++ {
		if len(named[fmt.Sprint(line)]) == 0 {
			t.Errorf("no test names line %d", line)
		}
	}
}
