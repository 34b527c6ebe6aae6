package floors

import (
	"fmt"
	"go/ast"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "nook"

// pkg is what the parsed sources of one directory say. Test files count for
// nothing here: a test may stand on whatever it needs.
type pkg struct {
	dir     string // relative to the module, "cmd/nook"
	name    string
	imports map[string]token.Position
	files   []*ast.File
}

// root is the module's directory, two above this one.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// parse reads every package under dir, its files named relative to dir.
func parse(t *testing.T, dir string) ([]*pkg, *token.FileSet) {
	t.Helper()
	fset := token.NewFileSet()
	byDir := map[string]*pkg{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return skipDir(dir, name)
		case !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(fset, name, text, parser.SkipObjectResolution|parser.ParseComments)
		if err != nil {
			return err
		}
		if ignored(f) {
			return nil
		}
		p := byDir[path.Dir(name)]
		if p == nil {
			p = &pkg{dir: path.Dir(name), imports: map[string]token.Position{}}
			byDir[p.dir] = p
		}
		p.name = f.Name.Name
		p.files = append(p.files, f)
		for _, i := range f.Imports {
			what, _ := strconv.Unquote(i.Path.Value)
			p.imports[what] = fset.Position(i.Pos())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var all []*pkg
	for _, p := range byDir {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *pkg) int { return strings.Compare(a.dir, b.dir) })
	return all, fset
}

// ignored says whether a file is a program of its own beside the package,
// which `//go:build ignore` keeps out of every build.
func ignored(f *ast.File) bool {
	for _, g := range f.Comments {
		for _, c := range g.List {
			if x, err := constraint.Parse(c.Text); err == nil && c.Pos() < f.Package {
				return !x.Eval(func(tag string) bool { return tag != "ignore" })
			}
		}
	}
	return false
}

// skipDir leaves out what the go command leaves out: testdata, hidden
// directories and modules of their own.
func skipDir(dir, name string) error {
	base := path.Base(name)
	if name != "." && (base == "testdata" || base[0] == '.' || base[0] == '_') {
		return fs.SkipDir
	}
	if _, err := os.Stat(filepath.Join(dir, name, "go.mod")); err == nil && name != "." {
		return fs.SkipDir
	}
	return nil
}

// within returns the directory in the module that an import names.
func within(what string) (dir string, ok bool) {
	return strings.CutPrefix(what, module+"/")
}

// broken returns one line for each breach of the floors, most specific first.
func broken(all []*pkg) []string {
	var out []string
	for _, p := range all {
		own, known := floors[p.dir]
		if !known && !programs[p.dir] {
			out = append(out, fmt.Sprintf("%s stands on no floor: give it a line in internal/floors/table_test.go", p.dir))
			continue
		}
		for what, at := range p.imports {
			dir, ok := within(what)
			if !ok || programs[p.dir] {
				continue
			}
			if programs[dir] {
				out = append(out, fmt.Sprintf("%s: %s imports %s, which is a program", at, p.dir, dir))
			} else if its := floors[dir]; its >= own {
				out = append(out, fmt.Sprintf("%s: %s (floor %g) imports %s (floor %g)", at, p.dir, own, dir, its))
			}
			if dir == "internal/testenv" && p.dir != "internal/testenv/testimage" {
				out = append(out, fmt.Sprintf("%s: %s imports testenv outside of its tests", at, p.dir))
			}
			for _, n := range neverImports {
				if n.from == p.dir && (n.to == dir || strings.HasPrefix(dir, n.to+"/")) {
					out = append(out, fmt.Sprintf("%s: %s never imports %s: %s", at, p.dir, dir, n.why))
				}
			}
		}
	}
	slices.Sort(out)
	return out
}

func TestFloors(t *testing.T) {
	all, _ := parse(t, root(t))
	if len(all) < 3 {
		t.Fatalf("parsed %d packages only: is this the module?", len(all))
	}
	for _, b := range broken(all) {
		t.Error(b)
	}
}

// TestFloorsAreEnforced holds a crooked house against the table.
func TestFloorsAreEnforced(t *testing.T) {
	imports := func(dir string, what ...string) *pkg {
		p := &pkg{dir: dir, imports: map[string]token.Position{}}
		for _, w := range what {
			p.imports[w] = token.Position{}
		}
		return p
	}
	for _, tc := range []struct {
		name string
		p    *pkg
		want string
	}{
		{"lower is fine", imports("engine", "nook/images", "os"), ""},
		{"higher", imports("rootfs", "nook/images"), "imports images (floor 5)"},
		{"own floor", imports("rootfs", "nook/cgroups"), "imports cgroups (floor 2)"},
		{"unknown", imports("util"), "stands on no floor"},
		{"images and namespaces", imports("images", "nook/namespaces/confine"), "never imports"},
		{"containers and images", imports("containers", "nook/images/layers"), "never imports"},
		{"testenv in code", imports("rootfs", "nook/internal/testenv"), "outside of its tests"},
		{"a program", imports("engine", "nook/integration/refuse"), "is a program"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := strings.Join(broken([]*pkg{tc.p}), "\n")
			if tc.want == "" && got != "" || !strings.Contains(got, tc.want) {
				t.Errorf("got %q, want %q in it", got, tc.want)
			}
		})
	}
}

// TestOnlyTheCommandSpeaks: no other package prints to the standard streams,
// ends the process or has an init function.
func TestOnlyTheCommandSpeaks(t *testing.T) {
	all, fset := parse(t, root(t))
	for _, p := range all {
		for _, f := range p.files {
			for _, s := range spoken(f, speakers[p.dir] || p.name == "main", initFunctions[p.dir]) {
				t.Errorf("%s: %s", fset.Position(s.pos), s.what)
			}
		}
	}
}

type speech struct {
	pos  token.Pos
	what string
}

// spoken finds the prints, exits and init functions of a file.
func spoken(f *ast.File, mayspeak, mayinit bool) []speech {
	var out []speech
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Name.Name == "init" && n.Recv == nil && !mayinit {
				out = append(out, speech{n.Pos(), "has an init function"})
			}
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && !mayspeak && forbidden(x.Name, n.Sel.Name) {
				out = append(out, speech{n.Pos(), "uses " + x.Name + "." + n.Sel.Name + ": only cmd prints and exits"})
			}
		}
		return true
	})
	return out
}

func forbidden(pkg, name string) bool {
	switch pkg {
	case "os":
		return name == "Exit"
	case "fmt":
		return name == "Print" || name == "Printf" || name == "Println"
	case "log":
		return true
	}
	return false
}

func TestSpokenFinds(t *testing.T) {
	const src = `package p
import ("fmt"; "os")
func init() { fmt.Println("x"); os.Exit(1) }`
	f, err := parser.ParseFile(token.NewFileSet(), "p.go", src, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	if got := spoken(f, false, false); len(got) != 3 {
		t.Errorf("got %v, want the init function, the print and the exit", got)
	}
	if got := spoken(f, true, true); len(got) != 0 {
		t.Errorf("got %v from a package that may", got)
	}
}
