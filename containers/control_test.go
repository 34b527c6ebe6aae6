package containers

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"nook/internal/hint"
)

// TestResultKeepsTheCause: errors.Is finds on this side of a socket what the
// monitor knew, and an older monitor's answer is read as well.
func TestResultKeepsTheCause(t *testing.T) {
	for _, cause := range []error{ErrNotRunning, ErrPaused, ErrAlreadyPaused, ErrNotPaused, unix.ENOENT} {
		err := hint.Wrap(hint.WithCode(fmt.Errorf("container web: %w", cause), 126), "do it")
		data, jerr := json.Marshal(Failed(err))
		if jerr != nil {
			t.Fatal(jerr)
		}
		var r Result
		if jerr := json.Unmarshal(data, &r); jerr != nil {
			t.Fatal(jerr)
		}
		got := r.Err()
		if !errors.Is(got, cause) || got.Error() != err.Error() || hint.Of(got) != "do it" || hint.Code(got) != 126 {
			t.Errorf("%v came as %v (%s), hint %q, code %d", err, got, data, hint.Of(got), hint.Code(got))
		}
		for _, other := range causes() {
			if !errors.Is(other, cause) && errors.Is(got, other) {
				t.Errorf("%v came as %v too", cause, other)
			}
		}
	}
	var old Result
	if err := json.Unmarshal([]byte(`{"error":"container web is paused","cause":"of the future","code":125}`), &old); err != nil {
		t.Fatal(err)
	}
	if err := old.Err(); err == nil || errors.Is(err, ErrPaused) || err.Error() != "container web is paused" {
		t.Errorf("a cause that isn't known: %v", err)
	}
}
