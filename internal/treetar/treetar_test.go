package treetar

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"nook/internal/safepath"
	"nook/internal/testenv"
)

func TestMain(m *testing.M) { testenv.RunAsTestUser(m) }

// made is a directory that a script filled.
func made(t testing.TB, script string) string {
	t.Helper()
	dir := t.TempDir()
	sh(t, dir, script)
	return dir
}

func sh(t testing.TB, dir, script string) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-ec", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func open(t testing.TB, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flags|unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func stream(t testing.TB, dir, name string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := NewWriter(&out)
	if err := errors.Join(w.Tree(t.Context(), open(t, dir, unix.O_NOFOLLOW), name), w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// describe is a tree, a line an entry.
func describe(t testing.TB, dir string) string {
	t.Helper()
	out, err := exec.Command("/bin/sh", "-c", `cd "$1" && find . -mindepth 1 -printf '%P %y %m %n %s %T@ %l\n' | sort`, "sh", dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

const script = `mkdir -p a/b; echo x >a/b/x; ln a/b/x a/y; ln -s /etc/passwd link; mkfifo -m 640 fifo
echo s >set; chmod 755 set; chmod 500 a/b; touch -d @1.5 a/y; dd if=/dev/zero of=holes bs=1 count=0 seek=1M 2>/dev/null
`

func TestTreeComesOutAsItWentIn(t *testing.T) {
	from, to := made(t, script), t.TempDir()
	t.Cleanup(func() { sh(t, "/", "chmod 700 "+from+"/a/b "+to+"/renamed/a/b") }) // for their removal
	one := stream(t, from, "top")
	if !bytes.Equal(one, stream(t, from, "top")) {
		t.Error("two streams of one tree differ")
	}
	n, err := Extract(t.Context(), bytes.NewReader(one), open(t, to, 0), Options{From: "top", To: "renamed"})
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(2 + 2 + 1<<20); n != want {
		t.Errorf("%d bytes, want %d", n, want)
	}
	got, want := describe(t, filepath.Join(to, "renamed")), describe(t, from)
	if got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(to, "renamed/holes"), &st); err != nil || st.Blocks != 0 {
		t.Errorf("the file with a hole has %d blocks, %v", st.Blocks, err)
	}
}

func TestRename(t *testing.T) {
	for _, tc := range []struct {
		name, from, to, want string
	}{
		{"a/b", "a", "c", "c/b"},
		{"a", "a", "c", "c"},
		{"./a/b", "a", "c", "c/b"},
		{"ab/b", "a", "c", "ab/b"},
		{"./b", ".", "c", "c/b"},
		{"./", ".", "c", "c"},
		{"./", ".", ".", ""},
		{"b/", ".", ".", "b"},
		{"/b/../c", "", "", "c"},
	} {
		e := &extraction{o: Options{From: tc.from, To: tc.to}}
		if got, err := e.rename(tc.name); got != tc.want || err != nil {
			t.Errorf("%+v: got %q, %v", tc, got, err)
		}
	}
	for _, name := range []string{"..", "../x", "a/../../x", "/..", "a\x00"} {
		if got, err := (&extraction{}).rename(name); err == nil {
			t.Errorf("%q becomes %q", name, got)
		}
	}
}

// entries is a stream of headers; regular files have their name as content.
func entries(t testing.TB, list ...tar.Header) io.Reader {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range list {
		if h.Typeflag == 0 {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(h.Name))
		}
		h.Mode = 0o755
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.WriteString(w, h.Name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &out
}

func dir(name string) tar.Header  { return tar.Header{Name: name, Typeflag: tar.TypeDir} }
func file(name string) tar.Header { return tar.Header{Name: name} }
func symlink(name, target string) tar.Header {
	return tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeSymlink}
}
func link(name, target string) tar.Header {
	return tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeLink}
}

// TestExtractStaysInItsDirectory: whatever a stream says, and whatever links
// are there already, nothing is made or changed beside the directory.
func TestExtractStaysInItsDirectory(t *testing.T) {
	for name, tc := range map[string]struct {
		before string // a script in the directory
		list   []tar.Header
		fails  bool
	}{
		"through a symlink of the stream":    {list: []tar.Header{symlink("l", ".."), file("l/x")}, fails: true},
		"through an absolute one":            {list: []tar.Header{symlink("l", "/tmp"), file("l/x")}, fails: true},
		"through a symlink that is there":    {before: "ln -s .. l", list: []tar.Header{file("l/x")}, fails: true},
		"a directory over a symlink":         {before: "ln -s .. l", list: []tar.Header{dir("l"), file("l/x")}, fails: true},
		"a file over a symlink":              {before: "ln -s ../secret l", list: []tar.Header{file("l")}},
		"a symlink, then a file of its name": {list: []tar.Header{symlink("l", "../secret"), file("l")}},
		"dots":                               {list: []tar.Header{file("../x")}, fails: true},
		"a hard link to what is outside":     {list: []tar.Header{link("h", "../secret")}, fails: true},
		"a hard link through a symlink":      {before: "ln -s .. l", list: []tar.Header{link("h", "l/secret"), file("h")}, fails: true},
		"a hard link to a symlink":           {before: "ln -s ../secret l", list: []tar.Header{link("h", "l"), file("h")}},
		"a hard link to a file":              {before: "echo old >f", list: []tar.Header{link("h", "f"), file("h")}},
	} {
		t.Run(name, func(t *testing.T) {
			base := made(t, "mkdir dst; echo secret >secret; chmod 600 secret")
			dst := filepath.Join(base, "dst")
			sh(t, dst, tc.before)
			before := strings.ReplaceAll(describe(t, base), describe(t, dst), "")
			_, err := Extract(t.Context(), entries(t, tc.list...), open(t, dst, 0), Options{Privileges: true})
			if tc.fails != (err != nil) {
				t.Errorf("got %v, want an error: %v", err, tc.fails)
			}
			if text, err := os.ReadFile(filepath.Join(base, "secret")); string(text) != "secret\n" {
				t.Errorf("the file outside holds %q, %v", text, err)
			}
			names, _ := os.ReadDir(base)
			if len(names) != 2 {
				t.Errorf("beside the directory is %v, before was:\n%s", names, before)
			}
			if text, err := os.ReadFile(filepath.Join(dst, "f")); err == nil && string(text) != "old\n" {
				t.Errorf("the other name of a link holds %q", text)
			}
		})
	}
}

func TestExtractReplacesOnlyLikeByLike(t *testing.T) {
	for name, tc := range map[string]struct {
		before string
		list   []tar.Header
		want   error
		then   string // a test of sh
	}{
		"file over file":           {"echo old >x", []tar.Header{file("x")}, nil, `test "$(cat x)" = x`},
		"file over directory":      {"mkdir x", []tar.Header{file("x")}, ErrDirectory, "test -d x"},
		"symlink over directory":   {"mkdir x", []tar.Header{symlink("x", "y")}, ErrDirectory, "test -d x"},
		"directory over file":      {"echo old >x", []tar.Header{dir("x")}, ErrNotDirectory, `test "$(cat x)" = old`},
		"directory over directory": {"mkdir -m 700 x; echo old >x/old", []tar.Header{dir("x"), file("x/new")}, nil, `test "$(stat -c %a x) $(ls x | tr '\n' ' ')" = "700 new old "`},
		"below a file":             {"echo old >x", []tar.Header{file("x/y")}, unix.ENOTDIR, `test "$(cat x)" = old`},
		"without its directory":    {"", []tar.Header{file("a/b/c")}, nil, `test "$(stat -c %a a/b)" = 755`},
	} {
		t.Run(name, func(t *testing.T) {
			dst := made(t, tc.before)
			_, err := Extract(t.Context(), entries(t, tc.list...), open(t, dst, 0), Options{})
			if !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			sh(t, dst, tc.then)
		})
	}
}

func TestExtractFollowsWhatItIsGiven(t *testing.T) {
	dst := made(t, "mkdir -p usr/lib; ln -s usr/lib lib")
	root, err := safepath.OpenRoot(dst)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	o := Options{Follow: func(p string) (*os.File, error) { return root.Open(p, unix.O_PATH|unix.O_DIRECTORY, 0) }}
	if _, err := Extract(t.Context(), entries(t, file("lib/x")), root.File(), o); err != nil {
		t.Fatal(err)
	}
	sh(t, dst, "test -L lib && test -f usr/lib/x")
	// But not a link that the stream brought along, under whatever name.
	for _, list := range [][]tar.Header{
		{symlink("l", "/usr"), file("l/x")}, {symlink("usr/l", ".."), file("usr/l/x")},
		{symlink("lib/l", "/usr"), file("usr/lib/l/x")}, {symlink("l", "/usr"), link("m", "l"), file("m/x")},
	} {
		if _, err := Extract(t.Context(), entries(t, list...), root.File(), o); err == nil {
			t.Errorf("%s was followed", list[0].Name)
		}
	}
}

func TestCutOffStreamLeavesNoPartOfAFile(t *testing.T) {
	from, to := made(t, "echo first >1; dd if=/dev/urandom of=2 bs=1M count=1 2>/dev/null"), t.TempDir()
	whole := stream(t, from, ".")
	_, err := Extract(t.Context(), bytes.NewReader(whole[:len(whole)/2]), open(t, to, 0), Options{})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, want an unexpected end", err)
	}
	sh(t, to, `test "$(ls)" = 1`)
}

func TestCancelledExtractLeavesNoPartOfAFile(t *testing.T) {
	from, to := made(t, "dd if=/dev/urandom of=2 bs=1M count=2 2>/dev/null"), t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	in := &slowly{data: stream(t, from, "."), then: cancel}
	if _, err := Extract(ctx, in, open(t, to, 0), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	sh(t, to, `test -z "$(ls -A)"`)
}

// slowly calls then once half of data was read.
type slowly struct {
	data []byte
	at   int
	then func()
}

func (s *slowly) Read(p []byte) (int, error) {
	if s.at > len(s.data)/2 {
		s.then()
	}
	n := copy(p, s.data[s.at:])
	s.at += n
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// swap exchanges two names without end, until stop is called.
func swap(t *testing.T, a, b string) (stop func()) {
	t.Helper()
	var wait sync.WaitGroup
	done := make(chan struct{})
	wait.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
			}
		}
	})
	return func() { close(done); wait.Wait() }
}

// rounds is how often a race is tried. The exchange above succeeds thousands of
// times meanwhile.
const rounds = 300

// TestSwappedDirectoryIsNeverFollowed copies out of a tree and into it while
// its directories become symlinks to what is outside, and back.
func TestSwappedDirectoryIsNeverFollowed(t *testing.T) {
	base := made(t, `mkdir -p root/d/sub secret/sub; echo fine >root/d/sub/f; echo SECRET >secret/sub/f
		ln -s ../secret root/l; mkdir root/d2; ln -s ../../secret/sub/f root/d2/fl; echo fine >root/d2/f`)
	stop := []func(){
		swap(t, filepath.Join(base, "root/d"), filepath.Join(base, "root/l")),
		swap(t, filepath.Join(base, "root/d2/f"), filepath.Join(base, "root/d2/fl")),
	}
	defer func() {
		for _, s := range stop {
			s()
		}
	}()
	before := describe(t, filepath.Join(base, "secret"))
	root := open(t, filepath.Join(base, "root"), 0)
	in := entries2(t)
	var failed int
	for range rounds {
		var out bytes.Buffer
		w := NewWriter(&out)
		if err := errors.Join(w.Tree(t.Context(), root, "."), w.Close()); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(out.Bytes(), []byte("SECRET")) {
			t.Fatal("a file outside of the tree was read")
		}
		// Refused where it meets the link, and never outside.
		if _, err := Extract(t.Context(), bytes.NewReader(in), root, Options{Privileges: true}); err != nil {
			failed++
		}
	}
	if after := describe(t, filepath.Join(base, "secret")); after != before {
		t.Errorf("outside was changed:\n%s", after)
	}
	if failed == 0 || failed == rounds {
		t.Logf("the link was met %d times of %d", failed, rounds)
	}
}

// TestReplacedFileIsNotRead: what was a file when it was looked at is a symlink
// or a fifo when it is opened.
func TestReplacedFileIsNotRead(t *testing.T) {
	base := made(t, "mkdir d; echo SECRET >secret; ln -s ../secret d/link; mkfifo d/fifo; echo x >d/file; ln -s link d/other")
	d := open(t, filepath.Join(base, "d"), 0)
	for base, wanted := range map[string]string{"link": "file", "fifo": "file", "gone": "file", "file": "other"} {
		var st unix.Stat_t
		if err := unix.Fstatat(int(d.Fd()), wanted, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		err := NewWriter(&out).Leaf(t.Context(), int(d.Fd()), base, "name", &st, Owned{})
		if !errors.Is(err, ErrReplaced) || out.Len() > 0 {
			t.Errorf("%s in the place of %s: got %v and %d bytes", base, wanted, err, out.Len())
		}
	}
}

// entries2 is a stream for the tree of the race.
func entries2(t *testing.T) []byte {
	t.Helper()
	all, err := io.ReadAll(entries(t, file("d/sub/f"), file("d/sub/new"), dir("l"), file("l/sub/f"), file("d2/f"), file("d2/fl")))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestXattrsOfTheFileGoAlong(t *testing.T) {
	from, to := made(t, "echo x >x"), t.TempDir()
	for name, value := range map[string]string{"user.mine": "a\x00b", "user.overlay.opaque": "y"} {
		if err := unix.Setxattr(filepath.Join(from, "x"), name, []byte(value), 0); err != nil {
			testenv.Need(t, "user xattrs", func() error { return err })
		}
	}
	if _, err := Extract(t.Context(), bytes.NewReader(stream(t, from, ".")), open(t, to, 0), Options{}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, err := unix.Getxattr(filepath.Join(to, "x"), "user.mine", buf)
	if err != nil || string(buf[:n]) != "a\x00b" {
		t.Errorf("user.mine is %q, %v", buf[:max(n, 0)], err)
	}
	if _, err := unix.Getxattr(filepath.Join(to, "x"), "user.overlay.opaque", buf); !errors.Is(err, unix.ENODATA) {
		t.Errorf("overlayfs' own attribute came along: %v", err)
	}
}

func TestSocketAndDeviceAreLeftOutWithANote(t *testing.T) {
	dst := t.TempDir()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	from := made(t, "")
	t.Chdir(from)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: "sock"}); err != nil {
		t.Fatal(err)
	}
	var notes []string
	note := func(text string) { notes = append(notes, text) }
	w := NewWriter(io.Discard)
	w.Note = note
	if err := w.Tree(t.Context(), open(t, from, 0), "."); err != nil {
		t.Fatal(err)
	}
	device := tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}
	if _, err := Extract(t.Context(), entries(t, device, file("x")), open(t, dst, 0), Options{Note: note}); err != nil {
		t.Fatal(err)
	}
	want := []string{"socket sock is left out: a tar stream can't hold it", "device node null is left out"}
	if !slices.Equal(notes, want) {
		t.Errorf("got %q, want %q", notes, want)
	}
	sh(t, dst, `test "$(ls)" = x`)
}

// FuzzExtract: no stream gets out of its directory.
func FuzzExtract(f *testing.F) {
	for _, list := range [][]tar.Header{
		{file("a"), dir("b"), file("b/c"), link("d", "a")},
		{symlink("l", ".."), file("l/x")}, {link("h", "../x"), file("../../x")},
	} {
		all, err := io.ReadAll(entries(f, list...))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(all)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			return
		}
		base := t.TempDir()
		dst, secret := filepath.Join(base, "dst"), filepath.Join(base, "secret")
		if err := errors.Join(os.Mkdir(dst, 0o755), os.WriteFile(secret, []byte("secret"), 0o600)); err != nil {
			t.Fatal(err)
		}
		_, _ = Extract(t.Context(), bytes.NewReader(data), open(t, dst, 0), Options{From: "a", To: "b"})
		names, err := os.ReadDir(base)
		if err != nil || len(names) != 2 {
			t.Errorf("beside the directory: %v, %v", names, err)
		}
		if text, err := os.ReadFile(secret); err != nil || string(text) != "secret" {
			t.Errorf("the file beside it holds %q, %v", text, err)
		}
		_ = filepath.WalkDir(dst, func(path string, e os.DirEntry, _ error) error { // for its removal
			if e.IsDir() {
				_ = os.Chmod(path, 0o700)
			}
			return nil
		})
	})
}
