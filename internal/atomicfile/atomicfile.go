// Package atomicfile replaces a file so that a reader, a kill or a power cut
// sees the old content or the new one and nothing between.
//
//	err := atomicfile.Write(path, data, 0o600, atomicfile.Durable)
//
// The new content is written beside the target and renamed over it. It is not
// for files that are appended to, and it takes no lock: see internal/lockfile.
package atomicfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Durability says whether Write waits for the disk.
type Durability bool

const (
	// Volatile content may be lost, whole, in a power cut. For what dies with
	// the machine anyway.
	Volatile Durability = false
	// Durable content is on the disk when Write returns: fsync(2) of the file
	// before the rename, and of the directory after it.
	Durable Durability = true
)

// Write replaces the file at path.
func Write(path string, data []byte, mode fs.FileMode, d Durability) (err error) {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	f, err := os.CreateTemp(dir, "."+base+".tmp-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, Cause(err))
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err != nil {
		return fmt.Errorf("write %s: %w", path, Cause(err))
	}
	if err = f.Chmod(mode); err != nil {
		return fmt.Errorf("write %s: %w", path, Cause(err))
	}
	if d == Durable {
		if err = f.Sync(); err != nil {
			return fmt.Errorf("fsync %s: %w", path, Cause(err))
		}
	}
	if err = f.Close(); err != nil {
		return fmt.Errorf("write %s: %w", path, Cause(err))
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, Cause(err))
	}
	if d == Durable {
		return SyncDir(dir)
	}
	return nil
}

// Cause is an error about a temporary file without the file's name, which means
// nothing to anybody.
func Cause(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}

// WriteJSON is Write of v as indented JSON with a newline at its end.
func WriteJSON(path string, v any, mode fs.FileMode, d Durability) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return Write(path, append(data, '\n'), mode, d)
}

// SyncDir flushes the entries of a directory: a rename is durable only after
// it (fsync(2), "Calling fsync() does not necessarily ensure that the entry in
// the directory containing the file has also reached disk").
func SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("fsync %s: %w", dir, err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("fsync %s: %w", dir, err)
	}
	return nil
}
