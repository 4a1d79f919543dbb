package host

import (
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"io/fs"
	"strings"
	"testing"
)

// secretNames are what secrets and their hashes are called in this package and
// in wire.
var secretNames = []string{"hash", "secret", "password"}

// secretly tells whether an expression stands for a secret or its hash.
func secretly(x ast.Expr) bool {
	name := ""
	switch x := x.(type) {
	case *ast.Ident:
		name = x.Name
	case *ast.SelectorExpr:
		name = x.Sel.Name
	case *ast.SliceExpr:
		return secretly(x.X)
	case *ast.CallExpr:
		return secretly(x.Fun)
	}
	for _, s := range secretNames {
		if strings.EqualFold(name, s) || strings.HasSuffix(name, "Hash") || strings.HasSuffix(name, "Secret") {
			return true
		}
	}
	return false
}

// RELIABILITY 4.4, pitfall 3: the time of a comparison must not tell how much of
// a secret was right. Secrets and their hashes are compared by crypto/subtle and
// by nothing else, but with the empty text.
func TestSecretsAreComparedInConstantTime(t *testing.T) {
	t.Parallel()
	constant := map[string]bool{}
	for _, dir := range []string{".", "../../proto/wire"} {
		set := gotoken.NewFileSet()
		packages, err := parser.ParseDir(set, dir, func(f fs.FileInfo) bool { return !strings.HasSuffix(f.Name(), "_test.go") }, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range packages {
			for name, file := range p.Files {
				ast.Inspect(file, func(n ast.Node) bool {
					switch n := n.(type) {
					case *ast.BinaryExpr:
						if n.Op != gotoken.EQL && n.Op != gotoken.NEQ || !secretly(n.X) && !secretly(n.Y) {
							break
						}
						if lit, ok := n.Y.(*ast.BasicLit); ok && lit.Value == `""` {
							break
						}
						// h is the record that was looked up before: is it still the same one?
						if id, ok := n.Y.(*ast.Ident); ok && (id.Name == "nil" || id.Name == "h") {
							break
						}
						t.Errorf("%s: a secret is compared by %s", set.Position(n.Pos()), n.Op)
					case *ast.CallExpr:
						f, ok := n.Fun.(*ast.SelectorExpr)
						if !ok {
							break
						}
						switch f.Sel.Name {
						case "ConstantTimeCompare":
							constant[strings.TrimPrefix(name, "../../")] = true
						case "Equal", "EqualFold", "Compare":
							for _, a := range n.Args {
								if secretly(a) {
									t.Errorf("%s: a secret is compared by %s", set.Position(n.Pos()), f.Sel.Name)
								}
							}
						}
					}
					return true
				})
			}
		}
	}
	for _, name := range []string{"plan_token.go", "password.go", "proto/wire/join.go"} {
		if !constant[name] {
			t.Errorf("%s compares nothing in constant time any more", name)
		}
	}
}
