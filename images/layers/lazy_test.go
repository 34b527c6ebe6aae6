package layers

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// rebooted is the store after another boot.
func rebooted(s *Store, boot string) *Store {
	other := *s
	other.boot = boot
	return &other
}

// What was unpacked just before the machine went down is unpacked once more,
// whatever it looks like, and that time the disk is waited for.
func TestUnpackedAgainAfterAnotherBoot(t *testing.T) {
	inStage(t)
	s, dir := newStore(t)
	sources, ids := sourcesOf(t, baseLayer, pendingLayer)
	if _, err := s.Unpack(context.Background(), sources, nil); err != nil {
		t.Fatal(err)
	}
	c, err := s.Ready(ids)
	if err != nil {
		t.Fatalf("in the same boot: %v", err)
	}
	file := filepath.Join(s.fsPath(c.Keys[0]), "etc/passwd")
	right, err := os.ReadFile(file)
	if err != nil || len(right) == 0 {
		t.Fatalf("got %q, %v", right, err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}

	after := rebooted(s, "after")
	if _, err := after.Ready(ids); !errors.Is(err, ErrNotUnpacked) {
		t.Fatalf("after another boot: got %v, want ErrNotUnpacked", err)
	}
	if _, err := after.Chain(ids); err != nil {
		t.Errorf("what keeps it from being collected: %v", err)
	}
	if after.Unpacked(sources) {
		t.Error("it counts as unpacked")
	}
	if _, err := after.Unpack(context.Background(), sources, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != string(right) {
		t.Errorf("got %q, %v, want %q", got, err, right)
	}
	if _, err := rebooted(s, "one more").Ready(ids); err != nil {
		t.Errorf("after one more boot: %v", err)
	}
	nothingStaged(t, dir)
}

// A layer that another image brings again is as suspect as it was.
func TestSuspectLayersAreNotShared(t *testing.T) {
	inStage(t)
	s, _ := newStore(t)
	sources, _ := sourcesOf(t, baseLayer)
	if _, err := s.Unpack(context.Background(), sources, nil); err != nil {
		t.Fatal(err)
	}
	more, ids := sourcesOf(t, baseLayer, plainLayer)
	after := rebooted(s, "after")
	file := filepath.Join(s.fsPath(ids[0][len("sha256:"):]), "etc/passwd")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := after.Unpack(context.Background(), more, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(file); err != nil {
		t.Errorf("the layer below was not unpacked again: %v", err)
	}
}

func TestSettledLayersAreTrusted(t *testing.T) {
	inStage(t)
	s, _ := newStore(t)
	sources, ids := sourcesOf(t, baseLayer, pendingLayer)
	if _, err := s.Unpack(context.Background(), sources, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Settle(context.Background(), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := rebooted(s, "after").Ready(ids); err != nil {
		t.Errorf("after another boot: %v", err)
	}
}

// A proof clears what is whole and says of what is not.
func TestProveOfSuspects(t *testing.T) {
	inStage(t)
	s, _ := newStore(t)
	sources, ids := sourcesOf(t, baseLayer, pendingLayer)
	c, err := s.Unpack(context.Background(), sources, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.fsPath(c.Keys[1]), "tmp/x"), []byte("else"), 0o600); err != nil {
		t.Fatal(err)
	}
	after := rebooted(s, "after")
	wrong, err := after.Prove(context.Background(), sources, nil)
	if err != nil || len(wrong) != 1 || wrong[0].Key != c.Keys[1] {
		t.Errorf("got %v, %v, want what is wrong with %s", wrong, err, c.Keys[1])
	}
	suspects, err := after.Suspects(c.Keys)
	if err != nil || len(suspects) != 1 || suspects[0] != c.Keys[1] {
		t.Errorf("suspects: got %q, %v, want %q", suspects, err, c.Keys[1])
	}
	if _, err := after.Unpack(context.Background(), sources, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := after.Ready(ids); err != nil {
		t.Error(err)
	}
}
