package engine

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"nook/internal/atomicfile"
)

// memo remembers the digests of a context's files: one whose inode, size and
// times are as they were is not read again. The change time can't be set by
// anyone, so that is as safe as git's own index, but for
//   - a file that is written twice within a tick of the clock: one that changed
//     just before it was read is not remembered;
//   - one that is written through a mapping, whose times the kernel sets when a
//     page gets dirty, and not again until it was written back: tmpfs never
//     does, and nothing of it is remembered;
//   - another file system in the place: whose it was is remembered too.
//
// A build with --no-cache believes none of it.
type memo struct {
	file string
	from string // the file system
	old  *memories
	mu   sync.Mutex
	now  map[string]memory // of files that were read
}

// memory is what is remembered of a file.
type memory struct {
	Dev, Ino     uint64
	Size         uint64
	Mtime, Ctime int64             // nanoseconds
	Sum          [sha256.Size]byte // of content and attributes
}

// tick is more than the resolution of any file system's clock.
const tick = 2 * time.Second

const memoMagic = "nook context 4\n"

// memo opens the one of a directory.
func (w *worker) memo(dir string) *memo {
	w.mu.Lock()
	defer w.mu.Unlock()
	if m := w.memos[dir]; m != nil {
		return m
	}
	sum := sha256.Sum256([]byte(dir))
	m := &memo{file: filepath.Join(w.dir, "contexts", hex.EncodeToString(sum[:])), now: map[string]memory{}, old: &memories{}}
	if m.from = fileSystem(dir); m.from == "" || w.fetched(dir) {
		m.file = ""
	}
	// One that is damaged, of another version or file system is none.
	if data, err := os.ReadFile(m.file); err == nil && !w.again {
		if rest, ok := unsealed(data, memoMagic+m.from); ok {
			m.old = readMemories(rest)
		}
	}
	w.memos[dir] = m
	return m
}

// fileSystem names the one that a directory is on, so that no other has its name,
// not even another that was mounted on the same device; "" if its files may
// change without a new time. Before Linux 6.8 the number of a mount
// (STATX_MNT_ID_UNIQUE, statx(2)) may come again.
func fileSystem(dir string) string {
	var fs unix.Statfs_t
	var st unix.Statx_t
	if unix.Statfs(dir, &fs) != nil || fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC ||
		unix.Statx(unix.AT_FDCWD, dir, 0, unix.STATX_MNT_ID|unix.STATX_MNT_ID_UNIQUE, &st) != nil {
		return ""
	}
	return fmt.Sprintf("%x %x %d\n", fs.Type, fs.Fsid.Val, st.Mnt_id)
}

// fetched tells whether a directory is of this build alone: what came from
// elsewhere lies under a name that never comes again.
func (w *worker) fetched(dir string) bool { return strings.HasPrefix(dir, w.temp+"/") }

// unsealed is what sealed made a file of, between its magic and its digest.
func unsealed(data []byte, magic string) ([]byte, bool) {
	end := len(data) - sha256.Size
	if !bytes.HasPrefix(data, []byte(magic)) || end < len(magic) {
		return nil, false
	}
	sum := sha256.Sum256(data[:end])
	return data[len(magic):end], bytes.Equal(sum[:], data[end:])
}

// sealed ends a file in its digest: a torn one is none.
func sealed(data []byte) []byte {
	sum := sha256.Sum256(data)
	return append(data, sum[:]...)
}

// memories are what is known of many files. A map of them costs more than all
// else that is done with them: they are looked up in a list.
type memories struct {
	list []namedMemory // in the order of names
	next int           // where the one after the last that was found stands
}

// namedMemory is what is remembered of the file of a name.
type namedMemory struct {
	name string
	memory
}

// find looks one up. Names that are asked for in their order are found at once.
func (m *memories) find(name string) (memory, bool) {
	at := m.next
	if at >= len(m.list) || m.list[at].name != name {
		var found bool
		at, found = slices.BinarySearchFunc(m.list, name, func(k namedMemory, name string) int { return strings.Compare(k.name, name) })
		if !found {
			return memory{}, false
		}
	}
	m.next = at + 1
	return m.list[at].memory, true
}

// add puts files in place of those of their names. The later of two of one name
// counts.
func (m *memories) add(list []namedMemory) {
	m.list = append(m.list, list...)
	slices.SortStableFunc(m.list, func(a, b namedMemory) int { return strings.Compare(a.name, b.name) })
	kept := m.list[:0]
	for i, k := range m.list {
		if i+1 < len(m.list) && m.list[i+1].name == k.name {
			continue
		}
		kept = append(kept, k)
	}
	m.list, m.next = kept, 0
}

// readMemories reads what write wrote.
func readMemories(data []byte) *memories {
	m := &memories{}
	text := string(data) // the names are parts of it
	n, used := binary.Uvarint(data)
	if used <= 0 || n > uint64(len(data)/sha256.Size) {
		return m
	}
	data = data[used:]
	m.list = make([]namedMemory, 0, n)
	for range n {
		size, used := binary.Uvarint(data)
		if used <= 0 || size > uint64(len(data)-used) {
			return &memories{}
		}
		begin := len(text) - len(data) + used
		k := namedMemory{name: text[begin : begin+int(size)]}
		data = data[used+int(size):]
		var f [5]uint64
		for i := range f {
			if f[i], used = binary.Uvarint(data); used <= 0 {
				return &memories{}
			}
			data = data[used:]
		}
		k.Dev, k.Ino, k.Size, k.Mtime, k.Ctime = f[0], f[1], f[2], int64(f[3]), int64(f[4])
		if len(data) < len(k.Sum) {
			return &memories{}
		}
		data = data[copy(k.Sum[:], data):]
		m.list = append(m.list, k)
	}
	return m
}

// write appends them to a file, how many first.
func (m *memories) write(b []byte) []byte {
	const each = 64 + 5*binary.MaxVarintLen64 + sha256.Size // most of the time
	b = slices.Grow(b, each*len(m.list))
	b = binary.AppendUvarint(b, uint64(len(m.list)))
	for i := range m.list {
		k := &m.list[i]
		b = binary.AppendUvarint(b, uint64(len(k.name)))
		b = append(b, k.name...)
		for _, v := range [...]uint64{k.Dev, k.Ino, k.Size, uint64(k.Mtime), uint64(k.Ctime)} {
			b = binary.AppendUvarint(b, v)
		}
		b = append(b, k.Sum[:]...)
	}
	return b
}

func memoryOf(st *unix.Stat_t) memory {
	return memory{Dev: st.Dev, Ino: st.Ino, Size: uint64(st.Size), Mtime: unix.TimespecToNsec(st.Mtim), Ctime: unix.TimespecToNsec(st.Ctim)}
}

// find gives a node its digest, if it is known.
func (m *memo) find(n *node) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.now[n.name]
	if !ok {
		r, ok = m.old.find(n.name)
	}
	want := memoryOf(&n.stat)
	want.Sum = r.Sum
	if !ok || r != want {
		return false
	}
	n.sum = r.Sum
	return true
}

// add remembers a file whose reading began then.
func (m *memo) add(n *node, began time.Time) {
	r := memoryOf(&n.stat)
	if began.Sub(time.Unix(0, r.Ctime)) < tick {
		return
	}
	r.Sum = n.sum
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now[n.name] = r
}

// save writes what is new. Files that this build didn't ask for stay known, but
// after --no-cache.
func (m *memo) save() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.now) == 0 || m.file == "" {
		return
	}
	var news []namedMemory
	for name, r := range m.now {
		news = append(news, namedMemory{name, r})
	}
	m.old.add(news)
	// What can't be kept is read again the next time.
	if err := atomicfile.Write(m.file, sealed(m.old.write([]byte(memoMagic+m.from))), 0o600, atomicfile.Volatile); errors.Is(err, unix.ENOSPC) {
		_ = os.Remove(m.file)
	}
}
