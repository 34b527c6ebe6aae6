package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nook/build"
	"nook/images/layers"
	"nook/internal/testenv"
)

// TestCopyLinksWhatItCopiedBefore: a COPY that is done again takes those files
// from the layer of before that nobody touched, and its layer is to the byte
// what one without an earlier is.
func TestCopyLinksWhatItCopiedBefore(t *testing.T) {
	for _, ids := range []string{"mapped", "single"} {
		t.Run(ids, func(t *testing.T) {
			t.Parallel()
			e := loaded(t, ids, nil)
			dir := contextOf(t, map[string]string{
				"Dockerfile": "FROM busybox\nCOPY --chown=1:1 tree /x/y\n",
				"tree/same":  "same", "tree/d/same": "same too", "tree/content": "old", "tree/mode": "mode", "tree/gone": "gone",
			})
			remembers(t, dir)
			in := func(name string) string { return filepath.Join(dir, "tree", name) }
			untilOld(t, in("same"), in("d/same"), in("content"), in("mode"), in("gone"))
			// The directories above have the time of the build.
			now := time.Now().Truncate(time.Second)
			one := func(o *build.Options) { o.Epoch = now }
			mustBuild(t, e, dir, one)

			// Size and time are as before: only the change time tells.
			info, err := os.Stat(in("content"))
			if err != nil {
				t.Fatal(err)
			}
			for _, err := range []error{
				os.WriteFile(in("content"), []byte("new"), 0o644), os.Chtimes(in("content"), info.ModTime(), info.ModTime()),
				os.Chmod(in("mode"), 0o700), os.Remove(in("gone")), os.WriteFile(in("news"), []byte("news"), 0o644),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			again := mustBuild(t, e, dir, one)
			if got, want := linked(t, e), []string{"d/same", "same"}; !slices.Equal(got, want) {
				t.Errorf("linked are %q, want %q", got, want)
			}
			fresh := loaded(t, ids, nil)
			first := mustBuild(t, fresh, dir, one)
			if got, want := diffIDsOf(t, e, again), diffIDsOf(t, fresh, first); !slices.Equal(got, want) {
				t.Errorf("with links the layers are %q, without %q", got, want)
			}
			nothingLeft(t, e)
		})
	}
}

// TestCopyLinksNoFileOfAnotherSource: of two sources with a file of one name the
// layer of before has the second's. Once that is gone the first's is copied,
// though it is as it was.
func TestCopyLinksNoFileOfAnotherSource(t *testing.T) {
	t.Parallel()
	e := loaded(t, "mapped", nil)
	dir := contextOf(t, map[string]string{
		"Dockerfile": "FROM busybox\nCOPY a b /x/y/\n", "a/f": "of a", "b/f": "of b", "b/g": "",
	})
	in := func(name string) string { return filepath.Join(dir, name) }
	at := time.Now().Add(-time.Hour)
	for _, name := range []string{"a/f", "b/f"} {
		if err := os.Chtimes(in(name), at, at); err != nil {
			t.Fatal(err)
		}
	}
	untilOld(t, in("a/f"), in("b/f"))
	mustBuild(t, e, dir)
	if err := os.Remove(in("b/f")); err != nil {
		t.Fatal(err)
	}
	b := mustBuild(t, e, dir)
	got, err := os.ReadFile(filepath.Join(e.layers.Dir(topOf(t, e, b)), "x/y/f"))
	if err != nil || string(got) != "of a" {
		t.Errorf("the file is %q, %v; want that of a", got, err)
	}
}

// TestHardLinksOfAContext: which names are one file counts, and is what it is in
// the context, whatever was copied before.
func TestHardLinksOfAContext(t *testing.T) {
	t.Parallel()
	e, fresh := loaded(t, "mapped", nil), loaded(t, "mapped", nil)
	dir := contextOf(t, map[string]string{"Dockerfile": "FROM busybox\nCOPY src /x/y\n", "src/d/f": "f", "src/g": "g"})
	in := func(name string) string { return filepath.Join(dir, "src", name) }
	now := time.Now().Truncate(time.Second)
	one := func(o *build.Options) { o.Epoch = now }
	must(t, os.Link(in("d/f"), in("h")))
	untilOld(t, in("d/f"), in("g"))
	mustBuild(t, e, dir, one)
	for what, change := range map[string]func() error{
		"its directory renamed": func() error { return os.Rename(in("d"), in("e")) },
		"another name of it":    func() error { return os.Link(in("g"), in("again")) },
		"a copy of it": func() error {
			return errors.Join(os.Remove(in("h")), os.WriteFile(in("h"), []byte("f"), 0o644))
		},
	} {
		must(t, change())
		got, want := diffIDsOf(t, e, mustBuild(t, e, dir, one)), diffIDsOf(t, fresh, mustBuild(t, fresh, dir, one))
		if !slices.Equal(got, want) {
			t.Errorf("%s: the layers are %q, without an earlier one %q", what, got, want)
		}
		must(t, os.RemoveAll(filepath.Join(fresh.root, "build", "contexts")))
	}
	// As many names, contents and modes, and another file.
	before := mustBuild(t, e, dir, one)
	must(t, os.Remove(in("again")))
	must(t, os.WriteFile(in("again"), []byte("g"), 0o644))
	if after := mustBuild(t, e, dir, one); slices.Equal(diffIDsOf(t, e, before), diffIDsOf(t, e, after)) {
		t.Error("a copy in the place of a link is found in the cache")
	}
}

// TestSecondCopyOfHardLinks: what a layer has of a file with several names is in
// no other layer, which could have some of them only; and bytes are counted once.
func TestSecondCopyOfHardLinks(t *testing.T) {
	t.Parallel()
	e := loaded(t, "mapped", nil)
	dir := contextOf(t, map[string]string{"a": "12345", "c": "678", ".wh.no": "not in a layer"})
	remembers(t, dir)
	in := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.Link(in("a"), in("b")))
	untilOld(t, in("a"), in("c"))
	w, err := e.newWorker(t.Context())
	must(t, err)
	defer w.close()
	w.temp = t.TempDir()
	layer := func(exclude ...string) (string, layers.Meta) {
		sel, err := w.Select(t.Context(), build.Tree{Dir: dir}, build.SelectSpec{Sources: []string{"."}, Exclude: exclude})
		must(t, err)
		state, err := w.Copy(t.Context(), build.State{}, build.CopySpec{From: sel, Dest: "/d/", ToDir: true, Link: true})
		must(t, err)
		meta, err := e.layers.Meta(top(state))
		must(t, err)
		return filepath.Join(e.layers.Dir(top(state)), "d"), meta
	}
	first, whole := layer()
	second, part := layer("b")
	_, again := layer()
	var one, other unix.Stat_t
	must(t, unix.Lstat(filepath.Join(first, "a"), &one))
	must(t, unix.Lstat(filepath.Join(second, "a"), &other))
	if one.Ino == other.Ino {
		t.Error("one of two names is linked from the layer that has both")
	}
	must(t, unix.Lstat(filepath.Join(first, "c"), &one))
	must(t, unix.Lstat(filepath.Join(second, "c"), &other))
	if one.Ino != other.Ino {
		t.Error("a file of one name is not linked")
	}
	if whole.Bytes != 8 || part.Bytes != 8 || again.Bytes != 8 {
		t.Errorf("the layers have %d, %d and %d bytes, want 8", whole.Bytes, part.Bytes, again.Bytes)
	}
}

// TestNoCacheBelievesNoTimes: a file that is written through a mapping again,
// before its page was written back, has the times of before.
func TestNoCacheBelievesNoTimes(t *testing.T) {
	e := loaded(t, "mapped", nil)
	dir := contextOf(t, map[string]string{"f": "first"})
	f, err := os.OpenFile(filepath.Join(dir, "f"), os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	data, err := unix.Mmap(int(f.Fd()), 0, 5, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	defer func() { _ = unix.Munmap(data) }()
	digest := func(noCache bool) string {
		w, err := e.newWorker(t.Context())
		must(t, err)
		defer w.close()
		w.temp, w.again = t.TempDir(), noCache
		sel, err := w.Select(t.Context(), build.Tree{Dir: dir}, build.SelectSpec{Sources: []string{"f"}})
		must(t, err)
		return sel.Digest
	}
	copy(data, "again")
	untilOld(t, f.Name())
	before := digest(false)
	copy(data, "third")
	if digest(true) == before {
		t.Error("the digest is that of the content before")
	}
}

// TestListsOfContextsAreFew: there is room for so many, and the oldest goes.
func TestListsOfContextsAreFew(t *testing.T) {
	t.Parallel()
	e := loaded(t, "mapped", nil)
	w, err := e.newWorker(t.Context())
	must(t, err)
	defer w.close()
	for i := range mostLists + 5 {
		name := filepath.Join(w.dir, "contexts", fmt.Sprintf("%03d", i))
		must(t, os.WriteFile(name, nil, 0o600))
		at := time.Unix(int64(i), 0)
		must(t, os.Chtimes(name, at, at))
	}
	w.forget()
	left, err := os.ReadDir(filepath.Join(w.dir, "contexts"))
	must(t, err)
	if len(left) != mostLists-1 || left[0].Name() != "006" {
		t.Errorf("%d are left, from %s on", len(left), left[0].Name())
	}
}

// topOf is the key of an image's topmost layer.
func topOf(t *testing.T, e *Engine, b built) string {
	t.Helper()
	chain, err := e.layers.Chain(diffIDsOf(t, e, b))
	if err != nil {
		t.Fatal(err)
	}
	return chain.Keys[len(chain.Keys)-1]
}

// remembers skips where nothing of files is remembered.
func remembers(t *testing.T, dir string) {
	t.Helper()
	testenv.Need(t, "contexts on a file system that tells of changes", func() error {
		if fileSystem(dir) == "" {
			return errors.New("it is a tmpfs")
		}
		return nil
	})
}

// TestFileSystemsHaveNames: each mount has one of its own, and none where changes
// aren't told.
func TestFileSystemsHaveNames(t *testing.T) {
	dir := t.TempDir()
	remembers(t, dir)
	if a, b := fileSystem(dir), fileSystem(filepath.Dir(dir)); a != b {
		t.Errorf("one file system is %q and %q", a, b)
	}
	if a, b := fileSystem(dir), fileSystem("/proc"); a == b {
		t.Errorf("two file systems are %q", a)
	}
	if got := fileSystem("/dev/shm"); got != "" {
		var st unix.Statfs_t
		if err := unix.Statfs("/dev/shm", &st); err == nil && st.Type == unix.TMPFS_MAGIC {
			t.Errorf("a tmpfs is %q", got)
		}
	}
}

// untilOld waits until files are older than a tick.
func untilOld(t *testing.T, names ...string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		young := slices.ContainsFunc(names, func(name string) bool {
			var st unix.Stat_t
			if err := unix.Lstat(name, &st); err != nil {
				t.Fatal(err)
			}
			return time.Since(time.Unix(0, unix.TimespecToNsec(st.Ctim))) < tick
		})
		if !young {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("files don't grow older")
		}
	}
}

// linked are the files below /x/y that several of the layers have.
func linked(t *testing.T, e *Engine) []string {
	t.Helper()
	made, err := e.layers.Made()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for key := range made {
		top := filepath.Join(e.layers.Dir(key), "x/y")
		for _, pattern := range []string{"*", "*/*"} {
			names, _ := filepath.Glob(filepath.Join(top, pattern))
			for _, name := range names {
				var st unix.Stat_t
				if err := unix.Lstat(name, &st); err != nil {
					t.Fatal(err)
				}
				if st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink > 1 {
					found[strings.TrimPrefix(name, top+"/")] = true
				}
			}
		}
	}
	var names []string
	for name := range found {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func diffIDsOf(t *testing.T, e *Engine, b built) []string {
	t.Helper()
	config, err := e.images.Config(b.Image)
	if err != nil {
		t.Fatal(err)
	}
	return config.RootFS.DiffIDs
}
