package layers

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// What a container sees of a stack of layers, through overlayfs and through
// Flatten, which must agree.
func TestMergedViewShows(t *testing.T) {
	inStage(t)
	base := []*tar.Header{
		dirEntry("./", 0o755), dirEntry("tmp", 0o1777), dirEntry("etc", 0o750), fileEntry("etc/passwd"), fileEntry("etc/group"),
		dirEntry("usr", 0o755), dirEntry("usr/lib", 0o711), fileEntry("usr/lib/libc"), symlinkEntry("lib", "usr/lib"),
	}
	baseLines := []string{
		`tmp/ 1777`, `etc/ 0750`, `etc/passwd 0644 "etc/passwd"`, `etc/group 0644 "etc/group"`,
		`usr/ 0755`, `usr/lib/ 0711`, `usr/lib/libc 0644 "usr/lib/libc"`, `lib -> usr/lib`,
	}
	// with gives the base's lines without those of the names, and more.
	with := func(without []string, more ...string) []string {
		lines := slices.DeleteFunc(slices.Clone(baseLines), func(line string) bool {
			return slices.ContainsFunc(without, func(w string) bool { return line == w })
		})
		return append(lines, more...)
	}
	for _, tc := range []struct {
		name   string
		layers [][]*tar.Header
		want   []string
	}{
		{"implied parents have the attributes of those below",
			[][]*tar.Header{base, {fileEntry("tmp/x"), fileEntry("usr/lib/deep/new/y")}},
			with(nil, `tmp/x 0644 "tmp/x"`, `usr/lib/deep/ 0755`, `usr/lib/deep/new/ 0755`, `usr/lib/deep/new/y 0644 "usr/lib/deep/new/y"`)},
		{"implied parents of a layer in between",
			[][]*tar.Header{base, {fileEntry("tmp/x")}, {fileEntry("tmp/y")}},
			with(nil, `tmp/x 0644 "tmp/x"`, `tmp/y 0644 "tmp/y"`)},
		{"implied parents of a whiteout", [][]*tar.Header{base, {fileEntry("etc/.wh.group")}},
			with([]string{`etc/group 0644 "etc/group"`})},
		{"implied parents of an opaque marker keep the directory's attributes", [][]*tar.Header{base, {fileEntry("etc/.wh..wh..opq")}},
			with([]string{`etc/group 0644 "etc/group"`, `etc/passwd 0644 "etc/passwd"`})},
		{"implied parents of a name that was removed", [][]*tar.Header{base, {fileEntry(".wh.tmp")}, {fileEntry("tmp/x")}},
			with([]string{`tmp/ 1777`}, `tmp/ 0755`, `tmp/x 0644 "tmp/x"`)},
		{"implied parents of a name that the layer itself removes", [][]*tar.Header{base, {fileEntry(".wh.etc"), fileEntry("etc/x")}},
			with(baseLines[1:4], `etc/ 0755`, `etc/x 0644 "etc/x"`)},
		{"implied parents beneath an opaque directory", [][]*tar.Header{
			base, {dirEntry("usr", 0o700), fileEntry("usr/.wh..wh..opq"), fileEntry("usr/lib/x")},
		}, with(baseLines[4:7], `usr/ 0700`, `usr/lib/ 0755`, `usr/lib/x 0644 "usr/lib/x"`)},
		{"a file of the directory's name replaces it", [][]*tar.Header{base, {contentEntry("etc", "f")}},
			with(baseLines[1:4], `etc 0644 "f"`)},
		{"a file and then a directory of its name", [][]*tar.Header{base, {fileEntry("etc"), dirEntry("etc", 0o700)}},
			with(baseLines[1:4], `etc/ 0700`)},
		{"a directory replaces a symlink", [][]*tar.Header{base, {dirEntry("lib", 0o755), fileEntry("lib/x")}},
			with(baseLines[7:], `lib/ 0755`, `lib/x 0644 "lib/x"`)},
		{"an implied parent follows a symlink below", [][]*tar.Header{base, {fileEntry("lib/x"), fileEntry("lib/.wh.libc"), fileEntry("lib/m/y")}},
			with(baseLines[6:7], `usr/lib/x 0644 "lib/x"`, `usr/lib/m/ 0755`, `usr/lib/m/y 0644 "lib/m/y"`)},
		{"an implied parent merges where the symlink leads", [][]*tar.Header{base, {
			dirEntry("usr", 0o755), dirEntry("usr/lib", 0o700), dirEntry("usr/lib/d", 0o700), fileEntry("usr/lib/d/1"), fileEntry("lib/d/2"), contentEntry("lib/libc", "new"),
		}}, with(baseLines[5:7], `usr/lib/ 0700`, `usr/lib/d/ 0700`, `usr/lib/d/1 0644 "usr/lib/d/1"`, `usr/lib/d/2 0644 "lib/d/2"`, `usr/lib/libc 0644 "new"`)},
		{"an implied parent follows a dangling symlink", [][]*tar.Header{{symlinkEntry("s", "/run/s")}, {fileEntry("s/x")}},
			[]string{`s -> /run/s`, `run/ 0755`, `run/s/ 0755`, `run/s/x 0644 "s/x"`}},
		{"an implied parent follows symlinks to symlinks", [][]*tar.Header{
			{dirEntry("c", 0o700), symlinkEntry("b", "c")}, {symlinkEntry("a", "b")}, {fileEntry("a/x")},
		}, []string{`a -> b`, `b -> c`, `c/ 0700`, `c/x 0644 "a/x"`}},
		{"an implied parent hides a symlink to a file", [][]*tar.Header{{fileEntry("f"), symlinkEntry("s", "f")}, {fileEntry("s/x")}},
			[]string{`f 0644 "f"`, `s/ 0755`, `s/x 0644 "s/x"`}},
		{"an implied parent hides a circle of symlinks", [][]*tar.Header{{symlinkEntry("a", "b"), symlinkEntry("b", "a")}, {fileEntry("a/x")}},
			[]string{`a/ 0755`, `a/x 0644 "a/x"`, `b -> a`}},
		{"an implied parent that symlinks of two layers send in a circle", [][]*tar.Header{
			{dirEntry("b", 0o755), dirEntry("b/z", 0o755), symlinkEntry("a", "b/z"), symlinkEntry("q", "a")},
			{dirEntry("b", 0o755), symlinkEntry("b/z", "/q"), fileEntry("a/f")},
		}, []string{`a/ 0755`, `a/f 0644 "a/f"`, `b/ 0755`, `b/z -> /q`, `q -> a`}},
		{"an implied parent hides a file", [][]*tar.Header{base, {fileEntry("etc/passwd/x")}},
			with(baseLines[2:3], `etc/passwd/ 0755`, `etc/passwd/x 0644 "etc/passwd/x"`)},
		{"a hard link to a file below", [][]*tar.Header{base, {linkEntry("usr/passwd", "etc/passwd"), linkEntry("usr/again", "usr/passwd")}},
			with(nil, `usr/passwd 0644 "etc/passwd"`, `usr/again 0644 "etc/passwd"`)},
		{"a hard link to a symlink below", [][]*tar.Header{base, {linkEntry("lib2", "lib")}}, with(nil, `lib2 -> usr/lib`)},
		{"a hard link through a symlink below", [][]*tar.Header{base, {linkEntry("libc", "lib/libc")}}, with(nil, `libc 0644 "usr/lib/libc"`)},
		{"a hard link that is replaced before it is made", [][]*tar.Header{base, {linkEntry("l", "etc/passwd"), contentEntry("l", "own")}},
			with(nil, `l 0644 "own"`)},
		{"a hard link of a replaced file's name", [][]*tar.Header{base, {contentEntry("l", "own"), linkEntry("l", "etc/passwd")}},
			with(nil, `l 0644 "etc/passwd"`)},
		{"a hard link in a directory that goes", [][]*tar.Header{base, {dirEntry("d", 0o755), linkEntry("d/l", "nowhere"), contentEntry("d", "f")}},
			with(nil, `d 0644 "f"`)},
		{"a hard link in a directory that moves", [][]*tar.Header{base, {linkEntry("lib/l", "etc/passwd")}},
			with(nil, `usr/lib/l 0644 "etc/passwd"`)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dirs, _ := stack(t, Single, tc.layers...)
			flat := t.TempDir()
			if err := Flatten(context.Background(), flat, dirs); err != nil {
				t.Fatalf("flatten: %v", err)
			}
			compareLines(t, show(t, flat), slices.Clone(tc.want))
			compareLines(t, show(t, mountOverlay(t, dirs)), slices.Clone(tc.want))
		})
	}
}

func TestFinishLinksACopyOfTheFileBelow(t *testing.T) {
	inStage(t)
	secret := &tar.Header{Typeflag: tar.TypeReg, Name: "etc/secret", Mode: 0o4711}
	dirs, top := stack(t, Single,
		[]*tar.Header{dirEntry("etc", 0o711), withXattr(ownedBy(secret, 7, 8), "user.note", "kept")},
		[]*tar.Header{dirEntry("d", 0o755), linkEntry("d/l", "etc/secret")})
	a, b := lstat(t, dirs[0]+"/etc/secret"), lstat(t, dirs[0]+"/d/l")
	if a.Ino != b.Ino || b.Mode&0o7777 != 0o4711 || b.Mtim.Sec != when.Unix() {
		t.Errorf("got inodes %d and %d, mode %o, time %d; want one file with 4711 and %d", a.Ino, b.Ino, b.Mode, b.Mtim.Sec, when.Unix())
	}
	if got := getXattr(dirs[0]+"/d/l", "user.note"); got != "kept" {
		t.Errorf("got xattr %q", got)
	}
	if st := lstat(t, dirs[0]+"/etc"); st.Mode&0o7777 != 0o711 {
		t.Errorf("the copy's directory has mode %o, want 711", st.Mode&0o7777)
	}
	owners, err := ReadOwners(dirs[0])
	want := []Owner{{Path: "d/l", UID: 7, GID: 8}, {Path: "etc/secret", UID: 7, GID: 8}}
	if err != nil || !slices.Equal(owners, want) {
		t.Errorf("got owners %+v, %v; want %+v", owners, err, want)
	}
	if top.root != nil {
		t.Errorf("got root attributes %+v from nowhere", top.root)
	}
}

func TestFinishInheritsOwnersTimesAndXattrs(t *testing.T) {
	if !inMapped(t) {
		return
	}
	home := withXattr(ownedBy(dirEntry("home", 0o2750), 1000, 100), "user.note", "home")
	dirs, _ := stack(t, Mapped, []*tar.Header{home}, []*tar.Header{fileEntry("home/x")}, []*tar.Header{fileEntry("home/y")})
	for _, dir := range dirs {
		st := lstat(t, dir+"/home")
		got := fmt.Sprintf("%d:%d %o %d.%d %s", st.Uid, st.Gid, st.Mode&0o7777, st.Mtim.Sec, st.Mtim.Nsec, getXattr(dir+"/home", "user.note"))
		if want := fmt.Sprintf("1000:100 2750 %d.%d home", when.Unix(), when.Nanosecond()); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestFinishWritesDownInheritedOwnersInSingleMode(t *testing.T) {
	inStage(t)
	dirs, _ := stack(t, Single, []*tar.Header{ownedBy(dirEntry("home", 0o750), 1000, 100)}, []*tar.Header{fileEntry("home/x")})
	got, err := ReadOwners(dirs[0])
	if want := []Owner{{Path: "home", UID: 1000, GID: 100}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

func TestPendingIsOnlyWhatNeedsALayerBelow(t *testing.T) {
	inStage(t)
	for _, tc := range []struct {
		name    string
		entries []*tar.Header
		want    bool
	}{
		{"a whole tree", []*tar.Header{dirEntry("d", 0o755), fileEntry("d/f"), linkEntry("d/g", "d/f")}, false},
		{"an implied parent", []*tar.Header{fileEntry("d/f")}, true},
		{"an implied parent whose entry comes later", []*tar.Header{fileEntry("d/f"), dirEntry("d", 0o755)}, false},
		{"an implied parent that is replaced", []*tar.Header{fileEntry("d/f"), fileEntry("d")}, false},
		{"a hard link below", []*tar.Header{linkEntry("l", "f")}, true},
		{"a hard link below that is replaced", []*tar.Header{linkEntry("l", "f"), fileEntry("l")}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l, err := Extract(context.Background(), bytes.NewReader(layerOf(t, tc.entries...)), t.TempDir(), Single)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if got := l.Pending(); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestFlattenKeepsWhatFilesAre(t *testing.T) {
	inStage(t)
	hole := make([]byte, 2<<20)
	copy(hole[1<<20:], "middle")
	dirs, _ := stack(t, Single, []*tar.Header{
		withXattr(dirEntry("./", 0o711), "user.note", "root"), dirEntry("d", 0o2750), withXattr(fileEntry("d/f"), "user.note", "f"),
		linkEntry("h", "d/f"), contentEntry("holes", string(hole)), {Typeflag: tar.TypeFifo, Name: "p", Mode: 0o604}, symlinkEntry("s", "d"),
	}, []*tar.Header{dirEntry("d", 0o700), fileEntry("d/g")})
	flat := t.TempDir()
	if err := Flatten(context.Background(), flat, dirs); err != nil {
		t.Fatal(err)
	}
	if a, b := lstat(t, flat+"/d/f"), lstat(t, flat+"/h"); a.Ino != b.Ino || a.Nlink != 2 {
		t.Errorf("hard links became inodes %d and %d with %d links", a.Ino, b.Ino, a.Nlink)
	}
	if got := getXattr(flat+"/d/f", "user.note"); got != "f" {
		t.Errorf("got xattr %q", got)
	}
	if st := lstat(t, flat+"/holes"); st.Size != int64(len(hole)) || st.Blocks*512 > 64<<10 {
		t.Errorf("got %d bytes on %d of disk, want %d with holes", st.Size, st.Blocks*512, len(hole))
	}
	for _, name := range []string{"d", "d/f", "s", "p"} {
		if st := lstat(t, filepath.Join(flat, name)); st.Mtim.Sec != when.Unix() || st.Mtim.Nsec != int64(when.Nanosecond()) {
			t.Errorf("%s: got time %d.%d", name, st.Mtim.Sec, st.Mtim.Nsec)
		}
	}
	if st := lstat(t, flat+"/d"); st.Mode&0o7777 != 0o700 {
		t.Errorf("d: got mode %o, want the upper layer's 700", st.Mode&0o7777)
	}
}

func TestFlattenSaysWhereTheDiskIsFull(t *testing.T) {
	inStage(t)
	dirs, _ := stack(t, Single, []*tar.Header{contentEntry("big", string(bytes.Repeat([]byte("x"), 1<<20)))})
	err := Flatten(context.Background(), smallTmpfs(t), dirs)
	wantError(t, err, "big", unix.ENOSPC.Error())
}

// TestLateLinkAmongManyDirectories: a hard link is made when its own directory
// is the one whose descriptor goes next, and that of its target was closed.
func TestLateLinkAmongManyDirectories(t *testing.T) {
	inStage(t)
	many := func(kind string, n int) (list []*tar.Header) {
		for i := range n {
			list = append(list, fileEntry(fmt.Sprintf("%s%d/file", kind, i)))
		}
		return list
	}
	entries := append([]*tar.Header{linkEntry("d/link", "x/target")}, many("a", maxOpen)...)
	entries = append(entries, fileEntry("x/target"), fileEntry("d/more"))
	entries = append(entries, many("b", maxOpen-1)...)
	dirs, _ := stack(t, Single, entries)
	one, other := lstat(t, filepath.Join(dirs[0], "d/link")), lstat(t, filepath.Join(dirs[0], "x/target"))
	if one.Ino != other.Ino {
		t.Errorf("d/link is inode %d and x/target is %d", one.Ino, other.Ino)
	}
}
