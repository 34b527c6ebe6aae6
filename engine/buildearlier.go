package engine

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"nook/build"
	"nook/internal/atomicfile"
)

// earlier is what is known of the layer that the same COPY, of the same
// context onto the same state, made the last time: the layer's key, and what
// each file was by its inode, size, times and content. The layer has the file
// where the COPY puts it now, so one that is the same is linked and not copied
// (layers.Copying.Earlier). The change time tells of new attributes too.
type earlier struct {
	w     *worker
	file  string
	from  string // the file system
	layer string
	files *memories
}

const earlierMagic = "nook copied 3\n"

// apart tells whether no two of the sources can have files that come to stand in
// one place: then the layer of before could have the other one there.
func apart(c *buildCopy) bool {
	if len(c.Items) == 1 {
		return true
	}
	seen := map[string]bool{}
	for _, item := range c.Items {
		if item.Dir || c.Parents || seen[item.Name] {
			return false
		}
		seen[item.Name] = true
	}
	return true
}

// earlier finds it. What can't be read is none.
func (w *worker) earlier(c *buildCopy, below build.State, epoch build.Epoch) *earlier {
	// No other field of c changes where its files come to stand.
	what, _ := json.Marshal([]any{
		w.e.ids.Mode, c.Dir, below.Layers, c.Items, c.Dest, c.ToDir, c.Chown, c.Chmod, c.Parents, c.Link, c.Time, epochOf(epoch),
	})
	sum := sha256.Sum256(what)
	e := &earlier{w: w, file: filepath.Join(w.dir, "contexts", hex.EncodeToString(sum[:]))}
	e.from = fileSystem(c.Dir)
	data, err := os.ReadFile(e.file)
	if err != nil || w.again || e.from == "" {
		return e
	}
	rest, ok := unsealed(data, earlierMagic+e.from)
	if !ok {
		return e
	}
	layer, rest, ok := bytes.Cut(rest, []byte("\n"))
	if !ok || !w.have(string(layer)) {
		return e
	}
	e.layer = string(layer)
	e.files = readMemories(rest)
	return e
}

// changed gives the layer, "" for none, and the names of what is no regular file
// that is as it was, sorted. One of several names is linked to the others, which
// may be copied.
func (e *earlier) changed(nodes []*node) (layer string, names []string) {
	if e.layer == "" {
		return "", nil
	}
	for _, n := range nodes {
		now := memoryOf(&n.stat)
		now.Sum = n.sum
		if was, ok := e.files.find(n.name); !ok || was != now || !n.is(unix.S_IFREG) || n.group > 0 {
			names = append(names, n.name)
		}
	}
	slices.Sort(names)
	return e.layer, names
}

// remember writes down what a layer was made of, as it was found before began.
// What changed within a tick of that is left out: it may have changed again,
// and its times not show it. So are files that have several names in the layer:
// no other layer is to have one of them without the others.
func (e *earlier) remember(layer string, nodes []*node, began time.Time) {
	if e.from == "" {
		return
	}
	list := make([]namedMemory, 0, len(nodes))
	for _, n := range nodes {
		r := memoryOf(&n.stat)
		if !n.is(unix.S_IFREG) || n.group > 0 || began.Sub(time.Unix(0, r.Ctime)) < tick {
			continue
		}
		r.Sum = n.sum
		list = append(list, namedMemory{n.name, r})
	}
	files := &memories{}
	files.add(list)
	e.w.forget()
	// What isn't known is copied the next time.
	if err := atomicfile.Write(e.file, sealed(files.write([]byte(earlierMagic+e.from+layer+"\n"))), 0o600, atomicfile.Volatile); errors.Is(err, unix.ENOSPC) {
		_ = os.Remove(e.file)
	}
}

// mostLists is how many lists of files are kept: what was written last.
const mostLists = 64

// forget makes room for one more list.
func (w *worker) forget() {
	dir := filepath.Join(w.dir, "contexts")
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) < mostLists {
		return
	}
	written := map[string]time.Time{}
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil {
			written[entry.Name()] = info.ModTime()
		}
	}
	names := slices.SortedFunc(maps.Keys(written), func(a, b string) int { return written[a].Compare(written[b]) })
	for _, name := range names[:max(0, len(names)-mostLists+1)] {
		_ = os.Remove(filepath.Join(dir, name))
	}
}
