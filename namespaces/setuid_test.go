package namespaces

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nook/internal/hint"
)

func TestWithin(t *testing.T) {
	have := []Range{{0, 1000, 1}, {1, 100000, 65536}, {100000, 200000, 10}}
	tests := map[string]struct {
		r    Range
		want bool
	}{
		"all of a line":        {Range{1, 1, 65536}, true},
		"part of a line":       {Range{1, 500, 10}, true},
		"the last id":          {Range{1, 100009, 1}, true},
		"one more than a line": {Range{1, 1, 65537}, false},
		"over two lines":       {Range{1, 0, 2}, false},
		"in a gap":             {Range{1, 70000, 1}, false},
		"the end of all ids":   {Range{1, 1<<32 - 1, 1}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := within(test.r, have); got != test.want {
				t.Errorf("within(%v, %v) = %v, want %v", test.r, have, got, test.want)
			}
		})
	}
}

func TestHelpersMustBePrivileged(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	why := func() string {
		t.Helper()
		err := helpersWork()
		if err == nil {
			t.Fatal("helpersWork() = nil, want an error")
		}
		if hint.Of(err) == "" {
			t.Errorf("%v has no hint", err)
		}
		return err.Error()
	}
	if got, want := why(), "isn't in PATH"; !strings.Contains(got, want) {
		t.Errorf("without helpers: %q, want %q in it", got, want)
	}
	for _, tool := range []string{"newuidmap", "newgidmap"} {
		if err := os.WriteFile(filepath.Join(dir, tool), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := why(), "not set-user-ID root"; !strings.Contains(got, want) {
		t.Errorf("without a set-user-ID bit: %q, want %q in it", got, want)
	}
	if os.Geteuid() == 0 {
		return
	}
	if err := os.Chmod(filepath.Join(dir, "newuidmap"), 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	if got, want := why(), "set-user-ID of uid"; !strings.Contains(got, want) {
		t.Errorf("another user's helper: %q, want %q in it", got, want)
	}
}
