package layers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"nook/internal/atomicfile"
	"nook/internal/unsynced"
)

// Nobody waits for the disk until an unpacked layer is on it: what was unpacked
// since the last flush is written down (internal/unsynced), and after another
// boot it is unpacked from its blob once more, and flushed then, before it is
// used. Chains are small, but stand for what they name.

// wentDown is what is wrong with such a layer.
const wentDown = "the machine went down before the disk had it"

const unsyncedDir = ".unsynced"

// ErrSuspect is why Ready wants layers unpacked again.
var ErrSuspect = errors.New(wentDown)

func (s *Store) ledger() unsynced.Ledger {
	return unsynced.Open(filepath.Join(s.dir, unsyncedDir), s.boot)
}

func (s *Store) bootID() string {
	if s.boot != "" {
		return s.boot
	}
	return unsynced.BootID()
}

// Ready is Chain of layers that can be used: where one may have been lost when
// the machine went down, it is ErrNotUnpacked and ErrSuspect.
func (s *Store) Ready(diffIDs []string) (Chain, error) {
	c, err := s.Chain(diffIDs)
	if err != nil {
		return c, err
	}
	suspect, err := s.Suspects(c.Keys)
	if err != nil {
		return Chain{}, err
	}
	if len(suspect) > 0 {
		return Chain{}, fmt.Errorf("%w: layer %s: %w", ErrNotUnpacked, suspect[0], ErrSuspect)
	}
	return c, nil
}

// Suspects lists those of the layers that the disk may have lost when the
// machine went down.
func (s *Store) Suspects(keys []string) ([]string, error) {
	all, err := s.ledger().Suspects()
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return !all[key] }), nil
}

// Settle flushes what was unpacked, once some of it is older than age.
func (s *Store) Settle(ctx context.Context, age time.Duration) error {
	return s.ledger().Settle(ctx, age, s.hasFile, s.Flush)
}

func (s *Store) hasFile(name string) bool {
	_, err := os.Lstat(filepath.Join(s.dir, name))
	return err == nil
}

// chainName is a chain's name in the ledger: its path in the store.
func chainName(hexID string) string { return filepath.Join("chains", hexID+".json") }

// placed are the names of all that may be in the ledger.
func (s *Store) placed() ([]string, error) {
	names, err := s.keys()
	if err != nil {
		return nil, err
	}
	chains, err := os.ReadDir(filepath.Join(s.dir, "chains"))
	for _, entry := range chains {
		names = append(names, filepath.Join("chains", entry.Name()))
	}
	return names, err
}

func (u *unpacking) suspects() (map[string]bool, error) {
	if u.proving {
		return nil, nil
	}
	return u.store.ledger().Suspects()
}

// names are the keys that a layer may get: its content says which.
func (l *unpacked) names() []string { return []string{l.diffHex, "chain-" + l.chain} }

// mark writes the names of all that will be placed to the ledger, beside the
// extraction.
func (u *unpacking) mark(ctx context.Context) (wait func() error) {
	var names []string
	for _, l := range u.layers {
		if l.key == "" && l.twin == nil {
			names = append(names, l.names()...)
		}
	}
	if len(names) == 0 || u.again {
		return func() error { return nil }
	}
	names = append(names, chainName(u.layers[len(u.layers)-1].chain))
	done := make(chan error, 1)
	go func() { done <- u.store.ledger().Mark(ctx, names) }()
	return func() error { return <-done }
}

// commit gives the staged layers their names, and writes the chain.
func (u *unpacking) commit(ctx context.Context, c Chain) error {
	staged := slices.DeleteFunc(slices.Clone(u.layers), func(l *unpacked) bool { return l.staging == "" })
	top := u.layers[len(u.layers)-1]
	names := []string{chainName(top.chain)}
	for _, l := range staged {
		names = append(names, l.key)
	}
	place := func(d atomicfile.Durability) error {
		for _, l := range staged {
			if err := u.place(l); err != nil {
				return fmt.Errorf("commit: %w", err)
			}
			l.staging = ""
		}
		if d == atomicfile.Durable {
			if err := atomicfile.SyncDir(u.store.dir); err != nil {
				return fmt.Errorf("commit: %w", err)
			}
		}
		return u.store.writeChain(top, c, d)
	}
	if !u.again {
		return u.store.ledger().Place(ctx, names, u.flush, func() error { return place(atomicfile.Volatile) })
	}
	if err := u.flush(); err != nil {
		return err
	}
	if err := place(atomicfile.Durable); err != nil {
		return err
	}
	return u.store.trust(ctx, u.layers...)
}

// trust takes layers out of the ledger, and the chain on top of the last.
func (s *Store) trust(ctx context.Context, list ...*unpacked) error {
	names := []string{chainName(list[len(list)-1].chain)}
	for _, l := range list {
		names = append(names, l.key)
		for _, name := range l.names() { // one of them was marked in vain
			if _, err := os.Lstat(s.layerPath(name)); errors.Is(err, fs.ErrNotExist) {
				names = append(names, name)
			}
		}
	}
	return s.ledger().Trust(ctx, names...)
}

func (u *unpacking) flush() error {
	err := u.store.Flush()
	var errno unix.Errno
	if errors.As(err, &errno) {
		return entryError(".", u.store.dir, err)
	}
	return err
}
