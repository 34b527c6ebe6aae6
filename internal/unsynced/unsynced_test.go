package unsynced

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"nook/internal/hint"
)

func suspects(t *testing.T, l Ledger) []string {
	t.Helper()
	s, err := l.Suspects()
	if err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(s))
}

func nothing() error { return nil }

func place(t *testing.T, l Ledger, names ...string) {
	t.Helper()
	if err := l.Place(context.Background(), names, nothing, nothing); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsPlacedIsSuspectAfterAnotherBoot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "u")
	one, two := Open(dir, "one"), Open(dir, "two")
	if got := suspects(t, one); got != nil {
		t.Errorf("of a ledger that isn't there: %v", got)
	}
	place(t, one, "a", "b")
	if got := suspects(t, one); got != nil {
		t.Errorf("under the same boot: %v", got)
	}
	if got, want := suspects(t, two), []string{"a", "b"}; !slices.Equal(got, want) {
		t.Errorf("under another boot: got %v, want %v", got, want)
	}
	place(t, two, "a") // which replaces it
	if err := two.Trust(context.Background(), "c"); err != nil {
		t.Fatal(err)
	}
	if got, want := suspects(t, two), []string{"b"}; !slices.Equal(got, want) {
		t.Errorf("once a was replaced: got %v, want %v", got, want)
	}
	if err := two.Trust(context.Background(), "b", "a"); err != nil {
		t.Fatal(err)
	}
	if got := suspects(t, two); got != nil {
		t.Errorf("once b is trusted: %v", got)
	}
	if got, want := suspects(t, Open(dir, "three")), []string{"a"}; !slices.Equal(got, want) {
		t.Errorf("after one more boot: got %v, want %v", got, want)
	}
}

// A mark alone replaces nothing: what is there is still what it was.
func TestAMarkTrustsNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "u")
	place(t, Open(dir, "one"), "a")
	two := Open(dir, "two")
	if err := two.Mark(context.Background(), []string{"a"}); err != nil {
		t.Fatal(err)
	}
	if got, want := suspects(t, two), []string{"a"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestTheMarkIsThereBeforeWhatItNames(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "u")
	refused := errors.New("refused")
	err := Open(dir, "one").Place(context.Background(), []string{"a"}, nothing, func() error {
		if got, want := suspects(t, Open(dir, "two")), []string{"a"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		return refused
	})
	if !errors.Is(err, refused) {
		t.Errorf("got %v, want what place said", err)
	}
}

func TestSettle(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "u")
	place(t, Open(dir, "before"), "removed", "old")
	l := Open(dir, "one")
	place(t, l, "a")
	exists := func(name string) bool { return name == "a" || name == "old" }
	flushed := 0
	flush := func() error { flushed++; return nil }
	if err := l.Settle(context.Background(), 0, exists, flush); err != nil {
		t.Fatal(err)
	}
	if flushed != 1 {
		t.Errorf("flushed %d times, want once", flushed)
	}
	if got, want := suspects(t, l), []string{"old"}; !slices.Equal(got, want) {
		t.Errorf("suspects: got %v, want %v", got, want)
	}
	if got, want := suspects(t, Open(dir, "two")), []string{"old"}; !slices.Equal(got, want) {
		t.Errorf("after the next boot: got %v, want %v", got, want)
	}
}

func TestSettleLeavesWhatIsFresh(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "u")
	place(t, Open(dir, "before"), "old")
	l := Open(dir, "one")
	place(t, l, "a")
	err := l.Settle(context.Background(), time.Hour, func(string) bool { return true }, func() error {
		t.Error("it was flushed")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A flush that failed proves nothing.
func TestSettleKeepsTheMarksOfAFailedFlush(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "u")
	l := Open(dir, "one")
	place(t, l, "a")
	bad := errors.New("input/output error")
	err := l.Settle(context.Background(), 0, func(string) bool { return true }, func() error { return bad })
	if !errors.Is(err, bad) {
		t.Errorf("got %v, want the flush's error", err)
	}
	if got, want := suspects(t, Open(dir, "two")), []string{"a"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestWhatIsHalfWrittenIsSwept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "u")
	l := Open(dir, "one")
	place(t, l, "a")
	cut := filepath.Join(dir, ".one.json.tmp-1")
	if err := os.WriteFile(cut, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	place(t, l, "b")
	if _, err := os.Lstat(cut); !os.IsNotExist(err) {
		t.Errorf("%s: got %v, want that it is gone", cut, err)
	}
}

func TestForgetWhatIsGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "u")
	place(t, Open(dir, "before"), "gone", "old")
	l := Open(dir, "one")
	place(t, l, "a", "removed")
	err := l.Forget(context.Background(), func(name string) bool { return name == "a" || name == "old" })
	if err != nil {
		t.Fatal(err)
	}
	if got, want := suspects(t, Open(dir, "two")), []string{"a", "old"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if err := l.Forget(context.Background(), func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("got %v, %v, want the lock alone", left, err)
	}
}

func TestMendMarksAllInPlaceOfGarbage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "u")
	place(t, Open(dir, "whole"), "a")
	place(t, Open(dir, "cut"), "b")
	l := Open(dir, "one")
	for _, boot := range []string{"cut", "one"} { // another's and this one's
		if got, err := l.Garbage(); err != nil || slices.Contains(got, boot+".json") {
			t.Errorf("garbage: %q, %v", got, err)
		}
		if err := os.WriteFile(filepath.Join(dir, boot+".json"), []byte{0, 0}, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := l.Garbage(); err != nil || !slices.Equal(got, []string{"cut.json", "one.json"}) {
		t.Errorf("garbage: %q, %v", got, err)
	}
	if _, err := l.Suspects(); hint.Of(err) == "" {
		t.Errorf("got %v, want an error that says what to do", err)
	}
	if err := l.Mend(context.Background(), func() ([]string, error) { return []string{"b", "c"}, nil }); err != nil {
		t.Fatal(err)
	}
	if got, want := suspects(t, l), []string{"a", "b", "c"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, err := l.Garbage(); err != nil || got != nil {
		t.Errorf("garbage: %q, %v", got, err)
	}
}
