package volumes

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"nook/internal/hint"
)

// TestImportTakesNoFilesOfTheHost: what is put in place of the volume's
// directory is a directory of the archive, not what a link in it leads to.
func TestImportTakesNoFilesOfTheHost(t *testing.T) {
	s := newStore(t)
	host := t.TempDir()
	kept := filepath.Join(host, "file")
	if err := os.WriteFile(kept, []byte("the host's"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, top := range map[string]tar.Header{
		"absolute": {Typeflag: tar.TypeSymlink, Name: ".", Linkname: host},
		"slash":    {Typeflag: tar.TypeSymlink, Name: "./", Linkname: host},
		"relative": {Typeflag: tar.TypeSymlink, Name: ".", Linkname: "../_data"},
		"a-file":   {Typeflag: tar.TypeReg, Name: "."},
		"a-fifo":   {Typeflag: tar.TypeFifo, Name: "."},
	} {
		mustCreate(t, s, Volume{Name: name})
		var archive bytes.Buffer
		w := tar.NewWriter(&archive)
		top.Mode = 0o755
		if err := w.WriteHeader(&top); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := s.Import(t.Context(), name, &archive, nil); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := os.Stat(kept); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if empty, err := s.Empty(name); !empty || err != nil || s.Pending(name) {
			t.Errorf("%s: empty %v, %v, pending %v", name, empty, err, s.Pending(name))
		}
	}
	// One that an older nook left so.
	mustCreate(t, s, Volume{Name: "older"})
	if err := os.Mkdir(s.filled("older"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(host, filepath.Join(s.filled("older"), dataName)); err != nil {
		t.Fatal(err)
	}
	if err := s.Finish(t.Context(), "older"); err == nil {
		t.Error("a link is finished")
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
}

// TestLinkInPlaceOfTheFilesIsRefused: a volume's files are not where it leads
// to, neither for who reads them nor for who puts some there.
func TestLinkInPlaceOfTheFilesIsRefused(t *testing.T) {
	s := newStore(t)
	mustCreate(t, s, Volume{Name: "data"})
	host := t.TempDir()
	if err := os.Remove(s.Data("data")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(host, s.Data("data")); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := s.Export(t.Context(), "data", &out, nil); !errors.Is(err, unix.ENOTDIR) || hint.Of(err) == "" || out.Len() > 0 {
		t.Errorf("export: %v, %d bytes", err, out.Len())
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := errors.Join(w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "file", Mode: 0o644}), w.Close()); err != nil {
		t.Fatal(err)
	}
	if err := s.Import(t.Context(), "data", &archive, nil); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("import: %v", err)
	}
	// A fill that was killed before the link was there.
	if err := os.MkdirAll(filepath.Join(s.filled("data"), dataName, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Finish(t.Context(), "data"); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("finish: %v", err)
	}
	if there, err := os.ReadDir(host); err != nil || len(there) > 0 {
		t.Errorf("where it leads to: %v, %v", there, err)
	}
}
