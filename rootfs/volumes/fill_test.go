package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nook/internal/atomicfile"
)

// seed makes a directory with n files and opens it.
func seed(t *testing.T, n int) *os.File {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "seed")
	if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, "sub", fmt.Sprint(i)), []byte(fmt.Sprint("text ", i)), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o751|os.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func (s Store) mustHave(t *testing.T, name string, files int) {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(s.Data(name), "sub"))
	if err != nil || len(list) != files {
		t.Errorf("%s has %d files, %v; want %d", name, len(list), err, files)
	}
	list, err = os.ReadDir(s.Dir(name))
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	if err != nil || !slices.Equal(names, []string{"_data", "lock", record}) {
		t.Errorf("beside its files: %v, %v", names, err)
	}
}

func TestFillOnceWithFewAndManyFiles(t *testing.T) {
	s := newStore(t)
	for _, n := range []int{3, fewFiles + 10} {
		for _, d := range []atomicfile.Durability{atomicfile.Durable, atomicfile.Volatile} {
			name := fmt.Sprintf("v%d-%t", n, d)
			mustCreate(t, s, Volume{Name: name})
			for _, files := range []int{n, n + 1} { // the second finds files
				if err := s.Fill(context.Background(), name, seed(t, files), d, nil); err != nil {
					t.Fatal(err)
				}
				s.mustHave(t, name, n)
			}
			st, err := os.Stat(s.Data(name))
			if err != nil || st.Mode().Perm() != 0o751 || st.Mode()&os.ModeSetgid == 0 {
				t.Errorf("%s: mode %v, %v; want the seed's", name, st.Mode(), err)
			}
		}
	}
	if err := s.Fill(context.Background(), "none", seed(t, 1), atomicfile.Volatile, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("a volume that isn't there: %v", err)
	}
}

// TestKilledFillIsDoneAgainOrEnded: before the copy was whole and after.
func TestFillWithPathsThatAreTooLongHere(t *testing.T) {
	s := newStore(t)
	mustCreate(t, s, Volume{Name: "deep"})
	from := seed(t, 1)
	const depth = 25
	at, err := os.OpenRoot(from.Name())
	for range depth {
		name := strings.Repeat("d", 200)
		if err == nil {
			err = at.Mkdir(name, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		below, err := at.OpenRoot(name)
		_ = at.Close()
		if at = below; err != nil {
			t.Fatal(err)
		}
	}
	defer at.Close()
	if err := at.WriteFile("file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Fill(context.Background(), "deep", from, atomicfile.Durable, nil); err != nil {
		t.Fatal(err)
	}
	s.mustHave(t, "deep", 1)
}

func TestKilledFillIsDoneAgainOrEnded(t *testing.T) {
	s := newStore(t)
	mustCreate(t, s, Volume{Name: "half"})
	if err := os.MkdirAll(filepath.Join(s.Dir("half"), "filling/_data/sub/part"), 0o700); err != nil {
		t.Fatal(err)
	}
	if s.Pending("half") {
		t.Error("half a copy is pending")
	}
	if err := s.Fill(context.Background(), "half", seed(t, 4), atomicfile.Volatile, nil); err != nil {
		t.Fatal(err)
	}
	s.mustHave(t, "half", 4)

	mustCreate(t, s, Volume{Name: "whole"})
	dir := filepath.Join(s.Dir("whole"), "filled/_data")
	if err := errors.Join(os.MkdirAll(dir+"/sub", 0o700), os.WriteFile(dir+"/sub/a", nil, 0o600), os.WriteFile(dir+"/b", []byte("ours"), 0o600),
		os.WriteFile(s.Data("whole")+"/b", []byte("the container's"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if !s.Pending("whole") {
		t.Error("a whole copy isn't pending")
	}
	for range 2 {
		if err := s.Finish(context.Background(), "whole"); err != nil {
			t.Fatal(err)
		}
		s.mustHave(t, "whole", 1)
	}
	if text, err := os.ReadFile(s.Data("whole") + "/b"); string(text) != "the container's" {
		t.Errorf("what a container wrote meanwhile: %q, %v", text, err)
	}
}

func TestCancelledFillLeavesNothing(t *testing.T) {
	s := newStore(t)
	mustCreate(t, s, Volume{Name: "vol"})
	ctx, cancel := context.WithCancel(context.Background())
	err := s.fill(ctx, "vol", atomicfile.Volatile, func(to *os.File) error {
		defer cancel()
		return errors.Join(os.Mkdir(filepath.Join(to.Name(), dataName), 0o700), context.Canceled)
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if empty, err := s.Empty("vol"); err != nil || !empty {
		t.Errorf("empty %v, %v", empty, err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.Dir("vol"), "fill*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
