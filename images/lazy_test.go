package images

import (
	"errors"
	"os"
	"strings"
	"testing"

	"nook/internal/hint"
	"nook/internal/testenv/testimage"
)

// rebooted is the store after another boot.
func rebooted(s *Store, boot string) *Store { return &Store{dir: s.dir, boot: boot} }

// zero makes of a layer's blob what a power cut leaves of it on a file system
// that writes sizes before content.
func zero(t testing.TB, l Layer) {
	t.Helper()
	if err := os.Chmod(l.BlobPath, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(l.BlobPath, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(l.BlobPath, l.Size); err != nil {
		t.Fatal(err)
	}
}

func layersIn(t testing.TB, s *Store, img Image) []Layer {
	t.Helper()
	layers, err := s.Layers(img)
	if err != nil {
		t.Fatal(err)
	}
	return layers
}

func TestPullMendsWhatThePowerCutTook(t *testing.T) {
	for name, damage := range map[string]func(testing.TB, Layer){
		"zeros": zero,
		"cut short": func(t testing.TB, l Layer) {
			if err := errors.Join(os.Chmod(l.BlobPath, 0o600), os.Truncate(l.BlobPath, l.Size/2)); err != nil {
				t.Fatal(err)
			}
		},
		"lost": func(t testing.TB, l Layer) {
			if err := os.Remove(l.BlobPath); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, s := newRemote(t), newStore(t)
			img := small()
			img.Layers = append(img.Layers, noise(1, 50_000))
			r.image(t, "app", "1", img)
			pulled := r.mustPull(t, s, "app:1")
			layers := layersIn(t, s, pulled.Image)
			last := layers[len(layers)-1]
			damage(t, last)

			if err := s.Prove(t.Context(), pulled.Image); err != nil {
				t.Errorf("in the same boot it is looked at: %v", err)
			}
			after := rebooted(s, "after")
			err := after.Prove(t.Context(), pulled.Image)
			if err == nil || !strings.Contains(err.Error(), "app:1 is damaged: layer") ||
				!strings.Contains(err.Error(), wentDown) || !strings.Contains(hint.Of(err), "nook pull ") {
				t.Errorf("got %v (%s), want which image is damaged, why, and what to do", err, hint.Of(err))
			}
			states := map[string]LayerState{}
			if _, err := r.pull(t, after, "app:1", PullOptions{Layer: func(digest string, state LayerState) {
				if digest == last.Digest {
					states[digest] = state
				}
			}}); err != nil {
				t.Fatal(err)
			}
			if states[last.Digest] != LayerDownloaded {
				t.Errorf("the damaged layer: %q, want %q", states[last.Digest], LayerDownloaded)
			}
			for _, l := range layers {
				if data, err := os.ReadFile(l.BlobPath); err != nil || digestOf(data) != l.Digest {
					t.Errorf("blob %s: %v", l.Digest, err)
				}
			}
			if err := after.Prove(t.Context(), pulled.Image); err != nil {
				t.Error(err)
			}
		})
	}
}

// What is whole is hashed once, and not fetched.
func TestProveClearsWhatIsWhole(t *testing.T) {
	r, s := newRemote(t), newStore(t)
	r.image(t, "app", "1", small())
	img := r.mustPull(t, s, "app:1").Image
	after := rebooted(s, "after")
	if suspects, err := after.ledger().Suspects(); err != nil || len(suspects) == 0 {
		t.Fatalf("got %v, %v, want suspects", suspects, err)
	}
	if err := after.Prove(t.Context(), img); err != nil {
		t.Fatal(err)
	}
	if suspects, err := after.ledger().Suspects(); err != nil || len(suspects) > 0 {
		t.Errorf("got %v, %v, want none", suspects, err)
	}
}

func TestSettledBlobsAreTrusted(t *testing.T) {
	s := newStore(t)
	loadImage(t, s, small())
	if err := s.Settle(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if suspects, err := rebooted(s, "after").ledger().Suspects(); err != nil || len(suspects) > 0 {
		t.Errorf("got %v, %v, want none", suspects, err)
	}
}

// Manifests, configs and what is made here are on the disk.
func TestWhatIsNeverSuspect(t *testing.T) {
	s := newStore(t)
	img := loadImage(t, s, small())
	suspects, err := rebooted(s, "after").ledger().Suspects()
	if err != nil || len(suspects) != len(layersIn(t, s, img)) || suspects[img.ID] || suspects[img.Manifest.Digest] {
		t.Errorf("got %v, %v, want the layers of %s alone", suspects, err, img.ID)
	}
	if err := s.Settle(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), CommitOptions{Base: img, Layer: strings.NewReader(strings.Repeat("\x00", 1024))}); err != nil {
		t.Fatal(err)
	}
	if suspects, err := rebooted(s, "after").ledger().Suspects(); err != nil || len(suspects) > 0 {
		t.Errorf("after a commit: %v, %v, want none", suspects, err)
	}
}

func TestRemovedBlobsAreForgotten(t *testing.T) {
	s := newStore(t)
	loadImage(t, s, testimage.Image{Name: "x:1", Layers: small().Layers})
	if _, err := s.Remove(t.Context(), "x:1", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	if suspects, err := rebooted(s, "after").ledger().Suspects(); err != nil || len(suspects) > 0 {
		t.Errorf("got %v, %v, want none", suspects, err)
	}
}

func TestCheckOfWhatThePowerCutTook(t *testing.T) {
	s := newStore(t)
	img := loadImage(t, s, small())
	zero(t, layersIn(t, s, img)[0])
	found, err := rebooted(s, "after").Check(t.Context(), CheckOptions{})
	if err != nil {
		t.Fatal(err)
	}
	said := ""
	for _, f := range found.Findings {
		said += f.Object + " " + f.Fact + "\n"
	}
	if !strings.Contains(said, "is damaged: "+wentDown) {
		t.Errorf("got %q, want that the machine went down", said)
	}
}

// A mark that can't be struck off is no reason to refuse what is whole.
func TestProveWhereTheLedgerCantBeWritten(t *testing.T) {
	s := newStore(t)
	img := loadImage(t, s, small())
	lock := s.path(".unsynced/lock")
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(lock, 0o700); err != nil {
		t.Fatal(err)
	}
	after := rebooted(s, "after")
	if err := after.Prove(t.Context(), img); err != nil {
		t.Error(err)
	}
	if _, err := after.Check(t.Context(), CheckOptions{}); err != nil {
		t.Error(err)
	}
}

func TestRepairOfAGarbageLedger(t *testing.T) {
	s := newStore(t)
	img := loadImage(t, s, small())
	after := rebooted(s, "after")
	for _, boot := range []string{"before", "after"} {
		if err := os.WriteFile(s.path(".unsynced/"+boot+".json"), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, repair := range []bool{false, true} {
		found, err := after.Check(t.Context(), CheckOptions{Repair: repair})
		if err != nil || len(found.Findings) != 2 {
			t.Fatalf("repair %v: %+v, %v; want both files", repair, found.Findings, err)
		}
		for _, f := range found.Findings {
			if !strings.HasPrefix(f.Object, "file images/.unsynced/") || f.Garbage || (f.Mended != "") != repair {
				t.Errorf("repair %v: %+v", repair, f)
			}
		}
	}
	if found, err := after.Check(t.Context(), CheckOptions{}); err != nil || len(found.Findings) > 0 {
		t.Errorf("after the repair: %+v, %v", found.Findings, err)
	}
	if err := after.Prove(t.Context(), img); err != nil {
		t.Error(err)
	}
	if suspects, err := after.ledger().Suspects(); err != nil || len(suspects) > 0 {
		t.Errorf("got %v, %v, want none: all were hashed", suspects, err)
	}
}
