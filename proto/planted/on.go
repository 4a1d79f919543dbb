//go:build mutants

package planted

import "os"

var chosen = Name(os.Getenv("VERDECMD_MUTANT"))

// Bug tells whether the bug of this name is in force.
func Bug(n Name) bool { return n == chosen }
