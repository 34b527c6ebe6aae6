package engine

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"nook/internal/atomicfile"
)

// memo remembers the digests of a context's files: one whose inode, size and
// times are as they were is not read again. The change time can't be set by
// anyone, so that is as safe as git's own index, but for a file that is written
// twice within a tick of the clock: one that changed just before it was read is
// not remembered.
type memo struct {
	file string
	mu   sync.Mutex
	old  map[string]memory
	now  map[string]memory
	news bool
}

// memory is what is remembered of a file.
type memory struct {
	Ino, Size    uint64
	Mtime, Ctime int64             // nanoseconds
	Sum          [sha256.Size]byte // of content and attributes
}

// tick is more than the resolution of any file system's clock.
const tick = 2 * time.Second

const memoMagic = "nook context 2\n"

// memo opens the one of a directory.
func (w *worker) memo(dir string) *memo {
	w.mu.Lock()
	defer w.mu.Unlock()
	if m := w.memos[dir]; m != nil {
		return m
	}
	sum := sha256.Sum256([]byte(dir))
	m := &memo{file: filepath.Join(w.dir, "contexts", hex.EncodeToString(sum[:])), now: map[string]memory{}}
	if w.fetched(dir) {
		m.file = ""
	}
	m.load()
	w.memos[dir] = m
	return m
}

// fetched tells whether a directory is of this build alone: what came from
// elsewhere lies under a name that never comes again.
func (w *worker) fetched(dir string) bool { return strings.HasPrefix(dir, w.temp+"/") }

// load reads the file; one that is damaged or of another version is none.
func (m *memo) load() {
	m.old = map[string]memory{}
	data, err := os.ReadFile(m.file)
	if err != nil {
		return
	}
	if rest, ok := unsealed(data, memoMagic); ok {
		readMemories(rest, m.old)
	}
}

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
func sealed(out *bytes.Buffer) []byte {
	sum := sha256.Sum256(out.Bytes())
	out.Write(sum[:])
	return out.Bytes()
}

// readMemories reads what writeMemories wrote.
func readMemories(data []byte, into map[string]memory) {
	in := bytes.NewReader(data)
	for {
		n, err := binary.ReadUvarint(in)
		if err != nil || n > unix.PathMax {
			return
		}
		name := make([]byte, n)
		var f [4]uint64
		if _, err := io.ReadFull(in, name); err != nil {
			return
		}
		for i := range f {
			if f[i], err = binary.ReadUvarint(in); err != nil {
				return
			}
		}
		r := memory{Ino: f[0], Size: f[1], Mtime: int64(f[2]), Ctime: int64(f[3])}
		if _, err := io.ReadFull(in, r.Sum[:]); err != nil {
			return
		}
		into[string(name)] = r
	}
}

func writeMemories(out *bytes.Buffer, files map[string]memory) {
	var b []byte
	for name, r := range files {
		b = binary.AppendUvarint(b[:0], uint64(len(name)))
		b = append(b, name...)
		for _, v := range []uint64{r.Ino, r.Size, uint64(r.Mtime), uint64(r.Ctime)} {
			b = binary.AppendUvarint(b, v)
		}
		b = append(b, r.Sum[:]...)
		out.Write(b)
	}
}

func memoryOf(st *unix.Stat_t) memory {
	return memory{Ino: st.Ino, Size: uint64(st.Size), Mtime: unix.TimespecToNsec(st.Mtim), Ctime: unix.TimespecToNsec(st.Ctim)}
}

// find gives a node its digest, if it is known.
func (m *memo) find(n *node) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.now[n.name]
	if !ok {
		r, ok = m.old[n.name]
	}
	want := memoryOf(&n.stat)
	want.Sum = r.Sum
	if !ok || r != want {
		return false
	}
	n.sum = r.Sum
	m.now[n.name] = r
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
	m.now[n.name], m.news = r, true
}

// save writes what is new. Files that this build didn't ask for stay known.
func (m *memo) save() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.news || m.file == "" {
		return
	}
	for name, r := range m.now {
		m.old[name] = r
	}
	var out bytes.Buffer
	out.WriteString(memoMagic)
	writeMemories(&out, m.old)
	// What can't be kept is read again the next time.
	if err := atomicfile.Write(m.file, sealed(&out), 0o600, atomicfile.Volatile); errors.Is(err, unix.ENOSPC) {
		_ = os.Remove(m.file)
	}
}
