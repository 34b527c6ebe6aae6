package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

// tmpfs is a directory of the measuring user's on tmpfs, with what the parts
// about files need: a tar of many files, and a lower layer.
type tmpfs struct {
	s     settings
	dir   string
	count int // files in the tar
}

const (
	manyFiles  = 50_000
	fileSize   = 1 << 10
	filesInDir = 100
	fileRounds = 11 // few: each writes and removes many files
)

func newTmpfs(s settings) (tmpfs, error) {
	m := tmpfs{s: s, count: manyFiles}
	if s.quick {
		m.count = manyFiles / 50
	}
	const shm = "/dev/shm"
	var st unix.Statfs_t
	if err := unix.Statfs(shm, &st); err != nil || st.Type != unix.TMPFS_MAGIC {
		return m, fmt.Errorf("%s is no tmpfs here", shm)
	}
	var err error
	if m.dir, err = os.MkdirTemp(shm, "nook-bench-"); err != nil {
		return m, err
	}
	err = os.Mkdir(m.in("src"), 0o755)
	if err == nil {
		err = m.writeTar()
	}
	if err != nil {
		m.close()
	}
	return m, err
}

func (m tmpfs) close() { _ = testenv.RemoveAll(m.dir) }

func (m tmpfs) in(name string) string { return filepath.Join(m.dir, name) }

func (m tmpfs) nook(ids string) nookRoot {
	return nookRoot{s: m.s, root: m.in("nook-" + ids), ids: ids}
}

func (m tmpfs) rounds() (rounds, warmup int) {
	if m.s.quick {
		return 1, 0
	}
	return fileRounds, 1
}

// writeTar writes src/files.tar.
func (m tmpfs) writeTar() (err error) {
	f, err := os.Create(m.in("src/files.tar"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := tar.NewWriter(f)
	content := []byte(strings.Repeat("a line of some length, as source has\n", fileSize))[:fileSize]
	for i := range m.count {
		dir := fmt.Sprintf("files/%03d/", i/filesInDir)
		if i%filesInDir == 0 {
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: testimage.Epoch}); err != nil {
				return err
			}
		}
		h := tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("%s%05d.txt", dir, i), Mode: 0o644, Size: fileSize, ModTime: testimage.Epoch}
		if err := w.WriteHeader(&h); err != nil {
			return err
		}
		if _, err := w.Write(content); err != nil {
			return err
		}
	}
	return w.Close()
}

// sayTime runs a command and says on standard output how many nanoseconds it
// took: in a container, without the container's start.
func sayTime(argv []string) error {
	if len(argv) == 0 {
		return errors.New("usage: -stage timed COMMAND [ARG...]")
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stderr = os.Stderr
	began := time.Now()
	if err := cmd.Run(); err != nil {
		return err
	}
	fmt.Println(time.Since(began).Nanoseconds())
	return nil
}

// insideClock is the time that the stage timed said.
func insideClock(cmd *exec.Cmd) (time.Duration, error) {
	var said, complaint strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &complaint
	if _, err := clock(cmd); err != nil {
		return 0, fmt.Errorf("%w: %s", err, strings.TrimSpace(complaint.String()))
	}
	n, err := strconv.ParseInt(strings.TrimSpace(said.String()), 10, 64)
	return time.Duration(n), err
}

// filesPart writes many files through what outlives a container.
func filesPart(s settings, w io.Writer) error {
	m, err := newTmpfs(s)
	if err != nil {
		return err
	}
	defer m.close()
	rounds, warmup := m.rounds()
	fmt.Fprintf(w, "## A tar of %d files, into a bind and a volume\n\nOn tmpfs, %d rounds after %d; `busybox tar -xo` of files of 1 KiB, from its start to its end: without a container's.\n\n", m.count, rounds, warmup)
	list := []contestant{m.host()}
	for _, ids := range []string{"mapped", "single"} {
		list = append(list, m.through(ids, "a bind", m.in("bind-"+ids)), m.through(ids, "a volume", "files"))
	}
	all := race(list, warmup, rounds)
	table(w, all, "ratio to the host")
	var figures []figure
	for _, c := range list[1:] {
		figures = append(figures, over(all, c.name, "host", c.name))
	}
	atLeast(w, "at least 0.95 of the host's speed", 0.95, figures...)
	return nil
}

// host writes outside, as root of a user namespace: tar, which sets modes as
// root alone, makes the same calls there.
func (m tmpfs) host() contestant {
	dir := m.in("host")
	return contestant{
		name: "host", note: "the same static busybox; `unshare -Ur`, as tar sets modes for root alone", clock: insideClock,
		ready: func() error { return os.Mkdir(dir, 0o755) },
		command: func(int) *exec.Cmd {
			return exec.Command("unshare", "-Ur", benchIn(m.s.base), "-stage", "timed", filepath.Join(m.s.base, "rootfs/bin/busybox"),
				"tar", "-C", dir, "-xof", m.in("src/files.tar"))
		},
		after: func(int) error { return os.RemoveAll(filepath.Join(dir, "files")) },
	}
}

// untar is a container that writes the files to a directory.
func (m tmpfs) untar(n nookRoot, where string, flags ...string) *exec.Cmd {
	args := append([]string{"run", "--rm", "--network", "none", "-v", filepath.Join(m.s.base, "bin") + ":/bench:ro", "-v", m.in("src") + ":/src:ro"}, flags...)
	return n.command(append(args, "busybox", "/bench/bench", "-stage", "timed", "/bin/busybox", "tar", "-C", where, "-xof", "/src/files.tar")...)
}

// through writes to a bind, whose source is a path, or to a volume.
func (m tmpfs) through(ids, what, source string) contestant {
	n := m.nook(ids)
	return contestant{
		name: what + ", " + ids, clock: insideClock,
		ready: func() error {
			if filepath.IsAbs(source) {
				if err := os.Mkdir(source, 0o755); err != nil {
					return err
				}
			}
			return n.load()
		},
		command: func(int) *exec.Cmd { return m.untar(n, "/data", "-v", source+":/data") },
		after: func(int) error {
			if filepath.IsAbs(source) {
				return os.RemoveAll(filepath.Join(source, "files"))
			}
			return quietly(n.command("volume", "rm", source))
		},
	}
}

// layerPart writes them through the writable layer.
func layerPart(s settings, w io.Writer) error {
	m, err := newTmpfs(s)
	if err != nil {
		return err
	}
	defer m.close()
	rounds, warmup := m.rounds()
	fmt.Fprintf(w, "## A tar of %d files, into the writable layer\n\nAs above. The overlay by hand has nook's options (userxattr, index=off, volatile) and layers on the same tmpfs.\n\n", m.count)
	list := []contestant{m.byHand()}
	for _, ids := range []string{"mapped", "single"} {
		n := m.nook(ids)
		list = append(list, contestant{
			name: "nook, " + ids, clock: insideClock, ready: n.load,
			command: func(int) *exec.Cmd { return m.untar(n, "/") },
		})
	}
	all := race(list, warmup, rounds)
	table(w, all, "ratio to the overlay by hand")
	atLeast(w, "at least 0.9 of the speed of the overlay by hand", 0.9,
		over(all, "mapped", list[0].name, "nook, mapped"), over(all, "single", list[0].name, "nook, single"))
	return nil
}

const byHand = `set -e
cd "$2"
mkdir upper work merged
mount -i -t overlay overlay -o "userxattr,index=off,volatile,lowerdir=$1,upperdir=upper,workdir=work" merged
exec "$3" -stage timed "$4" tar -C merged -xof "$5"`

// byHand is the overlay that anybody can mount in a user namespace of one id.
func (m tmpfs) byHand() contestant {
	at := func(round int) string { return m.in(fmt.Sprintf("overlay-%d", round)) }
	return contestant{
		name: "overlay by hand", note: "`unshare -Urm`, `mount -t overlay`", clock: insideClock,
		ready: func() error {
			return quietly(exec.Command("cp", "-a", filepath.Join(m.s.base, "rootfs"), m.in("lower")))
		},
		command: func(round int) *exec.Cmd {
			_ = os.Mkdir(at(round), 0o755) // or cd tells
			return exec.Command("unshare", "-Urm", "sh", "-c", byHand, "sh", m.in("lower"), at(round),
				benchIn(m.s.base), filepath.Join(m.s.base, "rootfs/bin/busybox"), m.in("src/files.tar"))
		},
		after: func(round int) error { return testenv.RemoveAll(at(round)) },
	}
}

// mountPart tells what a -v adds to a start.
func mountPart(s settings, w io.Writer) error {
	m, err := newTmpfs(s)
	if err != nil {
		return err
	}
	defer m.close()
	fmt.Fprintf(w, "## What a `-v` adds to a start\n\n`busybox true` as above, on tmpfs, with and without `-v` on a path that the image lacks. %d rounds after %d.\n\n", 6*s.rounds, s.warmup)
	for _, ids := range []string{"mapped", "single"} {
		n := m.nook(ids)
		start := func(name string, flags ...string) contestant {
			run := func(int) *exec.Cmd {
				return n.command(append(append([]string{"run", "--rm", "--network", "none"}, flags...), "busybox", "true")...)
			}
			return contestant{name: name, command: run, ready: func() error { return quietly(run(0)) }}
		}
		if err := errors.Join(n.load(), os.Mkdir(m.in("dir-"+ids), 0o755)); err != nil {
			return err
		}
		list := []contestant{
			start("nook, " + ids), start("a bind, "+ids, "-v", m.in("dir-"+ids)+":/data"), start("a volume, "+ids, "-v", "mine:/data"),
		}
		all := race(list, s.warmup, 6*s.rounds)
		table(w, all, "ratio to none")
		var figures []figure
		for _, c := range list[1:] {
			f := over(all, c.name+", ms more", c.name, list[0].name)
			if f.value > 0 {
				f.value = medianOf(all, c.name) - medianOf(all, list[0].name)
			}
			figures = append(figures, f)
		}
		atMost(w, "at most 0.3 ms more", 0.3, figures...)
	}
	return nil
}
