package layers

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

func gzipOf(t testing.TB, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstdOf(t testing.TB, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

// noise is a tar stream that is longer than all buffers together.
func noise(t testing.TB) []byte {
	t.Helper()
	content := make([]byte, (chunks+3)*chunkSize+17)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range content {
		content[i] = byte(r.Uint32()) & 0x0f
	}
	return layerOf(t, contentEntry("noise", string(content)))
}

func TestDecompressUnpacks(t *testing.T) {
	plain := noise(t)
	half := len(plain) / 2
	for _, tc := range []struct {
		name   string
		stream []byte
		want   Compression
	}{
		{"plain", plain, Uncompressed},
		{"gzip", gzipOf(t, plain), Gzip},
		{"gzip of two members", append(gzipOf(t, plain[:half]), gzipOf(t, plain[half:])...), Gzip},
		{"zstd", zstdOf(t, plain), Zstd},
		{"zstd of two frames", append(zstdOf(t, plain[:half]), zstdOf(t, plain[half:])...), Zstd},
		{"zstd after a skippable frame", append([]byte("\x50\x2a\x4d\x18\x03\x00\x00\x00abc"), zstdOf(t, plain)...), Zstd},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, kind, err := decompress(bytes.NewReader(tc.stream), true)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if kind != tc.want {
				t.Errorf("got %q, want %q", kind, tc.want)
			}
			got, err := io.ReadAll(s)
			if err != nil || !bytes.Equal(got, plain) {
				t.Errorf("got %d bytes, %v; want the %d packed", len(got), err, len(plain))
			}
			if got, want := s.diffID(), digestOf(plain); got != want {
				t.Errorf("got digest %s, want %s", got, want)
			}
			if n, err := s.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
				t.Errorf("after the end: got %d, %v", n, err)
			}
		})
	}
}

func TestDecompressRefuses(t *testing.T) {
	plain := noise(t)
	packed, frame := gzipOf(t, plain), zstdOf(t, plain)
	wrongSum := bytes.Clone(packed)
	wrongSum[len(wrongSum)-5] ^= 1
	wrongFrame := bytes.Clone(frame)
	wrongFrame[len(wrongFrame)-1] ^= 1
	for _, tc := range []struct {
		name   string
		stream []byte
		want   []string
	}{
		{"nothing", nil, []string{"is empty"}},
		{"garbage", []byte(strings.Repeat("garbage ", 100)), []string{"neither gzip, zstd nor tar"}},
		{"a short text", []byte("hello"), []string{"neither gzip, zstd nor tar"}},
		{"bzip2", []byte("BZh91AY&SY"), []string{"bzip2"}},
		{"xz", []byte("\xfd7zXZ\x00rest"), []string{"xz"}},
		{"gzip cut off in its header", packed[:5], []string{"gzip stream is cut off"}},
		{"gzip cut off", packed[:len(packed)/2], []string{"gzip stream is cut off"}},
		{"gzip cut off in its checksum", packed[:len(packed)-6], []string{"gzip stream is cut off"}},
		{"gzip with a wrong checksum", wrongSum, []string{"gzip stream is damaged"}},
		{"gzip with garbage behind", append(bytes.Clone(packed), strings.Repeat("x", 100)...), []string{"gzip stream"}},
		{"zstd cut off", frame[:len(frame)/2], []string{"zstd stream is cut off"}},
		{"zstd with a wrong checksum", wrongFrame, []string{"zstd stream is damaged"}},
		{"zstd with a window beyond all bounds", []byte("\x28\xb5\x2f\xfd\x00\xff\x00\x00"), []string{"zstd stream"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, _, err := decompress(bytes.NewReader(tc.stream), true)
			if err == nil {
				defer s.Close()
				_, err = io.ReadAll(s)
			}
			wantError(t, err, append(tc.want, "read the tar stream")...)
		})
	}
}

func TestDecompressPassesErrorsOn(t *testing.T) {
	broken := errors.New("the cable is unplugged")
	packed := gzipOf(t, noise(t))
	s, _, err := Decompress(io.MultiReader(bytes.NewReader(packed[:1000]), &failing{broken}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := io.ReadAll(s); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

func TestDecompressCanBeClosedEarly(t *testing.T) {
	for _, read := range []int{0, 1, chunkSize + 1} {
		t.Run(fmt.Sprint(read), func(t *testing.T) {
			s, _, err := decompress(bytes.NewReader(gzipOf(t, noise(t))), true)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(s, make([]byte, read)); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func FuzzDecompress(f *testing.F) {
	small := layerOf(f, fileEntry("f"))
	f.Add(small)
	f.Add(gzipOf(f, small))
	f.Add(zstdOf(f, small))
	f.Add([]byte("\x50\x2a\x4d\x18\x03\x00\x00\x00abc"))
	f.Add([]byte("BZh91AY&SY"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, kind, err := decompress(bytes.NewReader(data), true)
		if err != nil {
			return
		}
		defer s.Close()
		out, err := io.ReadAll(io.LimitReader(s, 16<<20))
		if err == nil && kind == Uncompressed && !bytes.Equal(out, data) {
			t.Errorf("a plain stream of %d bytes became %d", len(data), len(out))
		}
	})
}
