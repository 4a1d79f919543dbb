package host

import (
	"fmt"
	"strings"

	"verdecmd/settings"
)

// Allowed says whether a satellite may move desktops to this one, and if not,
// why, with the settings that allow it. server is WIN4_RELOCATION_SERVER of this
// satellite, allow is its WIN4_RELOCATION_HOSTS_ALLOW. name is the other's as its
// certificate has it, and member whether it is a registered host of the cluster:
// no other may, whatever its name and address are.
func Allowed(server bool, allow []string, name string, member bool) (ok bool, why string) {
	switch {
	case !server:
		return false, fmt.Sprintf("no desktops are moved to this satellite: %s is no here", settings.Relocation)
	case !member:
		return false, fmt.Sprintf("%.80q is no registered host of this cluster, as far as is known here", name)
	case len(allow) == 0:
		return false, fmt.Sprintf("no desktops are moved to this satellite: %s is empty here, which allows nobody", settings.RelocationHosts)
	}
	for _, a := range allow {
		if a == settings.AllHosts {
			return true, ""
		}
		// What cannot be compiled was refused when the settings were read.
		if p, err := settings.HostPattern(a); err == nil && p.MatchString(name) {
			return true, ""
		}
	}
	return false, fmt.Sprintf("desktops of %.80q are not let in: %s is %.200q here", name, settings.RelocationHosts, strings.Join(allow, " "))
}
