package floors

import (
	"errors"
	"fmt"
	"go/build"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// reach walks imports through the module, its dependencies in the module cache
// and the standard library, by parsing their sources for linux without cgo.
type reach struct {
	ctx     build.Context
	root    string
	modules map[string]string // path to directory
	seen    map[string]string // import to the one that wanted it
}

func newReach(t *testing.T) *reach {
	t.Helper()
	r := &reach{ctx: build.Default, root: root(t), modules: map[string]string{}, seen: map[string]string{}}
	r.ctx.GOOS, r.ctx.CgoEnabled = "linux", false
	r.ctx.BuildTags = []string{"urfave_cli_no_docs"}
	if r.ctx.GOROOT == "" {
		t.Fatal("the standard library's sources are needed: GOROOT is empty (built with -trimpath?)")
	}
	text, err := os.ReadFile(filepath.Join(r.root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	cache := os.Getenv("GOMODCACHE")
	if cache == "" {
		cache = filepath.Join(r.ctx.GOPATH, "pkg", "mod")
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(f) >= 2 && strings.HasPrefix(f[1], "v") {
			r.modules[f[0]] = filepath.Join(cache, escape(f[0])+"@"+f[1])
		}
	}
	return r
}

// escape is the module cache's spelling: a capital letter is ! and the small one.
func escape(p string) string {
	var b strings.Builder
	for _, c := range p {
		if unicode.IsUpper(c) {
			b.WriteByte('!')
			c = unicode.ToLower(c)
		}
		b.WriteRune(c)
	}
	return b.String()
}

// dir is where the sources of an import are.
func (r *reach) dir(what string) (string, error) {
	if d, ok := within(what); ok {
		return filepath.Join(r.root, d), nil
	}
	if first, _, _ := strings.Cut(what, "/"); !strings.Contains(first, ".") {
		return filepath.Join(r.ctx.GOROOT, "src", what), nil
	}
	best := ""
	for m := range r.modules {
		if (what == m || strings.HasPrefix(what, m+"/")) && len(m) > len(best) {
			best = m
		}
	}
	if best != "" {
		return filepath.Join(r.modules[best], strings.TrimPrefix(what, best)), nil
	}
	vendored := filepath.Join(r.ctx.GOROOT, "src", "vendor", what)
	if _, err := os.Stat(vendored); err != nil {
		return "", fmt.Errorf("%s is of no module in go.mod", what)
	}
	return vendored, nil
}

func (r *reach) walk(what, from string) error {
	if _, ok := r.seen[what]; ok || what == "C" || what == "unsafe" {
		return nil
	}
	r.seen[what] = from
	dir, err := r.dir(what)
	if err != nil {
		return err
	}
	p, err := r.ctx.ImportDir(dir, 0)
	if err != nil {
		return fmt.Errorf("%s, imported by %s: %w", what, from, err)
	}
	for _, i := range p.Imports {
		if err := r.walk(i, what); err != nil {
			return err
		}
	}
	return nil
}

// path tells how what was reached.
func (r *reach) path(what string) string {
	var steps []string
	for ; what != ""; what = r.seen[what] {
		steps = append(steps, what)
	}
	slices.Reverse(steps)
	return strings.Join(steps, " -> ")
}

func TestInsideReachesNothingHeavy(t *testing.T) {
	for _, start := range inside {
		t.Run(start, func(t *testing.T) {
			r := newReach(t)
			err := r.walk(module+"/"+start, "")
			if _, empty := errors.AsType[*build.NoGoError](err); empty || errors.Is(err, os.ErrNotExist) {
				t.Logf("%s is not there yet", start)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, h := range heavy {
				if _, ok := r.seen[h]; ok {
					t.Errorf("%s is reached: %s", h, r.path(h))
				}
			}
		})
	}
}

func TestBinaryReachesNoTestsModule(t *testing.T) {
	r := newReach(t)
	if err := r.walk(module+"/cmd/nook", ""); err != nil {
		t.Fatal(err)
	}
	for what := range r.seen {
		for _, m := range testsOnly {
			if what == m || strings.HasPrefix(what, m+"/") {
				t.Errorf("%s is reached: %s", what, r.path(what))
			}
		}
	}
}

func TestReachFollowsModulesAndTheStandardLibrary(t *testing.T) {
	r := newReach(t)
	// expvar stands on net/http, which stands on a vendored package.
	if err := r.walk("expvar", ""); err != nil {
		t.Fatal(err)
	}
	if _, ok := r.seen["net/http"]; !ok {
		t.Error("net/http not reached from expvar")
	}
	if err := r.walk("github.com/urfave/cli/v2", ""); err != nil {
		t.Fatal(err)
	}
	if got := r.path("text/template"); !strings.HasPrefix(got, "github.com/urfave/cli/v2") {
		t.Errorf("path to text/template is %q", got)
	}
}
