package safepath

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"nook/internal/testenv"
)

// tree is a root with every kind of way out of it. Beside it lies a file that
// must never be reached.
func tree(t *testing.T) string {
	t.Helper()
	base := t.TempDir()
	root := filepath.Join(base, "root")
	for _, dir := range []string{"root/etc", "root/a/b/c", "root/dir"} {
		if err := os.MkdirAll(filepath.Join(base, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string]string{
		"secret": "outside", "root/etc/passwd": "inside", "root/a/file": "a/file", "root/secret": "inside's",
	} {
		if err := os.WriteFile(filepath.Join(base, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"abs": "/etc/passwd", "up": "../../../../../../secret", "a/b/up": "../../../secret", "updir": "..",
		"host": base, "hostfile": filepath.Join(base, "secret"), "chain": "a/link", "a/link": "b/link", "a/b/link": "/updir/../secret",
		"self": "self", "pong": "ping", "ping": "pong", "fd": "/proc/self/fd", "dangling": "dir/new", "dots": "a/b/c/../../file",
		"slash": "etc/", "procroot": "/proc/self/root/etc/passwd",
	} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// cases are what openat2 with RESOLVE_IN_ROOT does, and the walk must do too.
var cases = []struct {
	path  string
	flags int
	want  string // content
	errno error
}{
	{path: "etc/passwd", want: "inside"},
	{path: "/etc/passwd", want: "inside"},
	{path: "//etc/./passwd", want: "inside"},
	{path: "../../../../etc/passwd", want: "inside"},
	{path: "a/../etc/passwd", want: "inside"},
	{path: "abs", want: "inside"},
	{path: "up", want: "inside's"},
	{path: "a/b/up", want: "inside's"},
	{path: "updir/secret", want: "inside's"},
	{path: "updir/../../secret", want: "inside's"},
	{path: "chain", want: "inside's"},
	{path: "dots", want: "a/file"},
	{path: "slash/passwd", want: "inside"},
	{path: "host", errno: unix.ENOENT},
	{path: "host/secret", errno: unix.ENOENT},
	{path: "hostfile", errno: unix.ENOENT},
	{path: "procroot", errno: unix.ENOENT},
	{path: "fd/0", errno: unix.ENOENT},
	{path: "dangling", errno: unix.ENOENT},
	{path: "missing/x", errno: unix.ENOENT},
	{path: "", errno: unix.ENOENT},
	{path: "etc/passwd/x", errno: unix.ENOTDIR},
	{path: "etc/passwd/", errno: unix.ENOTDIR},
	{path: "etc/passwd/..", errno: unix.ENOTDIR},
	{path: "self", errno: unix.ELOOP},
	{path: "ping", errno: unix.ELOOP},
	{path: "ping/x", errno: unix.ELOOP},
	{path: "abs", flags: unix.O_NOFOLLOW, errno: unix.ELOOP},
	{path: "etc/passwd", flags: unix.O_DIRECTORY, errno: unix.ENOTDIR},
	{path: "abs", flags: unix.O_DIRECTORY, errno: unix.ENOTDIR},
	{path: "etc\x00/passwd", errno: unix.EINVAL},
	{path: strings.Repeat("x", 256), errno: unix.ENAMETOOLONG},
}

func checkEscapes(t *testing.T, walk bool) {
	dir := tree(t)
	root, err := openRoot(dir, walk)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, tc := range cases {
		t.Run(tc.path, func(t *testing.T) {
			f, err := root.Open(tc.path, unix.O_RDONLY|tc.flags, 0o777)
			if tc.errno != nil {
				if err == nil {
					_ = f.Close()
				}
				if !errors.Is(err, tc.errno) {
					t.Errorf("got %v, want %v", err, tc.errno)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			got, err := io.ReadAll(f)
			if err != nil || string(got) != tc.want {
				t.Errorf("got %q, %v; want %q", got, err, tc.want)
			}
		})
	}
	t.Run("create", func(t *testing.T) { checkCreate(t, root, dir) })
	t.Run("directories", func(t *testing.T) { checkDirectories(t, root, dir) })
	t.Run("parents", func(t *testing.T) { checkParents(t, root, dir) })
	if got, _ := os.ReadFile(filepath.Join(filepath.Dir(dir), "secret")); string(got) != "outside" {
		t.Errorf("the file outside holds %q", got)
	}
	if entries, _ := os.ReadDir(filepath.Dir(dir)); len(entries) != 2 {
		t.Errorf("something was made outside: %v", entries)
	}
}

func checkCreate(t *testing.T, root *Root, dir string) {
	for _, tc := range []struct {
		path  string
		flags int
		made  string
		errno error
	}{
		{path: "dir/x", made: "dir/x"},
		{path: "../../y", made: "y"},
		{path: "dangling", made: "dir/new"},
		{path: "up", made: "secret"}, // truncated, inside
		{path: "ex", flags: unix.O_EXCL, made: "ex"},
		{path: "abs", flags: unix.O_EXCL, errno: unix.EEXIST},
		{path: "dangling", flags: unix.O_EXCL, errno: unix.EEXIST},
		{path: "host/evil", errno: unix.ENOENT},
		{path: "dir", errno: unix.EISDIR},
		{path: "self", errno: unix.ELOOP},
	} {
		f, err := root.Open(tc.path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|tc.flags, 0o600)
		if err == nil {
			_, err = f.WriteString("made")
			_ = f.Close()
		}
		if !errors.Is(err, tc.errno) {
			t.Errorf("%s: got %v, want %v", tc.path, err, tc.errno)
			continue
		}
		if tc.made == "" {
			continue
		}
		if got, err := os.ReadFile(filepath.Join(dir, tc.made)); string(got) != "made" {
			t.Errorf("%s: %s holds %q, %v", tc.path, tc.made, got, err)
		}
	}
}

func checkDirectories(t *testing.T, root *Root, dir string) {
	for path, want := range map[string]string{
		".": dir, "/": dir, "..": dir, "updir": dir, "updir/..": dir, "a/b/": dir + "/a/b", "slash": dir + "/etc", "slash/": dir + "/etc",
	} {
		for _, flags := range []int{unix.O_PATH, unix.O_RDONLY, unix.O_PATH | unix.O_DIRECTORY} {
			f, err := root.Open(path, flags, 0)
			if err != nil {
				t.Errorf("%s with flags %#x: %v", path, flags, err)
				continue
			}
			if !sameFile(t, f, want) {
				t.Errorf("%s with flags %#x is not %s", path, flags, want)
			}
			_ = f.Close()
		}
	}
	link, err := root.Open("abs", unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	if info, err := link.Stat(); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("O_PATH|O_NOFOLLOW of a symlink: got %v, %v", info, err)
	}
}

func sameFile(t *testing.T, f *os.File, path string) bool {
	t.Helper()
	got, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return os.SameFile(got, want)
}

func checkParents(t *testing.T, root *Root, dir string) {
	for _, tc := range []struct {
		path, dir, base string
		errno           error
	}{
		{path: "etc/passwd", dir: "etc", base: "passwd"},
		{path: "/etc/new", dir: "etc", base: "new"},
		{path: "abs", dir: ".", base: "abs"},
		{path: "updir/up", dir: ".", base: "up"},
		{path: "../../x", dir: ".", base: "x"},
		{path: "a/b/c/", dir: "a/b", base: "c"},
		{path: "a/b/..", dir: "a", base: "."},
		{path: "a/.", dir: "a", base: "."},
		{path: "/", dir: ".", base: "."},
		{path: "", errno: unix.ENOENT},
		{path: "host/x", errno: unix.ENOENT},
		{path: "etc/passwd/x", errno: unix.ENOTDIR},
		{path: "self/x", errno: unix.ELOOP},
	} {
		f, base, err := root.OpenParent(tc.path)
		if !errors.Is(err, tc.errno) {
			t.Errorf("%s: got %v, want %v", tc.path, err, tc.errno)
		}
		if err != nil {
			continue
		}
		if base != tc.base || !sameFile(t, f, filepath.Join(dir, tc.dir)) {
			t.Errorf("%s: got %s in %s, want %s in %s", tc.path, base, f.Name(), tc.base, tc.dir)
		}
		_ = f.Close()
	}
}

func TestOpenStaysInTheRoot(t *testing.T) {
	testenv.Need(t, "openat2", func() error {
		if Openat2Refused() {
			return errors.New("openat2 is refused")
		}
		return nil
	})
	checkEscapes(t, false)
}

func TestWalkingStaysInTheRoot(t *testing.T) { checkEscapes(t, true) }

// TestOpenWithoutOpenat2 runs the same where a seccomp filter refuses the call,
// as that of an outer container may, with both errors that are seen.
func TestOpenWithoutOpenat2(t *testing.T) {
	for _, errno := range []syscall.Errno{unix.EPERM, unix.ENOSYS} {
		t.Run(errno.Error(), func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestHelperRefused$", "-test.v")
			cmd.Env = append(os.Environ(), "NOOK_TEST_REFUSE="+unix.ErrnoName(errno))
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "--- PASS: TestHelperRefused") {
				t.Errorf("%v:\n%s", err, out)
			}
		})
	}
}

func TestHelperRefused(t *testing.T) {
	errno := map[string]syscall.Errno{"EPERM": unix.EPERM, "ENOSYS": unix.ENOSYS}[os.Getenv("NOOK_TEST_REFUSE")]
	if errno == 0 {
		return // only started by the test above
	}
	refuseOpenat2(t, errno)
	if !Openat2Refused() {
		t.Fatal("openat2 still works")
	}
	root, err := OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if !root.walk {
		t.Error("OpenRoot doesn't walk")
	}
	checkEscapes(t, true)
}

// refuseOpenat2 makes the call fail in all threads of this process, for ever.
func refuseOpenat2(t *testing.T, errno syscall.Errno) {
	t.Helper()
	// struct seccomp_data begins with the system call's number.
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_OPENAT2, Jt: 0, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0x00050000 | uint32(errno)}, // SECCOMP_RET_ERRNO
		{Code: unix.BPF_RET | unix.BPF_K, K: 0x7fff0000},                 // SECCOMP_RET_ALLOW
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	const setModeFilter, tsync = 1, 1
	// no_new_privs is this thread's; TSYNC gives it to the others with the filter.
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, setModeFilter, tsync, uintptr(unsafe.Pointer(&prog))); e != 0 {
		t.Fatalf("seccomp: %v", e)
	}
}

func BenchmarkOpen(b *testing.B) {
	for name, walk := range map[string]bool{"openat2": false, "walking": true} {
		b.Run(name, func(b *testing.B) {
			root, err := openRoot("/", walk)
			if err != nil {
				b.Fatal(err)
			}
			defer root.Close()
			for b.Loop() {
				f, err := root.Open("etc/passwd", unix.O_RDONLY, 0)
				if err != nil {
					b.Fatal(err)
				}
				_ = f.Close()
			}
		})
	}
}
