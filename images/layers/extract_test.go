package layers

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestExtractWrites(t *testing.T) {
	inStage(t)
	for _, tc := range []struct {
		name    string
		entries []*tar.Header
		want    []string
	}{
		{"files, directories and links", []*tar.Header{
			dirEntry("./", 0o755), dirEntry("./d/", 0o750), fileEntry("./d/f"), linkEntry("./d/h", "./d/f"),
			symlinkEntry("./s", "d/f"), symlinkEntry("./a", "/etc/passwd"),
			{Typeflag: tar.TypeFifo, Name: "p", Mode: 0o622},
		}, []string{`d/ 0750`, `d/f 0644 "./d/f"`, `d/h 0644 "./d/f"`, `s -> d/f`, `a -> /etc/passwd`, `p fifo 0622`}},
		{"set-id and sticky bits", []*tar.Header{
			dirEntry("tmp", 0o1777), dirEntry("local", 0o2775), fileEntry("local/f"), dirEntry("local/d", 0o755),
			{Typeflag: tar.TypeReg, Name: "su", Mode: 0o4755}, {Typeflag: tar.TypeReg, Name: "wall", Mode: 0o2755},
		}, []string{`tmp/ 1777`, `local/ 2775`, `local/f 0644 "local/f"`, `local/d/ 0755`, `su 4755 ""`, `wall 2755 ""`}},
		{"a directory that nobody may enter is filled first", []*tar.Header{
			dirEntry("d", 0), fileEntry("d/f"),
		}, []string{`d/ 0000`, `d/f 0644 "d/f"`}},
		{"a leading slash and dots are dropped", []*tar.Header{
			dirEntry("/a", 0o755), fileEntry("//a/./b"), fileEntry("a/x/../c"), linkEntry("/a/l", "/a/c"),
		}, []string{`a/ 0755`, `a/b 0644 "//a/./b"`, `a/c 0644 "a/x/../c"`, `a/l 0644 "a/x/../c"`}},
		{"a whiteout is a 0:0 device", []*tar.Header{
			dirEntry("d", 0o755), fileEntry("d/.wh.gone"),
		}, []string{`d/ 0755`, `d/gone device 0`}},
		{"an opaque marker after its siblings", []*tar.Header{
			dirEntry("d", 0o755), fileEntry("d/f"), fileEntry("d/.wh..wh..opq"),
		}, []string{`d/ 0755 opaque`, `d/f 0644 "d/f"`}},
		{"a whiteout before an entry of its name makes a directory opaque", []*tar.Header{
			fileEntry(".wh.d"), dirEntry("d", 0o755), fileEntry(".wh.f"), fileEntry("f"),
		}, []string{`d/ 0755 opaque`, `f 0644 "f"`}},
		{"a whiteout after an entry of its name makes a directory opaque", []*tar.Header{
			dirEntry("d", 0o755), fileEntry("d/x"), fileEntry(".wh.d"), fileEntry("f"), fileEntry(".wh.f"),
		}, []string{`d/ 0755 opaque`, `d/x 0644 "d/x"`, `f 0644 "f"`}},
		{"a whiteout before a path through its name", []*tar.Header{
			fileEntry(".wh.d"), fileEntry("d/x"),
		}, []string{`d/ 0755 opaque`, `d/x 0644 "d/x"`}},
		{"no whiteouts where nothing below shows", []*tar.Header{
			dirEntry("d", 0o755), fileEntry("d/.wh..wh..opq"), fileEntry("d/.wh.x"), dirEntry("d/e", 0o755), fileEntry("d/e/.wh.y"),
		}, []string{`d/ 0755 opaque`, `d/e/ 0755`}},
		{"aufs' own files are ignored", []*tar.Header{
			fileEntry(".wh..wh.aufs"), dirEntry(".wh..wh.plnk", 0o700), fileEntry(".wh..wh.plnk/1.2"), fileEntry("f"),
		}, []string{`f 0644 "f"`}},
		{"the last entry of a name counts", []*tar.Header{
			contentEntry("f", "old"), contentEntry("f", "new"),
			dirEntry("d2f", 0o755), fileEntry("d2f/x"), contentEntry("d2f", "f"),
			contentEntry("f2l", "x"), symlinkEntry("f2l", "f"),
			symlinkEntry("l2d", "f"), dirEntry("l2d", 0o755), fileEntry("l2d/y"),
			dirEntry("d2d", 0o755), fileEntry("d2d/z"), dirEntry("d2d", 0o700),
		}, []string{
			`f 0644 "new"`, `d2f 0644 "f"`, `f2l -> f`, `l2d/ 0755 opaque`, `l2d/y 0644 "l2d/y"`,
			`d2d/ 0700`, `d2d/z 0644 "d2d/z"`,
		}},
		{"a file of several names is replaced under one", []*tar.Header{
			contentEntry("a", "one"), linkEntry("b", "a"), contentEntry("b", "two"),
		}, []string{`a 0644 "one"`, `b 0644 "two"`}},
		{"a path through a symlink of the layer", []*tar.Header{
			dirEntry("usr", 0o755), dirEntry("usr/lib", 0o755), symlinkEntry("lib", "usr/lib"), fileEntry("lib/x"),
			symlinkEntry("abs", "/usr/lib"), fileEntry("abs/y"), symlinkEntry("up", "../../../usr"), fileEntry("up/z"),
		}, []string{
			`usr/ 0755`, `usr/lib/ 0755`, `lib -> usr/lib`, `usr/lib/x 0644 "lib/x"`, `abs -> /usr/lib`,
			`usr/lib/y 0644 "abs/y"`, `up -> ../../../usr`, `usr/z 0644 "up/z"`,
		}},
		{"a path through a replaced symlink", []*tar.Header{
			symlinkEntry("s", "a"), fileEntry("s/1"), symlinkEntry("s", "b"), fileEntry("s/2"),
		}, []string{`a/ 0755`, `a/1 0644 "s/1"`, `b/ 0755`, `b/2 0644 "s/2"`, `s -> b`}},
		{"a hard link to a symlink", []*tar.Header{
			symlinkEntry("s", "d"), linkEntry("h", "s"), fileEntry("h/x"),
		}, []string{`s -> d`, `h -> d`, `d/ 0755`, `d/x 0644 "h/x"`}},
		{"a hard link whose target comes later", []*tar.Header{
			linkEntry("h", "f"), contentEntry("f", "x"),
		}, []string{`h 0644 "x"`, `f 0644 "x"`}},
		{"a hard link to itself", []*tar.Header{fileEntry("f"), linkEntry("f", "f")}, []string{`f 0644 "f"`}},
		{"device nodes are left out", []*tar.Header{
			dirEntry("dev", 0o755), deviceEntry("dev/null", 1, 3), deviceEntry("dev/forged", 0, 0),
			fileEntry(".wh.keep"), deviceEntry("keep", 1, 3),
		}, []string{`dev/ 0755`, `keep device 0`}},
		{"a deep path is made", []*tar.Header{fileEntry(strings.Repeat("d/", 200) + "f")},
			append(deepDirs(200), strings.Repeat("d/", 200)+`f 0644 "`+strings.Repeat("d/", 200)+`f"`)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dirs, _ := stack(t, Single, tc.entries)
			compareLines(t, show(t, dirs[0]), tc.want)
		})
	}
}

func deepDirs(n int) (lines []string) {
	for i := 1; i <= n; i++ {
		lines = append(lines, strings.TrimSuffix(strings.Repeat("d/", i), "/")+"/ 0755")
	}
	return lines
}

func TestExtractKeepsHardLinksAsOneFile(t *testing.T) {
	inStage(t)
	dirs, _ := stack(t, Single, []*tar.Header{fileEntry("a"), linkEntry("b", "a"), dirEntry("d", 0o755), linkEntry("d/c", "b")})
	a, c := lstat(t, dirs[0]+"/a"), lstat(t, dirs[0]+"/d/c")
	if a.Ino != c.Ino || a.Nlink != 3 {
		t.Errorf("got inodes %d and %d with %d links, want one with 3", a.Ino, c.Ino, a.Nlink)
	}
}

func TestExtractSetsTimes(t *testing.T) {
	inStage(t)
	entries := []*tar.Header{dirEntry("d", 0o755), fileEntry("d/f"), symlinkEntry("d/s", "f"), {Typeflag: tar.TypeFifo, Name: "d/p"}}
	for i, h := range entries {
		h.ModTime = when.Add(time.Duration(i) * time.Second)
	}
	before := fileEntry("before")
	before.ModTime = time.Unix(-1000, 5)
	dirs, _ := stack(t, Single, append(entries, before))
	for i, name := range []string{"d", "d/f", "d/s", "d/p"} {
		st := lstat(t, filepath.Join(dirs[0], name))
		if want := when.Unix() + int64(i); st.Mtim.Sec != want || st.Mtim.Nsec != 123_456_789 {
			t.Errorf("%s: got mtime %d.%09d, want %d.123456789", name, st.Mtim.Sec, st.Mtim.Nsec, want)
		}
	}
	if st := lstat(t, dirs[0]+"/before"); st.Mtim.Sec != -1000 || st.Mtim.Nsec != 5 {
		t.Errorf("before 1970: got %d.%09d, want -1000.000000005", st.Mtim.Sec, st.Mtim.Nsec)
	}
}

func TestExtractSetsXattrs(t *testing.T) {
	inStage(t)
	// cap_net_raw=ep, as setcap(8) writes it: VFS_CAP_REVISION_2.
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	dirs, top := stack(t, Single, []*tar.Header{
		withXattr(fileEntry("ping"), "security.capability", capability),
		withXattr(withXattr(fileEntry("f"), "user.note", "zero \x00 inside"), "user.overlay.opaque", "y"),
		withXattr(dirEntry("d", 0o500), "user.note", "dir"),
		withXattr(dirEntry("forged", 0o755), "user.overlay.opaque", "y"),
		withXattr(fileEntry("forged/whiteout"), "user.overlay.whiteout", "y"),
		withXattr(dirEntry("redirected", 0o755), "trusted.overlay.redirect", "/etc"),
		withXattr(symlinkEntry("s", "f"), "user.note", "none"),
	})
	for _, tc := range []struct{ name, xattr, want string }{
		{"ping", "security.capability", capability},
		{"f", "user.note", "zero \x00 inside"},
		{"f", "user.overlay.opaque", ""},
		{"d", "user.note", "dir"},
		{"forged", "user.overlay.opaque", ""},
		{"forged/whiteout", "user.overlay.whiteout", ""},
	} {
		if got := getXattr(filepath.Join(dirs[0], tc.name), tc.xattr); got != tc.want {
			t.Errorf("%s of %s: got %q, want %q", tc.xattr, tc.name, got, tc.want)
		}
	}
	notes := strings.Join(top.notes.list(), "\n")
	for _, want := range []string{"f: the attribute user.overlay.opaque", "forged: ", "redirected: the attribute trusted.overlay", "s: the attribute user.note"} {
		if !strings.Contains(notes, want) {
			t.Errorf("no note %q in:\n%s", want, notes)
		}
	}
}

func TestExtractReadsLongNames(t *testing.T) {
	inStage(t)
	long := strings.Repeat("n", 250)
	deep := strings.Repeat("directory/", 30) + long
	for _, format := range []tar.Format{tar.FormatPAX, tar.FormatGNU} {
		t.Run(format.String(), func(t *testing.T) {
			var out bytes.Buffer
			w := tar.NewWriter(&out)
			for _, h := range []*tar.Header{
				{Typeflag: tar.TypeReg, Name: deep, Format: format},
				{Typeflag: tar.TypeLink, Name: "hard", Linkname: deep, Format: format},
				{Typeflag: tar.TypeSymlink, Name: "soft", Linkname: deep, Format: format},
			} {
				if err := w.WriteHeader(h); err != nil {
					t.Fatal(err)
				}
			}
			_ = w.Close()
			dir := t.TempDir()
			l, err := Extract(context.Background(), &out, dir, Single)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if st := lstat(t, filepath.Join(dir, deep)); st.Nlink != 2 {
				t.Errorf("got %d links, want 2", st.Nlink)
			}
			if target, _ := os.Readlink(dir + "/soft"); target != deep {
				t.Errorf("got symlink to %q", target)
			}
		})
	}
}

func TestExtractLeavesHolesForZeros(t *testing.T) {
	inStage(t)
	content := strings.Repeat("\x00", 1<<20) + "middle" + strings.Repeat("\x00", 1<<20)
	begin := "begin" + strings.Repeat("\x00", 600<<10) + "end"
	dirs, _ := stack(t, Single, []*tar.Header{contentEntry("holes", content), contentEntry("begin", begin), contentEntry("zero", "\x00\x00")})
	for name, want := range map[string]string{"holes": content, "begin": begin, "zero": "\x00\x00"} {
		got, err := os.ReadFile(filepath.Join(dirs[0], name))
		if err != nil || string(got) != want {
			t.Errorf("%s: got %d bytes, %v; want the %d written", name, len(got), err, len(want))
		}
		if st := lstat(t, filepath.Join(dirs[0], name)); st.Blocks*512 > 64<<10 {
			t.Errorf("%s: takes %d bytes of disk, want holes", name, st.Blocks*512)
		}
	}
}

func TestExtractReadsSparseEntries(t *testing.T) {
	inStage(t)
	// Both formats come from GNU tar; archive/tar can't write them.
	for _, format := range []string{"gnu", "posix"} {
		t.Run(format, func(t *testing.T) {
			dir := t.TempDir()
			f, err := os.Create(dir + "/sparse")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt([]byte("data"), 3<<20); err != nil {
				t.Fatal(err)
			}
			if err := f.Truncate(5 << 20); err != nil {
				t.Fatal(err)
			}
			_ = f.Close()
			stream := runProgram(t, "tar", "--format="+format, "-S", "-C", dir, "-c", "sparse")
			if len(stream) > 100<<10 {
				t.Fatalf("the test's archive has %d bytes, so it isn't sparse", len(stream))
			}
			out := t.TempDir()
			l, err := Extract(context.Background(), bytes.NewReader(stream), out, Single)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			want, _ := os.ReadFile(dir + "/sparse")
			got, err := os.ReadFile(out + "/sparse")
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %d bytes, %v; want the %d written", len(got), err, len(want))
			}
			if st := lstat(t, out+"/sparse"); st.Blocks*512 > 64<<10 {
				t.Errorf("takes %d bytes of disk, want holes", st.Blocks*512)
			}
		})
	}
}

func TestExtractWritesDownOwnersInSingleMode(t *testing.T) {
	inStage(t)
	dirs, _ := stack(t, Single, []*tar.Header{
		ownedBy(dirEntry("./", 0o755), 5, 6),
		ownedBy(dirEntry("d", 0o755), 1, 2), ownedBy(fileEntry("d/f"), 0, 42), linkEntry("hard", "d/f"),
		ownedBy(symlinkEntry("s", "x"), 7, 0), fileEntry("root"),
		ownedBy(fileEntry("replaced"), 9, 9), fileEntry("replaced"),
		ownedBy(dirEntry("dropped", 0o755), 9, 9), ownedBy(fileEntry("dropped/x"), 9, 9), fileEntry("dropped"),
		ownedBy(deviceEntry("tty", 5, 0), 0, 5),
	})
	got, err := ReadOwners(dirs[0])
	if err != nil {
		t.Fatal(err)
	}
	want := []Owner{
		{Path: ".", UID: 5, GID: 6}, {Path: "d", UID: 1, GID: 2}, {Path: "d/f", GID: 42}, {Path: "hard", GID: 42},
		{Path: "s", UID: 7}, {Path: "tty", GID: 5, Device: "c", Mode: 0o666, Major: 5},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestExtractTellsTheRootsAttributes(t *testing.T) {
	inStage(t)
	_, with := stack(t, Single, []*tar.Header{ownedBy(dirEntry("./", 0o700), 3, 4)})
	if with.root == nil || with.root.mode != 0o700 || with.root.uid != 3 {
		t.Errorf("got %+v, want 0700 and 3:4", with.root)
	}
	if _, without := stack(t, Single, []*tar.Header{fileEntry("f")}); without.root != nil {
		t.Errorf("got %+v, want none", without.root)
	}
}

func TestExtractOwnersInMappedMode(t *testing.T) {
	if !inMapped(t) {
		return
	}
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	dirs, _ := stack(t, Mapped, []*tar.Header{
		ownedBy(dirEntry("local", 0o2775), 0, 50), fileEntry("local/f"), dirEntry("local/d", 0o755),
		ownedBy(dirEntry("home", 0o700), 1000, 1000), ownedBy(symlinkEntry("s", "x"), 1, 2),
		ownedBy(&tar.Header{Typeflag: tar.TypeReg, Name: "su", Mode: 0o4755}, 8, 0),
		ownedBy(&tar.Header{Typeflag: tar.TypeFifo, Name: "p", Mode: 0o666}, 3, 4),
	})
	for name, want := range map[string]string{
		"local": "0:50 2775", "local/f": "0:0 644", "local/d": "0:0 755", "home": "1000:1000 700",
		"s": "1:2 777", "su": "8:0 4755", "p": "3:4 666",
	} {
		st := lstat(t, filepath.Join(dirs[0], name))
		if got := fmt.Sprintf("%d:%d %o", st.Uid, st.Gid, st.Mode&0o7777); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	if owners, err := ReadOwners(dirs[0]); err != nil || owners != nil {
		t.Errorf("got owners %v, %v; want none", owners, err)
	}
}
