package containers

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// made is a container that nobody holds.
func made(t *testing.T, d Dir, name string) Container {
	t.Helper()
	ct, held, err := d.Create(&Config{ID: NewID(), Name: name}, Attr{Mode: 0o755})
	if err != nil {
		t.Fatal(err)
	}
	held.Release()
	return ct
}

func TestLockIsOnesOnly(t *testing.T) {
	d := Open(t.TempDir())
	cfg := &Config{ID: NewID(), Name: "web"}
	ct, held, err := d.Create(cfg, Attr{Mode: 0o755})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ct.TryLock(); !errors.Is(err, ErrBusy) {
		t.Errorf("of a container that is being made: got %v, want ErrBusy", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := ct.WaitLock(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's end", err)
	}
	held.Release()
	// The one that nobody waited for any more was given back too.
	again, err := ct.WaitLock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := ct.Remove("web"); err != nil {
		t.Fatal(err)
	}
	again.Release()
	if _, err := ct.TryLock(); !errors.Is(err, ErrNotFound) {
		t.Errorf("of one that is gone: got %v, want ErrNotFound", err)
	}
}

// TestLockOfARemovedContainer: who waited for one finds it gone.
func TestLockOfARemovedContainer(t *testing.T) {
	d := Open(t.TempDir())
	ct := made(t, d, "web")
	held, err := ct.TryLock()
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error)
	go func() {
		_, err := ct.WaitLock(context.WithoutCancel(t.Context()))
		got <- err
	}()
	if err := ct.Remove("web"); err != nil {
		t.Fatal(err)
	}
	held.Release()
	if err := <-got; !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}

func TestEditRenames(t *testing.T) {
	d := Open(t.TempDir())
	ct, other := made(t, d, "web"), made(t, d, "db")
	rename := func(name string) error {
		return ct.Edit(func(c *Config) error { c.Name = name; return nil })
	}
	if err := rename("db"); !errors.Is(err, ErrNameTaken) {
		t.Errorf("got %v, want ErrNameTaken", err)
	}
	if err := rename("-"); !errors.Is(err, ErrName) {
		t.Errorf("got %v, want ErrName", err)
	}
	refused := errors.New("refused")
	if err := ct.Edit(func(c *Config) error { c.Name = "x1"; return refused }); !errors.Is(err, refused) {
		t.Errorf("got %v, want the change's own error", err)
	}
	for name, want := range map[string]Container{"web": ct, "db": other} {
		if got, err := d.Find(name); err != nil || got.ID != want.ID {
			t.Errorf("after renames that were refused, %s: got %.12s, %v", name, got.ID, err)
		}
	}
	if err := rename("web2"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Find("web"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the old name: got %v, want ErrNotFound", err)
	}
	cfg, err := ct.Config()
	if got, ferr := d.Find("web2"); ferr != nil || got.ID != ct.ID || err != nil || cfg.Name != "web2" {
		t.Errorf("got %.12s, %v and %+v, %v", got.ID, ferr, cfg, err)
	}
	if _, err := os.Lstat(filepath.Join(d.names(), "web")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old link: %v", err)
	}
}

// TestEditsWaitForEachOther: no change is lost.
func TestEditsWaitForEachOther(t *testing.T) {
	d := Open(t.TempDir())
	ct := made(t, d, "web")
	const edits = 20
	var wg sync.WaitGroup
	for range edits {
		wg.Go(func() {
			if err := ct.Edit(func(c *Config) error { c.Restart.Retries++; return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if cfg, err := ct.Config(); err != nil || cfg.Restart.Retries != edits {
		t.Errorf("got %+v, %v, want %d retries", cfg, err, edits)
	}
}
