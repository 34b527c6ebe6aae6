package layers

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"

	"nook/internal/hint"
	"nook/internal/testenv/testimage"
	"nook/internal/treetar"
)

func TestDecompressRefusesABomb(t *testing.T) {
	const floor = 1 << 20
	text := []byte(strings.Repeat("the quick brown fox jumps over the lazy dog\n", 1000))
	for _, tc := range []struct {
		name   string
		packed []byte
		bomb   bool
	}{
		{"gzip of zeros", gzipOf(t, make([]byte, 8<<20)), true},
		{"zstd of zeros", zstdOf(t, make([]byte, 8<<20)), true},
		{"many members", bytes.Repeat(gzipOf(t, make([]byte, 1<<20)), 9), true},
		{"zeros that end before the limit", gzipOf(t, make([]byte, floor-1)), false},
		{"text", gzipOf(t, bytes.Repeat(text, 10)), false},
		{"zeros among noise", gzipOf(t, append(noise(t), make([]byte, 8<<20)...)), false},
		{"not packed", layerOf(t, contentEntry("zeros", string(make([]byte, 4<<20)))), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, _, err := decompressUpTo(bytes.NewReader(tc.packed), true, &fuse{floor: floor})
			if err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(io.Discard, s)
			if got := errors.Is(err, ErrBomb); got != tc.bomb || !tc.bomb && err != nil {
				t.Errorf("read %d bytes of %d, got %v", n, len(tc.packed), err)
			}
			if tc.bomb && (n > floor+bombRatio*int64(len(tc.packed))+chunkSize || hint.Of(err) == "") {
				t.Errorf("read %d bytes of %d before %v (%s)", n, len(tc.packed), err, hint.Of(err))
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A bomb of any packing that archives have is none as a context or for ADD.
func TestArchivesHaveTheFuseToo(t *testing.T) {
	const floor = 1 << 20
	tarred := append(layerOf(t, contentEntry("a", "x")), make([]byte, 8<<20)...)
	var xzed bytes.Buffer
	w, err := xz.NewWriter(&xzed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(tarred); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	bzipped, err := hex.DecodeString(bzip2OfZeros)
	if err != nil {
		t.Fatal(err)
	}
	for name, packed := range map[string][]byte{
		"gzip": gzipOf(t, tarred), "zstd": zstdOf(t, tarred), "xz": xzed.Bytes(), "bzip2": bzipped,
	} {
		t.Run(name, func(t *testing.T) {
			plain, done, err := unpackedUpTo(bytes.NewReader(packed), floor)
			if err != nil {
				t.Fatal(err)
			}
			defer done()
			n, err := io.Copy(io.Discard, plain)
			if !errors.Is(err, ErrBomb) || n > 2*floor || hint.Of(err) != trustArchive {
				t.Errorf("read %d bytes of %d, got %v (%s)", n, len(packed), err, hint.Of(err))
			}
			ahead, err := openArchiveUpTo(bytes.NewReader(packed), floor)
			if err != nil {
				t.Fatal(err)
			}
			defer ahead.Close()
			if n, err = io.Copy(io.Discard, ahead); !errors.Is(err, ErrBomb) || n > 2*floor || hint.Of(err) != trustArchive {
				t.Errorf("ahead: read %d bytes of %d, got %v (%s)", n, len(packed), err, hint.Of(err))
			}
		})
	}
	plain, done, err := unpackedUpTo(bytes.NewReader(tarred), floor)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	if n, err := io.Copy(io.Discard, plain); n != int64(len(tarred)) || err != nil {
		t.Errorf("not packed: %d bytes, %v", n, err)
	}
}

// bzip2OfZeros is what bzip2 -9 makes of 8 MiB of zeros: no writer is among ours.
const bzip2OfZeros = "425a6839314159265359a23d4b580040404080c00000040008200030cc0529a60100d8808078bb9229c2848511ea5ac0"

// A whole bomb is told with the layer's name, and leaves nothing.
func TestUnpackRefusesABomb(t *testing.T) {
	inStage(t)
	s, dir := newStore(t)
	s.bomb = 1 << 20
	tarred := layerOf(t, contentEntry("zeros", ""))
	tarred = append(tarred, make([]byte, 2<<20)...)
	src := source(zstdOf(t, tarred))
	_, err := s.Unpack(context.Background(), []Source{src}, nil)
	wantError(t, err, "layer 1", ErrBomb.Error())
	if !errors.Is(err, ErrBomb) || hint.Of(err) == "" {
		t.Errorf("got %v (%s)", err, hint.Of(err))
	}
	nothingStaged(t, dir)
	src.Own = true // as one that we packed ourselves
	src.DiffID = fmt.Sprintf("sha256:%x", sha256.Sum256(tarred))
	if _, err := s.Unpack(context.Background(), []Source{src}, nil); err != nil {
		t.Errorf("our own: %v", err)
	}
}

// oldSparse is a header of GNU tar's old format for a sparse file that is all
// hole: its length alone.
func oldSparse(name string, size int64) []byte {
	b := make([]byte, 512)
	copy(b, name)
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	copy(b[124:], "00000000000\x0000000000000\x00")
	b[156] = 'S'
	copy(b[257:], "ustar  \x00")
	b[483] = 0x80 // in base 256
	for i := range 8 {
		b[494-i] = byte(size >> (8 * i))
	}
	sum := 0
	copy(b[148:], "        ")
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

func TestExtractRefusesEndlessSparseFiles(t *testing.T) {
	inStage(t)
	for _, tc := range []struct {
		name  string
		sizes []int64
		bomb  bool
	}{
		{"a small one", []int64{1 << 20}, false},
		{"an endless one", []int64{1 << 62}, true},
		{"two that are too long together", []int64{1 << 10, treetar.MaxSparse}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var stream, pax []byte
			for i, size := range tc.sizes {
				stream = append(stream, oldSparse(string(rune('a'+i)), size)...)
				pax = append(pax, testimage.Hole(string(rune('a'+i)), min(size, 2*treetar.MaxSparse))...)
			}
			stream, pax = append(stream, make([]byte, 1024)...), append(pax, make([]byte, 1024)...)
			if err := addTo(t, bytes.NewReader(pax)); errors.Is(err, ErrBomb) != tc.bomb || !tc.bomb && err != nil {
				t.Errorf("ADD: got %v", err)
			}
			if _, err := Extract(context.Background(), bytes.NewReader(pax), t.TempDir(), Single); errors.Is(err, ErrBomb) != tc.bomb {
				t.Errorf("of the pax format: got %v", err)
			}
			dir := t.TempDir()
			l, err := Extract(context.Background(), bytes.NewReader(stream), dir, Single)
			if errors.Is(err, ErrBomb) != tc.bomb || !tc.bomb && err != nil {
				t.Fatalf("got %v", err)
			}
			if tc.bomb {
				wantError(t, err, "extract "+string(rune('a'+len(tc.sizes)-1)), "sparse files")
				return
			}
			l.Close()
			if st := lstat(t, dir+"/a"); st.Size != tc.sizes[0] || st.Blocks > 8 {
				t.Errorf("a file of %d bytes in %d blocks", st.Size, st.Blocks)
			}
		})
	}
}

// addTo is ADD of an archive to an empty layer.
func addTo(t *testing.T, stream io.Reader) error {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "fs"), 0o755); err != nil {
		t.Fatal(err)
	}
	m, err := Make(dir, nil, Single)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	err = m.Unpack(context.Background(), stream, "to", Look{Mode: 0o755}, nil)
	if err == nil {
		if st := lstat(t, dir+"/fs/to/a"); st.Blocks > 64 {
			t.Errorf("a file of %d bytes in %d blocks", st.Size, st.Blocks)
		}
	}
	return err
}
