package layers

import (
	"bytes"
	"context"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestUnpackSpeed unpacks the layer in the file NOOK_TEST_LAYER, or one of its
// own, and says how long it took. To compare it with another's, unpack both into directories that
// stay (NOOK_TEST_LAYER_TO names an empty one): ext4 doesn't use an inode again
// for minutes after its file is removed, and whoever comes then pays for the
// search, ten times what the files themselves take.
func TestUnpackSpeed(t *testing.T) {
	inStage(t)
	in := io.Reader(bytes.NewReader(layerOf(t, dirEntry("d", 0o755), fileEntry("d/f"))))
	if blob := os.Getenv("NOOK_TEST_LAYER"); blob != "" {
		f, err := os.Open(blob)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		in = f
	}
	fs := os.Getenv("NOOK_TEST_LAYER_TO")
	if fs == "" {
		fs = t.TempDir()
	}
	begin := time.Now()
	stream, _, err := decompress(in, true)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	l, err := Extract(context.Background(), stream, fs, Single)
	if err != nil {
		t.Fatal(err)
	}
	id := stream.diffID()
	extracted := time.Since(begin)
	if err := l.Finish(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	finished := time.Since(begin)
	f, err := os.Open(fs)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		t.Fatal(err)
	}
	t.Logf("extracted %v, finished %v, on disk %v: %d entries, %d bytes, %s, notes %q", extracted, finished, time.Since(begin), l.entries, l.bytes, id, l.notes.list())
}
