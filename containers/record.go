// Package containers keeps the records of containers and talks to the
// monitors that own them.
//
//	dir, err := containers.Open(root)
//	c, held, err := dir.Create(config, attr)
//	state, err := c.State()
//
// A container is a directory containers/ID: config.json (Edit),
// state.json (replaced by its monitor), log, upper and work. A name is a
// symlink containers/names/NAME to that directory, so that taking one is a single
// atomic call and looking one up reads no other container's record.
//
// It takes layer directories and never images: it runs any root file system.
package containers

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"nook/internal/atomicfile"
	"nook/internal/hint"
)

// The versions of what is written here. A reader refuses a higher one.
const (
	ConfigVersion = 1
	StateVersion  = 1
)

var (
	// ErrNotFound says that no container has the name or id.
	ErrNotFound = errors.New("no such container")
	// ErrName says that a name is not one.
	ErrName = errors.New("invalid container name")
	// ErrNameTaken says that another container has the name.
	ErrNameTaken = errors.New("container name is in use")
	// ErrVersion says that a newer nook wrote the record.
	ErrVersion = errors.New("record of a newer nook")
)

// Config is what a container is, from its creation to its removal:
// config.json.
type Config struct {
	Version int       `json:"version"`
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Created time.Time `json:"created"`

	Image    string `json:"image"`    // as it was typed
	ImageID  string `json:"imageID"`  // digest of the image's config
	Manifest string `json:"manifest"` // digest of the image's manifest

	IDs    string   `json:"ids"`    // mapped, single or root
	Layers []string `json:"layers"` // keys of the layers, topmost first
	Rootfs string   `json:"rootfs"` // rootfs.Kind

	Entrypoint []string          `json:"entrypoint"`
	Cmd        []string          `json:"cmd"`
	Env        []string          `json:"env"`
	User       string            `json:"user"`
	WorkingDir string            `json:"workingDir"`
	Hostname   string            `json:"hostname"`
	Labels     map[string]string `json:"labels,omitempty"`

	StopSignal  string        `json:"stopSignal,omitempty"`  // name or number; "": SIGTERM
	StopTimeout *int          `json:"stopTimeout,omitempty"` // seconds before SIGKILL; nil: 10, negative: never
	Restart     RestartPolicy `json:"restart,omitzero"`      // may be replaced, see Edit
	Health      *HealthCheck  `json:"health,omitempty"`      // nil: none
	Exposed     []string      `json:"exposed,omitempty"`     // EXPOSE of the image: 80/tcp

	ReadOnly  bool     `json:"readOnly"`
	Remove    bool     `json:"remove"`
	Init      bool     `json:"init"`
	OpenStdin bool     `json:"openStdin"`
	StdinOnce bool     `json:"stdinOnce,omitempty"` // stdin ends with the first client that gave some
	TTY       bool     `json:"tty"`
	Network   string   `json:"network"`
	Mounts    []Mount  `json:"mounts,omitempty"`
	ShmSize   int64    `json:"shmSize,omitempty"` // of /dev/shm, in bytes; 0: 64 MiB
	Secrets   []Secret `json:"secrets,omitempty"`
	LayerSize int64    `json:"layerSize,omitempty"` // the writable layer's limit in bytes; 0: none
}

// RestartPolicy says when a container that ended is started again.
type RestartPolicy struct {
	Name    string `json:"name,omitempty"`    // "" or no, on-failure, always, unless-stopped
	Retries int    `json:"retries,omitempty"` // of on-failure; 0: without end
}

// Wanted tells whether the policy ever starts a container again.
func (p RestartPolicy) Wanted() bool { return p.Name != "" && p.Name != "no" }

// HealthCheck is docker's HEALTHCHECK. Durations of 0 are docker's defaults.
type HealthCheck struct {
	// Test is NONE, or CMD with arguments, or CMD-SHELL with one line.
	Test          []string      `json:"test"`
	Interval      time.Duration `json:"interval,omitempty"`
	Timeout       time.Duration `json:"timeout,omitempty"`
	StartPeriod   time.Duration `json:"startPeriod,omitempty"`
	StartInterval time.Duration `json:"startInterval,omitempty"`
	Retries       int           `json:"retries,omitempty"`
}

// HealthCheck is the container's check, nil for none.
func (c *Config) HealthCheck() *HealthCheck {
	if c.Health == nil || len(c.Health.Test) == 0 || c.Health.Test[0] == "NONE" {
		return nil
	}
	return c.Health
}

// FirstHealth is that of a run of the entrypoint that begins.
func (c *Config) FirstHealth() *Health {
	if c.HealthCheck() == nil {
		return nil
	}
	return &Health{Status: HealthStarting}
}

// Mount is a bind, a volume or a tmpfs of a container.
type Mount struct {
	Type string `json:"type"`           // bind, volume or tmpfs
	Name string `json:"name,omitempty"` // of a volume
	// Source is a path of the host; of a volume only where the volume is a bind.
	Source   string `json:"source,omitempty"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	Dir      bool   `json:"dir,omitempty"` // the source is a directory
	// Options are those of a tmpfs, also of a volume that is one, and the mode of
	// a -v, as they were typed.
	Options string `json:"options,omitempty"`

	Anonymous bool   `json:"anonymous,omitempty"` // a volume that goes with its last container
	Memory    bool   `json:"memory,omitempty"`    // a volume that is a tmpfs
	NoCopy    bool   `json:"noCopy,omitempty"`    // the image's files don't go into a new volume
	Subpath   string `json:"subpath,omitempty"`   // of a volume
	Chown     bool   `json:"chown,omitempty"`     // the user was given the files (:U)

	Slave         bool `json:"slave,omitempty"`         // later mounts of the host are seen
	NoRecurse     bool `json:"noRecurse,omitempty"`     // without the mounts below the source
	WritableBelow bool `json:"writableBelow,omitempty"` // read-only is the source alone
}

// Command is the entrypoint with its arguments.
func (c *Config) Command() []string {
	return append(append([]string{}, c.Entrypoint...), c.Cmd...)
}

// Dir is the directory containers/ of a data root.
type Dir struct{ path string }

// Open takes the directory, which is made when a container is.
func Open(path string) Dir { return Dir{path} }

// Container is the directory of one container.
type Container struct {
	ID   string
	Path string
	dir  Dir
}

const idLength = 64

// NewID makes an id: 32 random bytes as 64 hexadecimal digits, as docker's.
func NewID() string {
	var b [idLength / 2]byte
	_, _ = rand.Read(b[:]) // never returns an error since Go 1.24
	return hex.EncodeToString(b[:])
}

// Create makes the directory and writes the record. The name is taken first:
// of two that want it one wins, without a lock. The container is held: the
// caller starts it or lets go.
func (d Dir) Create(c *Config, root Attr) (ct Container, held *Lock, err error) {
	c.Version = ConfigVersion
	ct = Container{c.ID, filepath.Join(d.path, c.ID), d}
	if err := os.MkdirAll(d.names(), 0o700); err != nil {
		return ct, nil, fmt.Errorf("create container: %w", err)
	}
	if err := os.Mkdir(ct.Path, 0o700); err != nil {
		return ct, nil, fmt.Errorf("create container: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(ct.Path)
			held.Release()
		}
	}()
	if held, err = ct.lockDir(unix.LOCK_EX | unix.LOCK_NB); err != nil {
		return ct, nil, err
	}
	if err := d.take(c.Name, c.ID); err != nil {
		return ct, held, err
	}
	defer func() {
		if err != nil {
			d.release(c.Name, c.ID)
		}
	}()
	if err := ct.writableLayer(root); err != nil {
		return ct, held, err
	}
	if err := ct.writeNew(c, atomicfile.Durability(!root.Volatile)); err != nil {
		return ct, held, err
	}
	return ct, held, nil
}

// writeNew writes the record. Who dies with its run needs neither a flush nor
// a rename: a record that is cut short is none.
func (c Container) writeNew(cfg *Config, d atomicfile.Durability) error {
	file := filepath.Join(c.Path, "config.json")
	var err error
	if cfg.Remove {
		var data []byte
		if data, err = json.Marshal(cfg); err == nil {
			err = os.WriteFile(file, data, 0o600)
		}
	} else {
		err = atomicfile.WriteJSON(file, cfg, 0o600, d)
	}
	if err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	return nil
}

// Sync flushes a record that was written without: with Attr.Volatile.
func (c Container) Sync() error {
	for _, path := range []string{filepath.Join(c.Path, "config.json"), c.Path} {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("container %.12s: %w", c.ID, err)
		}
		err = f.Sync()
		_ = f.Close()
		if err != nil {
			return fmt.Errorf("container %.12s: %w", c.ID, err)
		}
	}
	return nil
}

// Attr is what the container's / looks like: the writable layer's directory
// stands before the image's.
type Attr struct {
	Mode uint32 // permissions, set-id bits and sticky bit
	// Volatile leaves the flush of the record to the monitor, which has the
	// time for it: Sync.
	Volatile bool
}

func (c Container) writableLayer(root Attr) error {
	for _, name := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(c.Path, name), 0o700); err != nil {
			return fmt.Errorf("create container: %w", err)
		}
	}
	if err := unix.Chmod(filepath.Join(c.Path, "upper"), root.Mode); err != nil {
		return fmt.Errorf("create container: chmod upper: %w", err)
	}
	return nil
}

// Config reads the record.
func (c Container) Config() (*Config, error) {
	var cfg Config
	if err := readJSON(filepath.Join(c.Path, "config.json"), &cfg); err != nil {
		return nil, fmt.Errorf("container %.12s: %w", c.ID, err)
	}
	if cfg.Version > ConfigVersion {
		return nil, hint.Errorf("use the nook that made it", "container %.12s: %w (version %d)", c.ID, ErrVersion, cfg.Version)
	}
	return &cfg, nil
}

// At is the container whose directory is path.
func At(path string) Container {
	return Container{filepath.Base(path), path, Dir{filepath.Dir(path)}}
}

// At is the container with this id, whether it is there or not.
func (d Dir) At(id string) Container { return Container{id, filepath.Join(d.path, id), d} }

// List is every container that has a record.
func (d Dir) List() ([]Container, error) {
	entries, err := os.ReadDir(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var out []Container
	for _, e := range entries {
		if !e.IsDir() || len(e.Name()) != idLength {
			continue
		}
		c := Container{e.Name(), filepath.Join(d.path, e.Name()), d}
		if _, err := os.Lstat(filepath.Join(c.Path, "config.json")); err == nil {
			out = append(out, c)
		}
	}
	return out, nil
}

// Remove takes the container's directory away; once its record is gone it is
// no container any more. In a stage or monitor only: what the container wrote
// belongs to ids of the user namespace.
func (c Container) Remove(name string) error {
	c.removeFiles(name)
	if unix.Rmdir(filepath.Join(c.Path, "upper")) == nil && c.removeWork() && unix.Rmdir(c.Path) == nil {
		return nil
	}
	if err := os.RemoveAll(c.Path); err != nil {
		return fmt.Errorf("remove container %.12s: %w", c.ID, err)
	}
	return nil
}

// RemoveUnwritten is Remove for a container that wrote nothing, from outside
// of the user namespace. It returns false when there is anything in the
// writable layer: then the record stays, for Remove inside.
func (c Container) RemoveUnwritten(name string) bool {
	if unix.Rmdir(filepath.Join(c.Path, "upper")) != nil && !c.removeMountPoints() || !c.removeWork() {
		return false
	}
	c.removeFiles(name)
	return unix.Rmdir(c.Path) == nil
}

// removeFiles removes what stands beside the writable layer, by name: a walk
// of the directory costs three times as much, and this is part of every
// run --rm.
func (c Container) removeFiles(name string) {
	_ = unix.Unlink(filepath.Join(c.Path, "config.json"))
	c.dir.release(name, c.ID) // soon: it leads to no container any more
	for _, file := range []string{"state.json", "sock", "log"} {
		_ = unix.Unlink(filepath.Join(c.Path, file))
	}
}

// removeWork removes the work directory with what overlayfs makes in it
// (ovl_create_volatile_dirty in fs/overlayfs/super.c): directories without any
// mode bits. It tells whether that was everything.
func (c Container) removeWork() bool {
	own := filepath.Join(c.Path, "work/work")
	dirs := []string{own, own + "/incompat", own + "/incompat/volatile"}
	for _, dir := range dirs {
		_ = unix.Chmod(dir, 0o700)
	}
	_ = unix.Unlink(own + "/incompat/volatile/dirty")
	for _, dir := range slices.Backward(dirs) {
		_ = unix.Rmdir(dir)
	}
	return unix.Rmdir(filepath.Join(c.Path, "work")) == nil
}

func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("parse %s: %w", filepath.Base(path), err)
	}
	return nil
}
