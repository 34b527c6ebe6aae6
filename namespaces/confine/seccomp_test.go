package confine

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nook/internal/testenv"
	"nook/namespaces/confine/genfilter"
)

// TestGeneratedFiltersAreFresh runs the generator and compares with the files.
func TestGeneratedFiltersAreFresh(t *testing.T) {
	var dir string
	testenv.Need(t, "go-list", func() error {
		out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
		if err != nil {
			return fmt.Errorf("go list -m golang.org/x/sys: %w", err)
		}
		dir = strings.TrimSpace(string(out))
		_, err = os.Stat(dir)
		return err
	})
	numbers, err := genfilter.ReadNumbers(dir)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("default.json")
	if err != nil {
		t.Fatal(err)
	}
	profile, err := genfilter.Parse(data, func(name string) bool {
		c, err := ParseCap(name)
		return err == nil && DefaultCaps.Has(c)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range genfilter.Targets {
		name := "zseccomp_linux_" + target.GOARCH + ".go"
		want, err := genfilter.Render(profile, numbers, target)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the generator makes (%v): run go generate", name, err)
		}
	}
}

func TestFilterIsTheTableForThisArchitecture(t *testing.T) {
	native := map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[runtime.GOARCH]
	if got := Arches(); len(got) != 2 || got[0] != native {
		t.Errorf("Arches() = %#x, want %#x and its 32-bit sister", got, native)
	}
	plain, emulating := Filter(false), Filter(true)
	if len(plain) < 100 || len(emulating) <= len(plain) || len(emulating) > 300 {
		t.Errorf("%d and %d instructions: not two filters of a reasonable size", len(plain), len(emulating))
	}
	if allocs := testing.AllocsPerRun(10, func() { plain = Filter(true) }); allocs != 0 {
		t.Errorf("Filter allocates %v times", allocs)
	}
}
