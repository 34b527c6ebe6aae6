package images

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/gzip"

	"nook/images/layers"
)

// zeros is a tar stream of one file of so many zeros.
type zeros struct{ left int64 }

func (z *zeros) Read(b []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(b)), z.left)
	clear(b[:n])
	z.left -= n
	return int(n), nil
}

// What nook packs is no bomb to nook, at any point of it.
func TestWhatIsPackedIsNoBomb(t *testing.T) {
	const size = 5 << 28
	path := filepath.Join(t.TempDir(), "blob")
	s := &Store{}
	p, err := s.PackFile(path, &zeros{size})
	if err != nil {
		t.Fatal(err)
	}
	if p.Blob.Size > size/packRatio*5/4 {
		t.Errorf("%d bytes packed to %d", int64(size), p.Blob.Size)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum := sha256.New()
	plain, _, err := layers.Decompress(f)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if n, err := io.Copy(sum, plain); n != size || err != nil {
		t.Errorf("got %d bytes, %v", n, err)
	}
	if got := fmt.Sprintf("sha256:%x", sum.Sum(nil)); got != p.DiffID {
		t.Errorf("got %s, want %s", got, p.DiffID)
	}
}

func TestPackerGivesTheSameBytes(t *testing.T) {
	noise := make([]byte, 3<<20)
	source := rand.NewChaCha8([32]byte{1})
	_, _ = source.Read(noise)
	data := bytes.Join([][]byte{make([]byte, 5<<20), noise, make([]byte, 120<<20), noise[:1000]}, nil)
	pack := func(begin int64, chunk int) []byte {
		var out bytes.Buffer
		p, err := newPacker(&out, begin)
		if err != nil {
			t.Fatal(err)
		}
		for rest := data; len(rest) > 0; rest = rest[min(chunk, len(rest)):] {
			if n, err := p.Write(rest[:min(chunk, len(rest))]); err != nil || n != min(chunk, len(rest)) {
				t.Fatal(n, err)
			}
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	whole := pack(2<<20, len(data))
	for _, chunk := range []int{32 << 10, 1000003} {
		if !bytes.Equal(pack(2<<20, chunk), whole) {
			t.Errorf("in parts of %d bytes it is packed another way", chunk)
		}
	}
	z, err := gzip.NewReader(bytes.NewReader(whole))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, data) {
		t.Errorf("got %d bytes of %d, %v", len(got), len(data), err)
	}
	// What ends before is packed as it always was.
	var plain bytes.Buffer
	w, _ := gzip.NewWriterLevel(&plain, packLevel)
	_, _ = w.Write(data)
	_ = w.Close()
	if !bytes.Equal(pack(packFrom, 32<<10), plain.Bytes()) {
		t.Error("a layer below the limit is packed another way")
	}
}
