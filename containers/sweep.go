package containers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Sweep removes what killed commands and monitors left: directories and names
// of containers that have no record yet, or no more, and those of the given
// that are Abandoned or CutShort. In a stage only, as Remove.
func (d Dir) Sweep(abandoned ...Container) error {
	for _, c := range abandoned {
		if err := d.At(c.ID).sweepAbandoned(); err != nil {
			return fmt.Errorf("sweep container %.12s: %w", c.ID, err)
		}
	}
	entries, err := os.ReadDir(d.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("sweep containers: %w", err)
	}
	for _, e := range entries {
		c := d.At(e.Name())
		if len(c.ID) != idLength || c.exists() {
			continue
		}
		held, err := c.lockDir(unix.LOCK_EX | unix.LOCK_NB)
		if err != nil { // it is being made
			continue
		}
		// Its record may have been written between the two looks.
		if !c.exists() {
			err = os.RemoveAll(c.Path)
		}
		held.Release()
		if err != nil {
			return fmt.Errorf("sweep container %.12s: %w", c.ID, err)
		}
	}
	return d.sweepNames()
}

// sweepNames removes the names that lead nowhere.
func (d Dir) sweepNames() error {
	entries, err := os.ReadDir(d.names())
	if err != nil {
		return nil // nobody has a name
	}
	var lost []string
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(d.names(), e.Name())); errors.Is(err, fs.ErrNotExist) {
			lost = append(lost, e.Name())
		}
	}
	if len(lost) == 0 {
		return nil
	}
	names, err := d.lockNames()
	if err != nil {
		return fmt.Errorf("sweep names: %w", err)
	}
	defer names.Release()
	for _, name := range lost {
		// It may be another's since the look.
		link, err := os.Readlink(filepath.Join(d.names(), name))
		if err != nil {
			continue
		}
		if lost, _ := d.At(filepath.Base(link)).lost(name); lost {
			d.release(name, filepath.Base(link))
		}
	}
	return nil
}

// Abandoned tells whether the container was to be removed at its end (remove),
// nobody holds it, and it ended or was never started: its command was killed
// and its monitor too. One that waits for its start has a state that says so.
func (c Container) Abandoned(remove bool, s State) bool {
	if !remove || s.Status.Live() || s.Status == Created && c.HasState() {
		return false
	}
	held, err := c.TryLock()
	held.Release()
	return err == nil
}

// CutShort tells whether the container has a record that ends too early, as a
// kill or a power cut leaves it of run --rm, which writes its own in place; and
// whether somebody holds it and may still be writing. A record that is damaged
// otherwise, or of a container that ran, is none of those.
func (c Container) CutShort() (is, held bool) {
	data, err := os.ReadFile(filepath.Join(c.Path, "config.json"))
	if err != nil || c.HasState() {
		return false, false
	}
	var cfg Config
	err = json.NewDecoder(bytes.NewReader(data)).Decode(&cfg)
	if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return false, false
	}
	lock, err := c.TryLock()
	lock.Release()
	return true, err != nil
}

// HasState tells whether a state was written: one that is removed at its end
// has none before it runs and, when it ended in no time, none at all.
func (c Container) HasState() bool {
	_, err := os.Lstat(filepath.Join(c.Path, "state.json"))
	return err == nil
}

func (c Container) sweepAbandoned() error {
	held, err := c.TryLock()
	if err != nil { // somebody has it, or had it
		return nil // so it isn't abandoned
	}
	defer held.Release()
	if data, err := os.ReadFile(filepath.Join(c.Path, "config.json")); err == nil && !json.Valid(data) {
		return c.Remove("") // its name leads nowhere then
	}
	cfg, err := c.Config()
	if err != nil {
		return err
	}
	state, err := c.State()
	if err != nil || !cfg.Remove || state.Status.Live() || state.Status == Created && c.HasState() {
		return err
	}
	c.RemoveSocket(state)
	return errors.Join(c.DropVolumes(cfg), c.Remove(cfg.Name))
}

// RemoveSocket removes what a killed monitor left in the runtime directory: its
// control socket, where that isn't beside the record. Who calls it holds the
// container.
func (c Container) RemoveSocket(s State) {
	if filepath.IsAbs(s.Socket) && filepath.Base(s.Socket) == SocketName(c.ID) {
		_ = os.Remove(s.Socket)
	}
}

// SocketName is the name of a container's control socket in the runtime
// directory.
func SocketName(id string) string { return id + ".sock" }
