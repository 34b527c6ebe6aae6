// Package logs keeps a container's output on disk and reads it again. The
// format is that of Kubernetes' CRI, a line for each line or piece of one:
//
//	2006-01-02T15:04:05.000000000Z stdout F a whole line
//	2006-01-02T15:04:05.000000000Z stderr P the beginning of one
//
//	w := logs.NewWriter(dir, logs.DefaultLimits())
//	w.Write(logs.Stdout, data)
//
//	r, err := logs.NewReader(dir, logs.DefaultLimits(), logs.ReadOptions{Tail: -1})
//	err = r.Copy(ctx, os.Stdout, os.Stderr)
//
// # Files and their end
//
// A log is the files log, log-1, log-2 and so on, oldest first; only the last
// one grows, and none changes its name. One that reached Limits.Bytes is
// followed by the next, and the oldest are deleted while there are more than
// Limits.Files before the last. Nothing is written until there is output.
//
//	writer                              reader of log-1
//	  creates log-4                       flock(log-1, LOCK_SH)
//	  flock(log, LOCK_EX): deletes it     reads log-1 to its end
//	  flock(log-1, LOCK_EX): EWOULDBLOCK  opens and locks log-2
//	  stops: log-1 and later are kept     closes log-1
//
// So a reader that is killed holds nothing, and one that is slow or stopped
// keeps what it hasn't read, which the limits then don't bound but the disk
// does: a writer that finds it full deletes what is kept for readers, oldest
// first, before output is lost. Such a reader gets ErrGap.
package logs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Stream names where a line came from.
type Stream string

// The standard streams.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// Limits bound what a log takes on disk, but for what readers keep. Writer and
// readers of a log must be given the same.
type Limits struct {
	Bytes int64 // of one file
	Files int   // full ones beside the one that is written
}

// DefaultLimits are 10 MiB three times.
func DefaultLimits() Limits { return Limits{Bytes: 10 << 20, Files: 2} }

var (
	// ErrBroken says that a log has a line that no Writer wrote.
	ErrBroken = errors.New("broken log")
	// ErrGap says that a reader was too slow: what it had to read next was
	// deleted, as the disk was full.
	ErrGap = errors.New("part of the log was deleted before it was read: the disk was full")
)

const base = "log"

// path names a file of the log in dir.
func path(dir string, number int) string {
	if number == 0 {
		return filepath.Join(dir, base)
	}
	return filepath.Join(dir, base+"-"+strconv.Itoa(number))
}

// number is the opposite of path, for the last part of a name.
func number(name string) (int, bool) {
	if name == base {
		return 0, true
	}
	digits, ok := strings.CutPrefix(name, base+"-")
	n, err := strconv.Atoi(digits)
	return n, ok && err == nil && n > 0
}

// list tells the numbers of the files there are, oldest first.
func list(dir string) ([]int, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("list log files: %w", err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list log files: %w", err)
	}
	var out []int
	for _, name := range names {
		if n, ok := number(name); ok {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out, nil
}

// prune deletes the oldest files beyond the limits, up to the first that a
// reader holds; evenHeld: those too. It tells whether there were any. Writers
// and readers may do it at the same time.
func prune(dir string, limits Limits, evenHeld bool) (deleted bool) {
	numbers, err := list(dir)
	if err != nil {
		return false
	}
	for _, n := range numbers[:max(0, len(numbers)-limits.Files-1)] {
		if !remove(path(dir, n), evenHeld) {
			break
		}
		deleted = true
	}
	return deleted
}

func remove(name string, evenHeld bool) bool {
	if !evenHeld {
		f, err := os.Open(name)
		if err != nil {
			return os.IsNotExist(err)
		}
		defer f.Close() // and with it the lock
		if held(f) {
			return false
		}
	}
	err := os.Remove(name)
	return err == nil || os.IsNotExist(err)
}

// hold opens a file for reading and keeps it from prune. It is fs.ErrNotExist
// when that was faster.
func hold(dir string, number int) (*os.File, error) {
	f, err := os.Open(path(dir, number))
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	// Whoever has the other lock has it for a moment only.
	_ = flock(f, unix.LOCK_SH)
	if deleted(f) {
		_ = f.Close()
		return nil, fmt.Errorf("open log: %w", os.ErrNotExist)
	}
	return f, nil
}

// held tells whether a reader has the file; if not, it is ours until closed. A
// file system without locks (EOPNOTSUPP and others) keeps nothing for readers.
func held(f *os.File) bool {
	return errors.Is(flock(f, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// lagging tells whether a reader has one of the older files and none has the
// last.
func lagging(dir string, last int) bool {
	has := func(n int) bool {
		f, err := os.Open(path(dir, n))
		if err != nil {
			return false
		}
		defer f.Close()
		return held(f)
	}
	if has(last) {
		return false
	}
	numbers, err := list(dir)
	return err == nil && slices.ContainsFunc(numbers, func(n int) bool { return n != last && has(n) })
}

func deleted(f *os.File) bool {
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && st.Nlink == 0
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Lost tells whether the directory has no log any more, of a container that
// had one: its Writer began it.
func Lost(dir string) bool {
	numbers, err := list(dir)
	return err == nil && len(numbers) == 0
}
