package hint

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"
)

func TestOf(t *testing.T) {
	cause := fs.ErrNotExist
	for name, tc := range map[string]struct {
		err  error
		want string
	}{
		"nil":             {nil, ""},
		"none":            {cause, ""},
		"one":             {Wrap(cause, "look"), "look"},
		"below":           {fmt.Errorf("open x: %w", Wrap(cause, "look")), "look"},
		"the outer wins":  {Wrap(fmt.Errorf("a: %w", Wrap(cause, "inner")), "outer"), "outer"},
		"beside a code":   {WithCode(Wrap(cause, "look"), ExitNotFound), "look"},
		"under a hint":    {Wrap(WithCode(cause, ExitNotFound), "look"), "look"},
		"in joined ones":  {errors.Join(cause, Wrap(cause, "look")), "look"},
		"made with":       {Errorf("look", "open %s: %w", "x", cause), "look"},
		"nil with a hint": {Wrap(nil, "look"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Of(tc.err); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if tc.err != nil && !errors.Is(tc.err, cause) {
				t.Error("the cause is lost")
			}
		})
	}
}

func TestTextStays(t *testing.T) {
	err := WithCode(Errorf("look", "open %s: %w", "x", fs.ErrNotExist), ExitNotFound)
	if got, want := err.Error(), "open x: file does not exist"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCode(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		want int
	}{
		"nil":            {nil, 0},
		"none":           {fs.ErrNotExist, ExitNook},
		"one":            {WithCode(fs.ErrNotExist, ExitNotFound), 127},
		"under a hint":   {Wrap(WithCode(fs.ErrNotExist, ExitCannotRun), "look"), 126},
		"the outer wins": {WithCode(fmt.Errorf("a: %w", WithCode(fs.ErrNotExist, 3)), 4), 4},
		"nil with one":   {WithCode(nil, ExitNotFound), 0},
	} {
		if got := Code(tc.err); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}
