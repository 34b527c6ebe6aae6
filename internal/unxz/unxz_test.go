package unxz_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/ulikunitz/xz"

	"nook/internal/unxz"
)

// pack is what another's encoder makes, in blocks of that size.
func pack(t testing.TB, data []byte, check byte, block int64) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := xz.WriterConfig{CheckSum: check, BlockSize: block, NoCheckSum: check == xz.None}.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func unpack(packed []byte) ([]byte, error) {
	r, err := unxz.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func sample() []byte {
	random := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	for b.Len() < 300_000 {
		b.WriteString("some words again ")
		b.WriteByte(byte(random.Uint32()))
	}
	for range 100_000 {
		b.WriteByte(byte(random.Uint32()))
	}
	return b.Bytes()
}

func TestReadsWhatOthersWrite(t *testing.T) {
	data := sample()
	for name, packed := range map[string][]byte{
		"crc64":          pack(t, data, xz.CRC64, 0),
		"crc32":          pack(t, data, xz.CRC32, 0),
		"sha256":         pack(t, data, xz.SHA256, 0),
		"none":           pack(t, data, xz.None, 0),
		"many blocks":    pack(t, data, xz.CRC64, 10_001),
		"two streams":    append(pack(t, data[:1000], xz.CRC32, 0), pack(t, data[1000:], xz.CRC64, 0)...),
		"stream padding": append(append(pack(t, data[:10], xz.CRC32, 0), 0, 0, 0, 0, 0, 0, 0, 0), pack(t, data[10:], xz.CRC64, 0)...),
		"padding at end": append(pack(t, data, xz.CRC64, 0), 0, 0, 0, 0),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := unpack(packed)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes of %d, %v", len(got), len(data), err)
			}
		})
	}
	if got, err := unpack(pack(t, nil, xz.CRC64, 0)); err != nil || len(got) > 0 {
		t.Errorf("empty: %q, %v", got, err)
	}
}

func TestDamageIsFound(t *testing.T) {
	packed := pack(t, []byte("a file of a few words"), xz.CRC64, 0)
	for i := range packed {
		if _, err := unpack(packed[:i]); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut off after %d: %v", i, err)
		}
		other := bytes.Clone(packed)
		other[i] ^= 0x10
		if got, err := unpack(other); err == nil {
			t.Errorf("another byte at %d: %q", i, got)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add(pack(f, []byte("text"), xz.CRC64, 0))
	f.Add(append(pack(f, []byte("text"), xz.CRC32, 2), 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, packed []byte) {
		r, err := unxz.NewReader(bytes.NewReader(packed))
		if err == nil {
			_, _ = io.Copy(io.Discard, io.LimitReader(r, 1<<20))
		}
	})
}
