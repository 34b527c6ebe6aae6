package volumes

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nook/internal/atomicfile"
)

func newStore(t *testing.T) Store {
	t.Helper()
	s := Open(filepath.Join(t.TempDir(), "volumes"))
	done, err := s.Use(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	done()
	return s
}

func mustCreate(t *testing.T, s Store, v Volume) Volume {
	t.Helper()
	v, made, err := s.Create(v, atomicfile.Volatile)
	if err != nil || !made {
		t.Fatalf("create %s: made %v, %v", v.Name, made, err)
	}
	return v
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"data": true, "a1": true, "A.b-c_d": true, NewName(): true, strings.Repeat("x", 255): true,
		"": false, "a": false, ".x": false, "_x": false, "-x": false, "a/b": false, "../x": false, "a b": false,
		"ä1": false, "a\n": false, "a\x00b": false, strings.Repeat("x", 256): false,
	} {
		if err := ValidName(name); (err == nil) != ok || err != nil && !errors.Is(err, ErrName) {
			t.Errorf("%.20q: %v, want valid %v", name, err, ok)
		}
	}
}

func TestCreateFindsTheOneThatIsThere(t *testing.T) {
	s := newStore(t)
	first := mustCreate(t, s, Volume{Name: "db", Labels: map[string]string{"a": "b"}, Options: map[string]string{"type": "tmpfs"}})
	got, made, err := s.Create(Volume{Name: "db"}, atomicfile.Volatile)
	if err != nil || made || !got.Created.Equal(first.Created) || got.Labels["a"] != "b" {
		t.Errorf("got %+v, made %v, %v; want the first", got, made, err)
	}
	if _, _, err := s.Create(Volume{Name: "db", Options: map[string]string{"type": "none"}}, atomicfile.Volatile); !errors.Is(err, ErrExists) {
		t.Errorf("with other options: %v, want ErrExists", err)
	}
	if left, _ := s.Litter(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestFilesSurviveACreateThatLost: what is there is never replaced, also when
// its record can't be read.
func TestFilesSurviveACreateThatLost(t *testing.T) {
	s := newStore(t)
	if err := os.MkdirAll(s.Data("db"), 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(s.Data("db"), "precious")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Create(Volume{Name: "db"}, atomicfile.Volatile); err == nil {
		t.Error("a directory without a record was taken for a new volume")
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

func TestListTellsDamageAndShowsTheRest(t *testing.T) {
	s := newStore(t)
	for _, name := range []string{"bb", "aa", "newer", "broken"} {
		mustCreate(t, s, Volume{Name: name})
	}
	for name, text := range map[string]string{"newer": `{"version": 99}`, "broken": "{"} {
		if err := os.WriteFile(filepath.Join(s.Dir(name), record), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(s.Path(), "norecord"), 0o700); err != nil {
		t.Fatal(err)
	}
	list, err := s.List()
	var names []string
	for _, v := range list {
		names = append(names, v.Name)
	}
	if !slices.Equal(names, []string{"aa", "bb"}) {
		t.Errorf("got %v", names)
	}
	if !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), "volume broken: parse") {
		t.Errorf("got %v, want both damages", err)
	}
	if _, err := s.Get("../volumes/aa"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a path as a name: %v", err)
	}
}

func TestDetachedIsGoneAtOnceAndSweptLater(t *testing.T) {
	s := newStore(t)
	mustCreate(t, s, Volume{Name: "db"})
	if err := os.WriteFile(filepath.Join(s.Data("db"), "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	gone, err := s.Detach("db")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get("db"); !errors.Is(err, ErrNotFound) {
		t.Errorf("after Detach: %v", err)
	}
	if _, err := s.Detach("db"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Detach again: %v", err)
	}
	for _, bad := range []string{"..", "db", gone + "/../x"} {
		if err := s.Remove(bad); err == nil {
			t.Errorf("Remove(%q): no error", bad)
		}
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(s.Path(), gone)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Sweep: %v", err)
	}
}

// TestSweepLeavesWhatIsBeingMade: who makes one holds Use.
func TestSweepLeavesWhatIsBeingMade(t *testing.T) {
	s := newStore(t)
	done, err := s.Use(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(s.Path(), newPrefix+"1")
	if err := os.Mkdir(half, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{true, false} {
		if err := s.Sweep(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(half); (err == nil) != want {
			t.Errorf("there: %v, want %v", err == nil, want)
		}
		done()
	}
}
