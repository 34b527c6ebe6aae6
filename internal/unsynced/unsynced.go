// Package unsynced writes down which things of a store were put there without
// waiting for the disk. Whoever comes after another boot of the machine knows
// by that what to look at before it is trusted.
//
//	l := unsynced.Open(dir, "")
//	err := l.Place(ctx, names, flush, func() error { return os.Rename(…) })
//	suspects, err := l.Suspects() // placed before this boot, not flushed since
//	err = l.Trust(ctx, "sha256:…") // one of them proved right
//	err = l.Settle(ctx, 2*time.Minute, exists, flush)
//
// There is a file for each boot:
//
//	DIR/BOOTID.json   {"NAME": seconds since the epoch at which it was marked, …}
//	DIR/lock          held by who changes them, and over a flush
//
// A file of this boot says nothing to readers: the page cache has what the disk
// hasn't. The names are the caller's; what they name is not touched here.
package unsynced

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"nook/internal/atomicfile"
	"nook/internal/hint"
	"nook/internal/lockfile"
)

// Ledger is the list in one directory, which is made when it is needed. It
// holds no state: any number of processes may have it open.
type Ledger struct {
	dir  string
	boot string
}

// Open is the ledger in dir. boot is the id of this boot, "" for BootID.
func Open(dir, boot string) Ledger { return Ledger{dir, boot} }

// BootID tells this boot from others; "" where the kernel doesn't say.
func BootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

const suffix = ".json"

// IsGarbage is what is wrong with a file that Garbage lists, Mended what Mend
// did to it.
const (
	IsGarbage = "is garbage, and it said what the disk may not have"
	Mended    = "written again with all that is there"
)

// noBoot is no boot's id.
const noBoot = "-"

// marks are the names of one boot.
type marks map[string]int64

func (l Ledger) bootID() string {
	if l.boot != "" {
		return l.boot
	}
	return BootID()
}

// Suspects are the names that were placed under another boot and neither
// flushed nor trusted since; nil: none. It takes no lock. Where nothing was
// ever placed it costs one system call.
func (l Ledger) Suspects() (map[string]bool, error) {
	all, err := l.others("")
	if err != nil || len(all) == 0 {
		return nil, err
	}
	suspects := make(map[string]bool)
	for _, m := range all {
		for name := range m {
			suspects[name] = true
		}
	}
	return suspects, nil
}

// others reads the files of other boots than the given one; "": this one.
func (l Ledger) others(boot string) (map[string]marks, error) {
	entries, err := os.ReadDir(l.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what was not synced: %w", err)
	}
	all := make(map[string]marks)
	for _, entry := range entries {
		of, ok := strings.CutSuffix(entry.Name(), suffix)
		if !ok || strings.HasPrefix(of, ".") {
			continue
		}
		if boot == "" {
			boot = l.bootID()
		}
		if of == boot {
			continue
		}
		m, err := l.read(of)
		if err != nil {
			return nil, err
		}
		if len(m) > 0 {
			all[of] = m
		}
	}
	return all, nil
}

func (l Ledger) path(boot string) string { return filepath.Join(l.dir, boot+suffix) }

func (l Ledger) read(boot string) (marks, error) {
	m := make(marks)
	data, err := os.ReadFile(l.path(boot))
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what was not synced: %w", err)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, hint.Wrap(fmt.Errorf("read what was not synced: %s: %w", l.path(boot), err), "nook system check --repair")
	}
	return m, nil
}

// Garbage are the names of the files, this boot's too, that say nothing any
// more; see Mend.
func (l Ledger) Garbage() ([]string, error) {
	entries, err := os.ReadDir(l.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what was not synced: %w", err)
	}
	var files []string
	for _, entry := range entries {
		boot, ok := strings.CutSuffix(entry.Name(), suffix)
		if !ok || strings.HasPrefix(boot, ".") {
			continue
		}
		if _, err := l.read(boot); err != nil {
			files = append(files, entry.Name())
		}
	}
	return files, nil
}

// Mend marks all names, those of what exists, in place of a file that is
// garbage: any of them may have stood there.
func (l Ledger) Mend(ctx context.Context, all func() ([]string, error)) error {
	files, err := l.Garbage()
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := l.mend(ctx, strings.TrimSuffix(file, suffix), all); err != nil {
			return err
		}
	}
	return nil
}

func (l Ledger) mend(ctx context.Context, boot string, all func() ([]string, error)) error {
	unlock, err := l.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := l.read(boot); err == nil {
		return nil
	}
	names, err := all()
	if err != nil {
		return err
	}
	m := make(marks)
	for _, name := range names {
		m[name] = time.Now().Unix()
	}
	return l.write(boot, m)
}

// write replaces the file of a boot; one without names goes, and may come back
// after a power cut.
func (l Ledger) write(boot string, m marks) error {
	if len(m) > 0 {
		return atomicfile.WriteJSON(l.path(boot), m, 0o600, atomicfile.Durable)
	}
	if err := os.Remove(l.path(boot)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove what was not synced: %w", err)
	}
	return nil
}

func (l Ledger) lock(ctx context.Context) (unlock func(), err error) {
	name := filepath.Join(l.dir, "lock")
	unlock, err = lockfile.Lock(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(l.dir, 0o700); err != nil {
			return nil, err
		}
		// A ledger that a power cut takes away would say that all is well.
		if err := atomicfile.SyncDir(filepath.Dir(l.dir)); err != nil {
			return nil, err
		}
		unlock, err = lockfile.Lock(ctx, name)
	}
	if err != nil {
		return nil, err
	}
	// Who writes here has the lock: what is half written is of the dead.
	cut, _ := filepath.Glob(filepath.Join(l.dir, ".*.tmp-*"))
	for _, file := range cut {
		_ = os.Remove(file)
	}
	return unlock, nil
}

// Mark is the first half of Place, for who knows early what will be placed: the
// disk has the names when it returns, and Place needn't write them.
func (l Ledger) Mark(ctx context.Context, names []string) error {
	boot := l.bootID()
	if len(names) == 0 || boot == "" {
		return nil
	}
	unlock, err := l.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return l.mark(boot, names)
}

func (l Ledger) mark(boot string, names []string) error {
	m, err := l.read(boot)
	if err != nil {
		return err
	}
	now, before := time.Now().Unix(), len(m)
	for _, name := range names {
		if _, marked := m[name]; !marked {
			m[name] = now
		}
	}
	if len(m) == before {
		return nil
	}
	return l.write(boot, m)
}

// Place marks the names and calls place, which puts what they name where it is
// found. All of that has been written by then, if only to the page cache. Where
// the kernel has no boot id, flush comes before place instead of a mark.
func (l Ledger) Place(ctx context.Context, names []string, flush, place func() error) error {
	boot := l.bootID()
	switch {
	case len(names) == 0:
		return place()
	case boot == "":
		if err := flush(); err != nil {
			return err
		}
		return place()
	}
	unlock, err := l.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := l.mark(boot, names); err != nil {
		return err
	}
	if err := place(); err != nil {
		return err
	}
	return l.trust(boot, names) // what was suspect was replaced
}

// Trust takes names away that proved right, or were replaced, after they were
// suspects. One that is placed under this boot stays marked.
func (l Ledger) Trust(ctx context.Context, names ...string) error {
	if len(names) == 0 {
		return nil
	}
	unlock, err := l.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return l.trust(l.bootID(), names)
}

func (l Ledger) trust(boot string, names []string) error {
	all, err := l.others(boot)
	if err != nil {
		return err
	}
	for of, m := range all {
		before := len(m)
		for _, name := range names {
			delete(m, name)
		}
		if len(m) == before {
			continue
		}
		if err := l.write(of, m); err != nil {
			return err
		}
	}
	return nil
}

// Settle flushes, and takes away what was placed under this boot, once one of
// the marks is older than age; and suspects that don't exist any more. Until
// then a flush would wait for what others write, and all that placed
// something within a minute would wait.
func (l Ledger) Settle(ctx context.Context, age time.Duration, exists func(name string) bool, flush func() error) error {
	boot := l.bootID()
	if !l.due(boot, age) {
		return nil
	}
	unlock, err := l.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	ours, err := l.read(boot)
	if err != nil {
		return err
	}
	if err := l.flush(boot, ours, age, flush); err != nil {
		return err
	}
	return l.forget(exists)
}

// Forget takes away what doesn't exist: it was removed, or is marked and not
// placed yet; Place marks that again.
func (l Ledger) Forget(ctx context.Context, exists func(name string) bool) error {
	all, err := l.others(noBoot)
	if err != nil || len(all) == 0 {
		return err
	}
	unlock, err := l.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return l.forget(exists)
}

func (l Ledger) forget(exists func(string) bool) error {
	all, err := l.others(noBoot)
	if err != nil {
		return err
	}
	for of, m := range all {
		before := len(m)
		maps.DeleteFunc(m, func(name string, _ int64) bool { return !exists(name) })
		if len(m) == before {
			continue
		}
		if err := l.write(of, m); err != nil {
			return err
		}
	}
	return nil
}

// flush flushes what was placed under this boot, if some of it is old enough.
func (l Ledger) flush(boot string, ours marks, age time.Duration, flush func() error) error {
	if !ours.older(age) {
		return nil
	}
	// What has been placed was written, as Place has the lock; what is only
	// marked will be marked again.
	if err := flush(); err != nil {
		return err
	}
	return l.write(boot, nil)
}

func (m marks) older(age time.Duration) bool {
	for _, at := range m {
		if time.Since(time.Unix(at, 0)) >= age {
			return true
		}
	}
	return false
}

// due says whether there is something to settle.
func (l Ledger) due(boot string, age time.Duration) bool {
	if all, err := l.others(boot); err != nil || len(all) > 0 {
		return err == nil
	}
	ours, err := l.read(boot)
	return err == nil && ours.older(age)
}
