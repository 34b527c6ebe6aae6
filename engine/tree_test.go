package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/images"
	"nook/internal/hint"
)

// stopped is a container that ran a script and ended.
func stopped(t *testing.T, e *Engine, name, script string) {
	t.Helper()
	got, err := run(t, e, RunOptions{Name: name, Command: []string{"sh", "-c", script}})
	if err != nil || got.code != 0 {
		t.Fatalf("%v, %+v", err, got)
	}
}

// tarOf is a stream of files: name, content, more of the header.
func tarOf(t *testing.T, headers ...tar.Header) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		h.Typeflag, h.Mode, h.Size, h.Format = tar.TypeReg, 0o644, int64(len(h.Name)), tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, h.Name); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// first reads the first entry at a path of a container, with its content.
func firstEntry(t *testing.T, e *Engine, name, path string) (*tar.Header, string, PathStat) {
	t.Helper()
	in, st, err := e.CopyFrom(t.Context(), name, path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	r := tar.NewReader(in)
	h, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(r)
	if err == nil {
		_, err = io.Copy(io.Discard, in)
	}
	if err != nil {
		t.Fatal(err)
	}
	return h, string(content), st
}

func TestCopyToAndFrom(t *testing.T) {
	eachMode(t, func(t *testing.T, ids string) {
		e := loaded(t, ids, nil)
		stopped(t, e, "web", "mkdir -p /srv/dir; ln -s /srv/dir /srv/link; echo x >/srv/dir/x")
		if err := e.CopyTo(t.Context(), "web", "/srv/link", tarOf(t, tar.Header{Name: "a/b", Uid: 7, Gid: 8}), CopyToOptions{}); err != nil {
			t.Fatal(err)
		}
		h, content, st := firstEntry(t, e, "web", "/srv/dir/a/b")
		if h.Name != "b" || content != "a/b" || h.Uid != 0 || h.Gid != 0 || st.Name != "b" || st.Size != 3 || !st.Mode.IsRegular() {
			t.Errorf("got %+v, %q, %+v", h, content, st)
		}
		if h, _, st := firstEntry(t, e, "web", "/srv/link"); h.Typeflag != tar.TypeSymlink || st.LinkTarget != "/srv/dir" {
			t.Errorf("a symlink: got %+v, %+v", h, st)
		}
		for path, want := range map[string]string{"/srv/dir": "dir/", "/srv/dir/": "dir/", "/srv/dir/.": "./", "/srv/link/.": "./", "/": "./", "srv/../srv/dir": "dir/"} {
			if h, _, _ := firstEntry(t, e, "web", path); h.Name != want {
				t.Errorf("%s begins with %s, want %s", path, h.Name, want)
			}
		}
		for _, path := range []string{"/nosuch", "/srv/dir/x"} {
			if err := e.CopyTo(t.Context(), "web", path, tarOf(t), CopyToOptions{}); err == nil {
				t.Errorf("copied to %s", path)
			}
		}
		if _, _, err := e.CopyFrom(t.Context(), "web", "/nosuch"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v, want that it isn't there", err)
		}
	})
}

// TestOwnersAndCapabilitiesSurviveACommit: a file capability belongs to the
// root of a user namespace, and is as the image has it in a stream.
func TestOwnersAndCapabilitiesSurviveACommit(t *testing.T) {
	e := loaded(t, "mapped", nil)
	// struct vfs_cap_data (linux/capability.h), version 2, CAP_NET_BIND_SERVICE.
	capable := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	stopped(t, e, "web", "true")
	h := tar.Header{Name: "file", Uid: 7, Gid: 8, PAXRecords: map[string]string{"SCHILY.xattr.security.capability": capable}}
	if err := e.CopyTo(t.Context(), "web", "/", tarOf(t, h), CopyToOptions{Owners: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Commit(t.Context(), "web", CommitOptions{Ref: "kept"}); err != nil {
		t.Fatal(err)
	}
	got, err := run(t, e, RunOptions{Image: "kept", Name: "again", Command: []string{"true"}})
	if err != nil || got.code != 0 {
		t.Fatalf("%v, %+v", err, got)
	}
	for _, name := range []string{"web", "again"} {
		h, _, _ := firstEntry(t, e, name, "/file")
		if h.Uid != 7 || h.Gid != 8 || h.PAXRecords["SCHILY.xattr.security.capability"] != capable {
			t.Errorf("in %s it is %+v", name, h)
		}
	}
	var all bytes.Buffer
	if err := e.Export(t.Context(), "again", &all); err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(&all); ; {
		h, err := r.Next()
		if err != nil {
			t.Fatalf("no file in the export: %v", err)
		}
		if h.Name == "file" {
			if h.Uid != 7 || h.PAXRecords["SCHILY.xattr.security.capability"] != capable {
				t.Errorf("in the export it is %+v", h)
			}
			return
		}
	}
}

func TestDiff(t *testing.T) {
	eachMode(t, func(t *testing.T, ids string) {
		e := loaded(t, ids, nil)
		stopped(t, e, "web", "echo x >/etc/new; rm /etc/group")
		got, err := e.Diff(t.Context(), "web")
		want := []Change{{Kind: 0, Path: "/etc"}, {Kind: 2, Path: "/etc/group"}, {Kind: 1, Path: "/etc/new"}}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
	})
}

func TestCommandsOnAContainerThatIsHeld(t *testing.T) {
	e := loaded(t, "single", nil)
	stopped(t, e, "web", "true")
	ct, err := e.containers.Find("web")
	if err != nil {
		t.Fatal(err)
	}
	lock, err := ct.TryLock()
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.Diff(t.Context(), "web")
	if !errors.Is(err, containers.ErrBusy) || hint.Of(err) == "" {
		t.Errorf("got %v, want that it is busy", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Diff(ctx, "web"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	lock.Release()
	if _, err := e.Diff(t.Context(), "web"); err != nil {
		t.Error(err)
	}
}

// TestProcessOfAnother: a state that is not true any more must not lead to the
// files of the process that has the pid now.
func TestProcessOfAnother(t *testing.T) {
	self, err := containers.Self()
	if err != nil {
		t.Fatal(err)
	}
	gone := self
	gone.StartTime++
	for name, s := range map[string]containers.State{
		"ourselves":         {Pid: os.Getpid(), Monitor: self},
		"nobody":            {Pid: 1 << 30, Monitor: self},
		"a monitor's ghost": {Pid: os.Getpid(), Monitor: gone},
	} {
		if f, err := processRoot(s); !errors.Is(err, errGone) {
			t.Errorf("%s: got %v, %v", name, f, err)
		}
	}
}

// TestCancelledCopyLeavesNoPartOfAFile: the source stops in the middle and the
// context ends.
func TestCancelledCopyLeavesNoPartOfAFile(t *testing.T) {
	e := loaded(t, "single", nil)
	stopped(t, e, "web", "true")
	half := filepath.Join(e.only(t).Path, "upper/tmp/half")
	for name, end := range map[string]bool{"context": true, "source": false} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		broken := errors.New("broken")
		in, out := io.Pipe()
		go func() {
			w := tar.NewWriter(out)
			_ = w.WriteHeader(&tar.Header{Name: "whole", Typeflag: tar.TypeReg, Mode: 0o644})
			_ = w.WriteHeader(&tar.Header{Name: "half", Typeflag: tar.TypeReg, Mode: 0o644, Size: 8 << 20})
			_, _ = w.Write(bytes.Repeat([]byte("x"), 4<<20))
			// Until the stage waits for more of it.
			for st, err := os.Stat(half); err != nil || st.Size() < 4<<20; st, err = os.Stat(half) {
				_ = unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
			}
			if end {
				cancel()
			} else {
				_ = out.CloseWithError(broken)
			}
		}()
		err := e.CopyTo(ctx, "web", "/tmp", in, CopyToOptions{})
		if end && !errors.Is(err, context.Canceled) || !end && !errors.Is(err, broken) {
			t.Errorf("%s: got %v", name, err)
		}
		_ = in.Close()
		if _, _, err := e.CopyFrom(t.Context(), "web", "/tmp/half"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: a part of the file is there: %v", name, err)
		}
	}
}

// TestCopiesLeaveNothingMounted: a stage's mounts end with it, and the
// container starts and is removed as before.
func TestCopiesLeaveNothingMounted(t *testing.T) {
	e := loaded(t, "single", nil)
	stopped(t, e, "web", "true")
	if err := e.CopyTo(t.Context(), "web", "/", tarOf(t, tar.Header{Name: "x"}), CopyToOptions{}); err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), e.root) {
		t.Errorf("left mounted, %v:\n%s", err, mounts)
	}
	ct, err := e.containers.Find("web")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(ct.Path, "work/work/incompat")); err == nil {
		t.Error("the copy's mount was volatile: the next one is refused")
	}
}

func TestCommitOfAnImageThatIsGone(t *testing.T) {
	e := loaded(t, "single", nil)
	stopped(t, e, "web", "true")
	ct, err := e.containers.Find("web")
	if err != nil {
		t.Fatal(err)
	}
	err = ct.Edit(func(cfg *containers.Config) error {
		cfg.ImageID = "sha256:" + strings.Repeat("0", 64)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Commit(t.Context(), "web", CommitOptions{}); !errors.Is(err, images.ErrNotFound) || !strings.Contains(hint.Of(err), "export") {
		t.Errorf("got %v with the hint %q", err, hint.Of(err))
	}
}

func TestInsidePath(t *testing.T) {
	for path, want := range map[string]string{
		"/a/b": "/a/b", "a/b": "/a/b", "a/b/": "/a/b/", "a/b/.": "/a/b/.", "/": "/.", "": "/.", ".": "/.", "./": "/.",
		"../../a": "/a", "/a/../b/": "/b/", "a//b": "/a/b", "/..": "/.",
	} {
		if got := insidePath(path); got != want {
			t.Errorf("%q: got %q, want %q", path, got, want)
		}
	}
}
