package engine

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"nook/containers"
	"nook/internal/testenv/testimage"
)

func TestEnvironmentIsMergedAsDockerDoes(t *testing.T) {
	t.Setenv("SECRET", "of the host")
	for name, tc := range map[string]struct{ image, user, want []string }{
		"defaults":                 {nil, nil, []string{defaultPath, "HOSTNAME=h"}},
		"the image's over ours":    {[]string{"PATH=/x"}, nil, []string{"PATH=/x", "HOSTNAME=h"}},
		"the user's over both":     {[]string{"A=1", "B=2"}, []string{"A=3", "PATH="}, []string{"PATH=", "HOSTNAME=h", "A=3", "B=2"}},
		"the user passes one on":   {nil, []string{"SECRET"}, []string{defaultPath, "HOSTNAME=h", "SECRET=of the host"}},
		"the user unsets one":      {[]string{"A=1", "B=2"}, []string{"A"}, []string{defaultPath, "HOSTNAME=h", "B=2"}},
		"unset and set again":      {[]string{"A=1"}, []string{"A", "A=2"}, []string{defaultPath, "HOSTNAME=h", "A=2"}},
		"an image gets none of it": {[]string{"SECRET"}, nil, []string{defaultPath, "HOSTNAME=h"}},
		"an image unsets one":      {[]string{"PATH"}, nil, []string{"HOSTNAME=h"}},
	} {
		image := slices.Clone(tc.image)
		got := environment(tc.image, tc.user, &containers.Config{Hostname: "h"})
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
		if !slices.Equal(image, tc.image) {
			t.Errorf("%s: the image's own list was changed: %q", name, tc.image)
		}
	}
}

// TestEnvironmentOfManyVariables: an image with a hundred thousand of them
// ends: the square of that is minutes.
func TestEnvironmentOfManyVariables(t *testing.T) {
	var image []string
	for i := range 100_000 {
		image = append(image, fmt.Sprintf("V%d=x", i))
	}
	if got := environment(image, nil, &containers.Config{Hostname: "h"}); len(got) != len(image)+2 {
		t.Errorf("%d variables, want %d", len(got), len(image)+2)
	}
}

func TestStringsThatTheKernelWouldCutAreRefused(t *testing.T) {
	for name, cfg := range map[string]*containers.Config{
		"command":           {Cmd: []string{"sh", "a\x00b"}},
		"environment":       {Env: []string{"A=1\x002"}},
		"user":              {User: "0\x001"},
		"working directory": {WorkingDir: "/\x00x"},
	} {
		if err := whole(cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, want it refused by name", name, err)
		}
	}
	if err := whole(&containers.Config{Entrypoint: []string{"sh"}, Env: []string{"A="}}); err != nil {
		t.Error(err)
	}
}

// TestLayerThatIsListedTwice: overlayfs takes a directory only once, and the
// topmost occurrence is what shows.
func TestLayerThatIsListedTwice(t *testing.T) {
	one := testimage.Layer{Entries: []testimage.Entry{testimage.File("f", 0o644, "one"), testimage.File("g", 0o644, "one")}}
	two := testimage.Layer{Entries: []testimage.Entry{testimage.File("f", 0o644, "two"), testimage.File(".wh.g", 0o644, "")}}
	for _, tc := range []struct {
		above []testimage.Layer
		want  string
	}{
		{[]testimage.Layer{one, one}, "one one"},
		{[]testimage.Layer{one, two, one}, "one one"},
		{[]testimage.Layer{two, one, two}, "two none"},
	} {
		e := loaded(t, "single", func(img *testimage.Image) { img.Layers = append(img.Layers, tc.above...) })
		var notes []string
		e.opts.Note = func(text string) { notes = append(notes, text) }
		got := sh(t, e, `echo $(cat /f) $(cat /g 2>/dev/null || echo none)`)
		if got != tc.want || len(notes) > 0 {
			t.Errorf("got %q %q, want %q and no detour", got, notes, tc.want)
		}
		nothingLeft(t, e)
	}
}

// TestOpenRefusesAForgottenMain: such a program would start itself for ever.
func TestOpenRefusesAForgottenMain(t *testing.T) {
	args := os.Args
	defer func() { os.Args = args }()
	for _, name := range []string{"nook-monitor", "nook-stage", "nook-again", "nook-init"} {
		os.Args = []string{name}
		if _, err := Open(t.Context(), Options{Root: t.TempDir()}); !errors.Is(err, ErrNoMain) {
			t.Errorf("%s: got %v, want ErrNoMain", name, err)
		}
	}
}
