// Package volumes keeps directories that outlive containers, each by a name.
//
//	store := volumes.Open(filepath.Join(root, "volumes"))
//	done, err := store.Use(ctx)     // nobody removes any meanwhile
//	v, made, err := store.Create(volumes.Volume{Name: "db", IDs: "mapped"}, atomicfile.Durable)
//	err = mount(store.Data(v.Name))
//
// A volume is a directory volumes/NAME: volume.json, written once, and _data,
// whose files belong to ids of the user namespace. It is made beside its place
// and renamed to it, and renamed away before its files go: a kill leaves a whole
// volume or something that Sweep takes.
//
// Who uses a volume stands in the records of containers, which this package
// doesn't know: who removes one holds Change and looks there first. Nothing is
// mounted here.
package volumes

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nook/internal/atomicfile"
	"nook/internal/hint"
	"nook/internal/lockfile"
)

// Version is that of the records written here. A reader refuses a higher one.
const Version = 1

var (
	// ErrNotFound says that no volume has the name.
	ErrNotFound = errors.New("no such volume")
	// ErrName says that a name is not one.
	ErrName = errors.New("invalid volume name")
	// ErrExists says that there is a volume of the name, and that it is another.
	ErrExists = errors.New("volume already exists with other options")
	// ErrInUse says that a container has the volume.
	ErrInUse = errors.New("volume is in use")
	// ErrVersion says that a newer nook wrote the record.
	ErrVersion = errors.New("record of a newer nook")
)

// Volume is what a volume is, from its creation to its removal: volume.json.
type Volume struct {
	Version int               `json:"version"`
	Name    string            `json:"name"`
	Driver  string            `json:"driver"` // local
	Created time.Time         `json:"created"`
	Labels  map[string]string `json:"labels,omitempty"`
	// Options are those of the driver: type, device and o.
	Options map[string]string `json:"options,omitempty"`
	// Anonymous: it was made for one container and goes with it.
	Anonymous bool   `json:"anonymous,omitempty"`
	IDs       string `json:"ids"` // mapped, single or root
}

// Store is the directory volumes/ of a data root.
type Store struct{ path string }

// Open takes the directory, which is made when a volume is.
func Open(path string) Store { return Store{path} }

// Path is the directory of all volumes.
func (s Store) Path() string { return s.path }

// Dir is the directory of a volume, whether it is there or not.
func (s Store) Dir(name string) string { return filepath.Join(s.path, name) }

// Data is where a volume's files are.
func (s Store) Data(name string) string { return filepath.Join(s.path, name, "_data") }

const record = "volume.json"

// NewName makes one for an anonymous volume: 64 hexadecimal digits, as docker's.
func NewName() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never returns an error since Go 1.24
	return hex.EncodeToString(b[:])
}

// ValidName applies docker's rule, [a-zA-Z0-9][a-zA-Z0-9_.-]+; the file system
// takes 255 bytes.
func ValidName(name string) error {
	const longest = 255
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	if len(name) < 2 || len(name) > longest || !strings.Contains(letters, name[:1]) || strings.Trim(name, letters+"_.-") != "" {
		return hint.Errorf("a name is two or more of a-z A-Z 0-9 _ . - and begins with a letter or digit; "+
			"for a directory of the host, give its absolute path", "%w: %.300q", ErrName, name)
	}
	return nil
}

// Use keeps volumes from being removed until done is called: for who finds one
// and then writes down that it has it.
func (s Store) Use(ctx context.Context) (done func(), err error) {
	return s.lock(ctx, lockfile.RLock)
}

// Change waits until nobody is between finding a volume and writing that down,
// and keeps all from it until done is called.
func (s Store) Change(ctx context.Context) (done func(), err error) {
	return s.lock(ctx, lockfile.Lock)
}

func (s Store) lock(ctx context.Context, take func(context.Context, string) (func(), error)) (func(), error) {
	if err := os.MkdirAll(s.path, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of volumes: %w", err)
	}
	done, err := take(ctx, filepath.Join(s.path, ".lock"))
	if err != nil {
		return nil, fmt.Errorf("volumes: %w", err)
	}
	return done, nil
}

// Hold keeps all others who call it from one volume's files: for filling them.
// It may take as long as the files take. ErrNotFound: it is gone.
func (s Store) Hold(ctx context.Context, name string) (done func(), err error) {
	if _, err := s.Get(name); err != nil {
		return nil, err
	}
	if done, err = lockfile.Lock(ctx, filepath.Join(s.Dir(name), "lock")); err != nil {
		return nil, fmt.Errorf("volume %s: %w", name, err)
	}
	return done, nil
}

// Create makes a volume, or finds the one that has the name and the same
// options (made is false). Of v it wants Name, IDs and what else is known; the
// caller holds Use.
func (s Store) Create(v Volume, d atomicfile.Durability) (created Volume, made bool, err error) {
	if err := ValidName(v.Name); err != nil {
		return v, false, err
	}
	if there, err := s.Get(v.Name); !errors.Is(err, ErrNotFound) {
		return s.same(there, v, err)
	}
	v.Version, v.Driver, v.Created = Version, "local", time.Now().UTC()
	staging, err := os.MkdirTemp(s.path, newPrefix) // 0700
	if err != nil {
		return v, false, fmt.Errorf("create volume %s: %w", v.Name, err)
	}
	defer func() {
		if err != nil || !made {
			_ = os.RemoveAll(staging)
		}
	}()
	data := filepath.Join(staging, "_data")
	if err = os.Mkdir(data, 0o755); err == nil {
		err = os.Chmod(data, 0o755) // whatever the umask is
	}
	if err == nil {
		err = atomicfile.WriteJSON(filepath.Join(staging, record), v, 0o600, d)
	}
	if err == nil {
		// It replaces no volume: a directory that isn't empty is ENOTEMPTY.
		err = unix.Rename(staging, s.Dir(v.Name))
	}
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		there, gerr := s.Get(v.Name)
		if errors.Is(gerr, ErrNotFound) {
			gerr = hint.Errorf("look into it, and move it away", "create volume %s: %s is no volume, as it has no %s", v.Name, s.Dir(v.Name), record)
		}
		return s.same(there, v, gerr)
	}
	if err == nil && d == atomicfile.Durable {
		err = atomicfile.SyncDir(s.path)
	}
	if err != nil {
		return v, false, fmt.Errorf("create volume %s: %w", v.Name, err)
	}
	return v, true, nil
}

// same tells whether the volume that is there will do for the one that is
// wanted: one that asks for nothing takes any.
func (s Store) same(there, wanted Volume, err error) (Volume, bool, error) {
	if err == nil && len(wanted.Options) > 0 && !maps.Equal(there.Options, wanted.Options) {
		err = hint.Errorf("choose another name, or remove it first: nook volume rm "+there.Name,
			"create volume %s: %w", there.Name, ErrExists)
	}
	return there, false, err
}

// Get reads the record of a volume.
func (s Store) Get(name string) (Volume, error) {
	v := Volume{}
	if ValidName(name) != nil {
		return v, fmt.Errorf("get %.300s: %w", name, ErrNotFound)
	}
	data, err := os.ReadFile(filepath.Join(s.Dir(name), record))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return v, fmt.Errorf("get %s: %w", name, ErrNotFound)
	}
	if err != nil {
		return v, fmt.Errorf("volume %s: %w", name, err)
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return v, fmt.Errorf("volume %s: parse %s: %w", name, record, err)
	}
	if v.Version > Version {
		return v, hint.Errorf("use the nook that made it", "volume %s: %w (version %d)", name, ErrVersion, v.Version)
	}
	v.Name = name // of a directory that was renamed by hand
	return v, nil
}

// List is every volume by name, with those errors that single records have.
func (s Store) List() ([]Volume, error) {
	entries, err := os.ReadDir(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	var out []Volume
	var damaged []error
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		v, err := s.Get(e.Name())
		switch {
		case err == nil:
			out = append(out, v)
		case !errors.Is(err, ErrNotFound): // which is being removed, or no volume
			damaged = append(damaged, err)
		}
	}
	return out, errors.Join(damaged...)
}
