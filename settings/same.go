package settings

import (
	"strconv"
	"strings"
)

// Same returns the settings that must be the same on all computers of a cluster,
// by name. Values that mean the same are written the same.
func Same(v *Values) map[string]string {
	out := map[string]string{}
	for _, s := range global {
		if !s.Same {
			continue
		}
		switch s.Kind {
		case Bool:
			out[s.Name] = "no"
			if v.Bool(s.Name) {
				out[s.Name] = "yes"
			}
		case Integer:
			out[s.Name] = strconv.Itoa(v.Int(s.Name))
		case Duration:
			out[s.Name] = v.Duration(s.Name).String()
		case MiB:
			out[s.Name] = strconv.Itoa(v.MiB(s.Name)) + " MiB"
		case Words:
			out[s.Name] = strings.Join(v.Words(s.Name), " ")
		default:
			out[s.Name] = v.String(s.Name)
		}
	}
	return out
}
