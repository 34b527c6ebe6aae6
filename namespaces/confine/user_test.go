package confine

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nook/internal/hint"
	"nook/internal/safepath"
)

const (
	passwdText = "root:x:0:0:root:/root:/bin/sh\n" +
		"daemon:x:1:1::/usr/sbin:/bin/false\n" +
		"alice:x:1000:1000:Alice:/home/alice:/bin/sh\n" +
		"homeless:x:1001:1001:::/bin/sh\n" +
		"1234:x:77:78:a number as a name:/n:/bin/sh\n" +
		"bob:x:1002:10::/b:/bin/sh\n" +
		"broken line\n" +
		"nan:x:abc:def:::\n"
	groupText = "root:x:0:\ndaemon:x:1:\nalice:x:1000:\nstaff:x:50:alice,bob\nwheel:x:10:bob,alice\n4321:x:99:\n"
)

func TestLookup(t *testing.T) {
	for _, tc := range []struct {
		spec   string
		uid    uint32
		gid    uint32
		groups []uint32
		home   string
	}{
		{"", 0, 0, []uint32{0}, "/root"},
		{"root", 0, 0, []uint32{0}, "/root"},
		{"0", 0, 0, []uint32{0}, "/root"},
		{"alice", 1000, 1000, []uint32{1000, 50, 10}, "/home/alice"},
		{"1000", 1000, 1000, []uint32{1000, 50, 10}, "/home/alice"},
		{"alice:staff", 1000, 50, []uint32{50}, "/home/alice"}, // docker: a group named leaves out the others
		{"alice:0", 1000, 0, []uint32{0}, "/home/alice"},
		{"1000:50", 1000, 50, []uint32{50}, "/home/alice"},
		{"4242", 4242, 0, []uint32{0}, "/"},
		{"4242:4243", 4242, 4243, []uint32{4243}, "/"},
		{"4242:staff", 4242, 50, []uint32{50}, "/"},
		{"homeless", 1001, 1001, []uint32{1001}, "/"},
		{"bob", 1002, 10, []uint32{10, 50}, "/b"}, // wheel names bob again
		{":staff", 0, 50, []uint32{50}, "/root"},
		{"1234", 1234, 0, []uint32{0}, "/"}, // a number is never a name
		{"0:4321", 0, 4321, []uint32{4321}, "/root"},
	} {
		t.Run(tc.spec, func(t *testing.T) {
			got, err := lookup(tc.spec, strings.NewReader(passwdText), strings.NewReader(groupText))
			if err != nil {
				t.Fatal(err)
			}
			if got.UID != tc.uid || got.GID != tc.gid || got.Home != tc.home || !slices.Equal(got.Groups, tc.groups) {
				t.Errorf("got %+v, want %d:%d %v %s", got, tc.uid, tc.gid, tc.groups, tc.home)
			}
		})
	}
}

func TestLookupRefuses(t *testing.T) {
	for _, spec := range []string{
		"nobody-of-that-name", "alice:nogroup-of-that-name", "-1", "0:-1", "4294967296", "2147483648",
		"alice:staff:more-than-two", "alice ", "0x10", "alice,bob", "..", "\n",
	} {
		t.Run(spec, func(t *testing.T) {
			got, err := lookup(spec, strings.NewReader(passwdText), strings.NewReader(groupText))
			if !errors.Is(err, ErrNoUser) || hint.Of(err) == "" {
				t.Errorf("got %+v, error %v with hint %q; want ErrNoUser with one", got, err, hint.Of(err))
			}
		})
	}
}

func TestLookupWithoutFiles(t *testing.T) {
	for spec, want := range map[string]uint32{"": 0, "0": 0, "1000:1000": 1000, "7": 7} {
		if got, err := lookup(spec, nil, nil); err != nil || got.UID != want || got.Home != "/" {
			t.Errorf("%q: got %+v, %v", spec, got, err)
		}
	}
	if _, err := lookup("alice", nil, nil); !errors.Is(err, ErrNoUser) {
		t.Errorf("a name without passwd: %v, want ErrNoUser", err)
	}
}

// unlessRoot is err for who may not read a file without permissions.
func unlessRoot(err error) error {
	if os.Geteuid() == 0 {
		return nil
	}
	return err
}

// TestLookupUserReadsOnlyInside: what an image has in the place of its passwd
// neither leads to the host's nor holds us.
func TestLookupUserReadsOnlyInside(t *testing.T) {
	const outsider = "outsider:x:666:666::/:/bin/sh\n"
	for name, tc := range map[string]struct {
		prepare func(t *testing.T, etc string)
		want    error // of the lookup of outsider
	}{
		"a file": {func(t *testing.T, etc string) { put(t, etc+"/passwd", outsider) }, nil},
		"a link inside": {func(t *testing.T, etc string) {
			put(t, etc+"/real", outsider)
			symlink(t, "/etc/real", etc+"/passwd")
		}, nil},
		"missing":            {func(*testing.T, string) {}, ErrNoUser},
		"a directory":        {func(t *testing.T, etc string) { check(t, os.Mkdir(etc+"/passwd", 0o755)) }, ErrNoUser},
		"a fifo":             {func(t *testing.T, etc string) { check(t, unix.Mkfifo(etc+"/passwd", 0o644)) }, ErrNoUser},
		"a line without end": {func(t *testing.T, etc string) { put(t, etc+"/passwd", strings.Repeat("x", 100_000)+"\n"+outsider) }, ErrNoUser},
		"a socket": {func(t *testing.T, etc string) {
			l, err := net.Listen("unix", etc+"/passwd")
			check(t, err)
			t.Cleanup(func() { _ = l.Close() })
		}, ErrNoUser},
		"not to be read": {func(t *testing.T, etc string) {
			put(t, etc+"/passwd", outsider)
			check(t, os.Chmod(etc+"/passwd", 0))
		}, unlessRoot(ErrNoUser)},
		"a link without end": {func(t *testing.T, etc string) { symlink(t, strings.Repeat("x", 300), etc+"/passwd") }, ErrNoUser},
		"a link out":         {func(t *testing.T, etc string) { symlink(t, filepath.Dir(filepath.Dir(etc))+"/passwd", etc+"/passwd") }, ErrNoUser},
		"a link up":          {func(t *testing.T, etc string) { symlink(t, "../../passwd", etc+"/passwd") }, ErrNoUser},
		"a loop":             {func(t *testing.T, etc string) { symlink(t, "passwd", etc+"/passwd") }, ErrNoUser},
		"etc is a file":      {func(t *testing.T, etc string) { check(t, os.Remove(etc)); put(t, etc, "x") }, ErrNoUser},
		"etc is missing":     {func(t *testing.T, etc string) { check(t, os.Remove(etc)) }, ErrNoUser},
		"etc leads out":      {func(t *testing.T, etc string) { check(t, os.Remove(etc)); symlink(t, "../..", etc) }, ErrNoUser},
		"through a magic":    {func(t *testing.T, etc string) { symlink(t, "/proc/self/cwd/passwd", etc+"/passwd") }, ErrNoUser},
	} {
		t.Run(name, func(t *testing.T) {
			// The file that a link out of the root would reach.
			top := t.TempDir()
			put(t, top+"/passwd", outsider)
			t.Chdir(top)
			root := filepath.Join(top, "root")
			check(t, os.MkdirAll(root+"/etc", 0o755))
			tc.prepare(t, root+"/etc")
			dir, err := os.Open(root)
			check(t, err)
			defer dir.Close()
			open := func(root *os.File, unsafePath string) (*os.File, error) {
				return safepath.RootAt(root).Open(unsafePath, unix.O_RDONLY|unix.O_NONBLOCK, 0)
			}
			if got, err := LookupUser(dir, "0", open); err != nil || got.UID != 0 {
				t.Errorf("a number: %+v, %v; want it to need no passwd", got, err)
			}
			got, err := LookupUser(dir, "outsider", open)
			if !errors.Is(err, tc.want) || err == nil && got.UID != 666 {
				t.Errorf("got %+v, %v; want %v", got, err, tc.want)
			}
		})
	}
}

func TestLookupUserTellsOtherErrors(t *testing.T) {
	_, err := LookupUser(nil, "0", func(*os.File, string) (*os.File, error) { return nil, unix.EIO })
	if !errors.Is(err, unix.EIO) {
		t.Errorf("got %v, want EIO", err)
	}
}

// TestLookupReadsABoundedPart: an image chose the size of its files.
func TestLookupReadsABoundedPart(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/passwd", strings.Repeat("#\n", longest/2)+"late:x:1:1:::\n")
	f, closeFile, err := openOptional(nil, "passwd", func(*os.File, string) (*os.File, error) { return os.Open(dir + "/passwd") })
	check(t, err)
	defer closeFile()
	if _, err := lookup("late", f, nil); !errors.Is(err, ErrNoUser) {
		t.Errorf("got %v, want that only %d bytes were read", err, longest)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, name, text string) {
	t.Helper()
	check(t, os.WriteFile(name, []byte(text), 0o644))
}

func symlink(t *testing.T, target, name string) {
	t.Helper()
	check(t, os.Symlink(target, name))
}
