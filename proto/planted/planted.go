// Package planted lets this program be built with bugs in it, to see whether
// the checkers find them. A normal build has none: Bug is false there, and the
// compiler leaves out what depends on it.
//
// The build tag "mutants" puts them in, and the environment variable
// VERDECMD_MUTANT chooses one when the program starts. A place that has a bug
// says so in its condition: if ok || planted.Bug("no-epoch-check"). Bugs says
// what each of them is.
package planted

// Name is the name of a planted bug.
type Name string
