package main_test

import (
	"go/ast"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fuzzed lists every parser of bytes that come from outside, by the fuzz target
// that holds it to its promises.
var fuzzed = map[string]string{
	"monitor FuzzLine":                 "a command line of an administrator: words, quotes, escapes, completion",
	"monitor FuzzDispatch":             "bytes on the master's socket",
	"monitor FuzzEscape":               "text of users and guests on its way to an administrator, in each format",
	"monitor FuzzArguments":            "values of arguments: times, numbers, servers, words",
	"monitor FuzzComplete":             "what is before the cursor when Tab is pressed",
	"monitor FuzzReply":                "one line of a master, as clients read it",
	"monitor FuzzMaster":               "all that a master sends to a terminal",
	"settings FuzzParseFile":           "a settings file",
	"settings FuzzLiteral":             "a value in it, held against what a shell takes",
	"settings FuzzValue":               "each kind of value",
	"settings FuzzEdit":                "a settings file that is changed in place",
	"settings FuzzSplitAddress":        "lists of addresses",
	"settings FuzzHostPattern":         "expressions for the names of hosts",
	"settings/account FuzzParsePasswd": "passwd and group files, answers of the system's directory",
	"settings/account FuzzGroups":      "groups of a user, from both",

	"master/link FuzzLink":       "all that a satellite sends on its link, in any order",
	"master/link FuzzHello":      "its inventory",
	"master/link FuzzReport":     "its reports",
	"master/link FuzzRefer":      "its logins and claims",
	"master/store FuzzUnseal":    "a sealed record and the head",
	"master/store FuzzVerify":    "pages of the database",
	"master/session FuzzRestore": "records of sessions",
	"master/host FuzzRestore":    "records of servers",
	"master/host FuzzChecks":     "records of the checks of hosts",
	"master/host FuzzProofs":     "records of tokens, of revocations and of the manager's password",
	"master/host FuzzJoin":       "what a stranger sends who wants to join",
	"master/host FuzzPHC":        "the hash of the manager's password",
	"master/job FuzzRecord":      "records of jobs",
	"master/drain FuzzWork":      "what a job that empties a server is to do",
	"master/alarm FuzzRecord":    "records of alarms",
	"master/audit FuzzRecord":    "records of administrators' commands",
	"master/event FuzzReserved":  "the record of the last event's number",
	"master/pki FuzzLoad":        "ca.pem of the master",

	"proto/wire FuzzParseIdentity": "the name in a certificate",
	"proto/wire FuzzPeer":          "a certificate of anybody's",
	"proto/wire FuzzFiles":         "the files of an enrolment",
	"proto/wire FuzzDetail":        "an error of the other end",
	"proto/wire FuzzFromStatus":    "an error of gRPC",
	"master/trust FuzzRestore":     "records of the trust bundle, of a change of the authority, of what satellites tell",
	"satellite/host FuzzSetBlock":  "authorized_keys and known_hosts, in which a block is kept",
	"satellite/host FuzzTrust":     "pieces of trust bundles, and the one on the disk",
	"proto/wire FuzzSSHKey":        "a public SSH key that a machine hands in",
	"proto/wire FuzzToken":         "a token that somebody types",
	"proto/wire FuzzRequest":       "a host's request for a certificate",
	"proto/wire FuzzTrust":         "a trust bundle and its pieces",

	"satellite/host FuzzMountinfo":         "/proc/self/mountinfo: names of mounts, which file servers choose",
	"satellite/host FuzzDocument":          "the result of another host's checks, from a file",
	"satellite/host FuzzSurvey":            "the survey of another host, from the master",
	"satellite FuzzWin4":                   "what a satellite answers win4",
	"satellite/host FuzzFiles":             "what a registration that was cut off has left; the note that the cluster has given a host up",
	"satellite/host FuzzReply":             "the master's answer to a host that registers",
	"satellite/host FuzzMenu":              "what is typed in the menu",
	"satellite/link FuzzDown":              "all that a master sends on a link",
	"satellite/session FuzzJournal":        "journal, epoch, lease and identity of a satellite",
	"satellite/load FuzzProc":              "/proc: stat, loadavg, meminfo, cpuinfo",
	"satellite/load FuzzParsePressure":     "/proc/pressure",
	"satellite/desktop FuzzDesktopConf":    "desktop.conf, which a publisher writes",
	"satellite/desktop/qemu FuzzQMP":       "what QEMU sends",
	"satellite/desktop/qemu FuzzEvent":     "its events",
	"satellite/desktop/qemu FuzzAgent":     "what the guest's agent sends",
	"satellite/desktop/qemu FuzzConsole":   "what a guest writes on its console",
	"satellite/desktop/qemu FuzzProcess":   "/proc/PID/stat",
	"satellite/desktop/qemu FuzzHost":      "/proc/mounts, the version that QEMU tells",
	"satellite/desktop/qemu FuzzArguments": "names and paths on their way into QEMU's arguments",
	"satellite/sim FuzzStory":              "what happens to a satellite, in any order",
	"packaging/demo FuzzFiles":             "what an older demo has left in its directory",
}

// unfuzzed are packages that parse and need no target, and why.
var unfuzzed = map[string]string{
	"master":                        "numbers in the arguments of commands, which monitor has checked, and its own /proc/self/statm",
	"master/cluster":                "numbers of sessions, from hellos that master/link has bounded; histories run over it",
	"master/sim":                    "a simulation reads what it wrote",
	"master/fleet":                  "a simulation reads what it wrote",
	"settings/service":              "numbers of the service manager",
	"satellite/guard":               "the numbers of processes in /proc",
	"packaging/tools/soak":          "reads the file that it writes",
	"docs/clients":                  "an example",
	"satellite/desktop/desktoptest": "the tests that both drivers pass",
	"packaging/picture":             "runs while documentation is made, on its own recording",
	"packaging/tools/benchtable":    "runs while documentation is made, on what go test prints",
	"packaging/tools/fuzzrun":       "reads what go test prints",
	"packaging/tools/protogen":      "runs while code is generated",
	"packaging/tools/testrun":       "reads what go test prints",
}

// parsers are the functions by which packages of ours read bytes from outside:
// whoever calls one needs a fuzz target.
var parsers = map[string][]string{
	"json": {"Unmarshal", "NewDecoder"}, "proto": {"Unmarshal"}, "protojson": {"Unmarshal"}, "yaml": {"Unmarshal"},
	"strconv": {"Atoi", "ParseInt", "ParseUint", "ParseFloat", "ParseBool", "Unquote"}, "fmt": {"Sscan", "Sscanf", "Sscanln", "Fscan", "Fscanf"},
	"bufio": {"NewScanner", "NewReader", "NewReaderSize"}, "pem": {"Decode"}, "x509": {"ParseCertificate", "ParsePKCS8PrivateKey", "ParseCertificateRequest"},
	"syntax": {"NewParser"}, "binary": {"Read", "Uvarint"}, "png": {"Decode"}, "base64": {"NewDecoder"}, "hex": {"DecodeString"},
}

// S21: who reads bytes from outside has a fuzz target, each target is in the
// table above, and what is in the table exists.
func TestEveryParserIsFuzzed(t *testing.T) {
	found, reads := map[string]bool{}, map[string]string{}
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && s.test() && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Fuzz") {
				found[s.dir()+" "+f.Name.Name] = true
			}
		}
		if s.test() || ast.IsGenerated(s.file) {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if x, ok := n.(*ast.SelectorExpr); ok {
				if p, ok := x.X.(*ast.Ident); ok && slices.Contains(parsers[p.Name], x.Sel.Name) && reads[s.dir()] == "" {
					reads[s.dir()] = s.at(n) + " uses " + p.Name + "." + x.Sel.Name
				}
			}
			return true
		})
	}
	for name := range found {
		if fuzzed[name] == "" {
			t.Errorf("%s is not in the table of fuzz_test.go: say what it reads", name)
		}
	}
	has := map[string]bool{}
	for name := range fuzzed {
		dir, _, _ := strings.Cut(name, " ")
		has[dir] = true
		if !found[name] {
			t.Errorf("%s is in the table and does not exist", name)
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(reads)) {
		if !has[dir] && unfuzzed[dir] == "" {
			t.Errorf("%s, and %s has no fuzz target: write one, or say in fuzz_test.go why none is needed", reads[dir], dir)
		}
	}
	for dir := range unfuzzed {
		if reads[dir] == "" {
			t.Errorf("%s parses nothing: take it out of the exceptions", dir)
		}
	}
}

// The corpora stay small: go test plays them always.
func TestCorporaAreSmall(t *testing.T) {
	const mostFiles, mostBytes = 30, 200 << 10
	files, bytes := map[string]int{}, int64(0)
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || name == "build" || name == "run") {
			return fs.SkipDir // what comes and goes while others work
		}
		if err != nil || d.IsDir() || !strings.Contains(filepath.ToSlash(name), "testdata/fuzz/") {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		files[path.Dir(filepath.ToSlash(name))]++
		bytes += info.Size()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir, n := range files {
		parts := strings.SplitN(dir, "/testdata/fuzz/", 2)
		if n > mostFiles || fuzzed[parts[0]+" "+parts[1]] == "" {
			t.Errorf("%s: %d files, at most %d, of a target in the table", dir, n, mostFiles)
		}
	}
	if bytes > mostBytes {
		t.Errorf("the corpora have %d bytes, at most %d", bytes, mostBytes)
	}
}
