package containers

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"

	"nook/internal/atomicfile"
	"nook/internal/hint"
)

// ValidName refuses what docker refuses.
func ValidName(name string) error {
	if !regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`).MatchString(name) {
		return hint.Errorf("a name begins with a letter or digit, and letters, digits, _ . - follow",
			"name %q: %w", name, ErrName)
	}
	return nil
}

func (d Dir) names() string { return filepath.Join(d.path, "names") }

// lockNames waits for the lock of names/: who changes a name, or takes one
// that a killed command left, has it meanwhile.
func (d Dir) lockNames() (*Lock, error) {
	f, err := os.Open(d.names())
	if err != nil {
		return nil, err
	}
	if err := flock(f, unix.LOCK_EX); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", d.names(), err)
	}
	return &Lock{f}, nil
}

// take takes a name. A free one is a single call; about one that seems to be
// another's it looks twice.
func (d Dir) take(name, id string) error {
	err := d.link(name, id)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	names, err := d.lockNames()
	if err != nil {
		return fmt.Errorf("take name %s: %w", name, err)
	}
	defer names.Release()
	return d.takeLocked(name, id)
}

func (d Dir) link(name, id string) error {
	return os.Symlink(filepath.Join("..", id), filepath.Join(d.names(), name))
}

// unsettledTime is how long a name may lead to a container that is being made
// or removed: neither takes that long.
const unsettledTime = 2 * time.Second

// takeLocked is take for who has the lock of the names.
func (d Dir) takeLocked(name, id string) error {
	late := time.Now().Add(unsettledTime)
	for {
		err := d.link(name, id)
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		link, err := os.Readlink(filepath.Join(d.names(), name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("take name %s: %w", name, err)
		}
		holder := d.At(filepath.Base(link))
		switch lost, settled := holder.lost(name); {
		case lost:
			d.release(name, holder.ID)
		case settled || time.Now().After(late):
			return hint.Errorf("nook rm it, or use another --name", "name %q: %w by %.12s", name, ErrNameTaken, holder.ID)
		default:
			time.Sleep(time.Millisecond)
		}
	}
}

// lost tells whether a name that leads to the container is a killed command's:
// nobody makes or removes the container, and it isn't there, or has another
// name. While somebody does, that isn't settled.
func (c Container) lost(name string) (lost, settled bool) {
	switch cfg, err := c.Config(); {
	case err == nil:
		return cfg.Name != name, true
	case !errors.Is(err, fs.ErrNotExist):
		is, held := c.CutShort()
		return is && !held, !is || !held
	}
	held, err := c.lockDir(unix.LOCK_EX | unix.LOCK_NB)
	held.Release()
	lost = err == nil && !c.exists() || errors.Is(err, ErrNotFound)
	return lost, lost
}

func (d Dir) release(name, id string) {
	link := filepath.Join(d.names(), name)
	if holder, err := os.Readlink(link); err == nil && filepath.Base(holder) == id {
		_ = os.Remove(link)
	}
}

// RandomName makes a name for a container whose owner gave none.
func RandomName() string {
	first, second := adjectives(), nouns()
	return first[rand.IntN(len(first))] + "_" + second[rand.IntN(len(second))]
}

// Rewrite replaces the record of a container that was not started yet.
func (c Container) Rewrite(cfg *Config) error {
	return atomicfile.WriteJSON(filepath.Join(c.Path, "config.json"), cfg, 0o600, atomicfile.Durability(!cfg.Remove))
}

func adjectives() []string {
	return []string{
		"agile", "amber", "ample", "brave", "breezy", "bright", "brisk", "calm", "candid", "cheery",
		"clever", "cosy", "crisp", "curious", "dapper", "daring", "eager", "early", "earnest", "fair",
		"fleet", "fond", "frank", "fresh", "gentle", "glad", "golden", "grand", "handy", "happy",
		"hardy", "honest", "humble", "jolly", "keen", "kind", "lively", "loyal", "lucid", "lucky",
		"mellow", "merry", "mild", "modest", "neat", "nimble", "noble", "patient", "placid", "plain",
		"polite", "proud", "quick", "quiet", "ready", "robust", "serene", "sharp", "silent", "sincere",
		"smart", "snug", "sober", "solid", "spry", "stable", "steady", "still", "sturdy", "sunny",
		"swift", "tender", "tidy", "tranquil", "trusty", "upbeat", "vivid", "warm", "wise", "witty",
	}
}

func nouns() []string {
	return []string{
		"alcove", "anchor", "arbor", "attic", "awning", "barn", "basin", "bay", "beacon", "bench",
		"berth", "bower", "bridge", "burrow", "cabin", "canopy", "cave", "cellar", "chalet", "chapel",
		"cloister", "coop", "copse", "corner", "cottage", "court", "cove", "cradle", "cubby", "dell",
		"den", "dock", "drey", "eyrie", "fold", "garret", "gazebo", "glade", "glen", "grotto",
		"grove", "hamlet", "harbor", "haven", "hearth", "hedge", "hive", "hollow", "hut", "inlet",
		"kiln", "lair", "landing", "ledge", "loft", "lodge", "manger", "meadow", "mill", "mooring",
		"nest", "niche", "oasis", "parlor", "pen", "perch", "pier", "porch", "port", "recess",
		"roost", "shed", "shelter", "shelf", "stable", "studio", "tent", "terrace", "tower", "warren",
	}
}
