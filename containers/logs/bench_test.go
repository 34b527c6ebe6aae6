package logs

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
)

// chunks are what a monitor reads of a pipe at once.
func chunks() map[string][]byte {
	const size = 64 << 10
	return map[string][]byte{
		"no newline":    bytes.Repeat([]byte("x"), size),
		"lines of 1000": []byte(strings.Repeat(strings.Repeat("x", 999)+"\n", size/1000)),
		"lines of 80":   []byte(strings.Repeat(strings.Repeat("x", 79)+"\n", size/80)),
		"lines of 2":    []byte(strings.Repeat("y\n", size/2)),
	}
}

func BenchmarkWriter(b *testing.B) {
	for name, data := range chunks() {
		b.Run(name, func(b *testing.B) {
			w := NewWriter(b.TempDir(), DefaultLimits())
			defer w.Close()
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if err := w.Write(Stdout, data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkReader(b *testing.B) {
	for name, data := range chunks() {
		for _, times := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s, times %v", name, times), func(b *testing.B) {
				w := NewWriter(b.TempDir(), DefaultLimits())
				const writes = 100
				for range writes {
					if err := w.Write(Stdout, data); err != nil {
						b.Fatal(err)
					}
				}
				if err := w.Close(); err != nil {
					b.Fatal(err)
				}
				var n countWriter
				for b.Loop() {
					r, err := NewReader(w.dir, w.limits, ReadOptions{Tail: -1, Timestamps: times})
					if err != nil {
						b.Fatal(err)
					}
					n = 0
					if err := r.Copy(b.Context(), &n, io.Discard); err != nil {
						b.Fatal(err)
					}
					_ = r.Close()
				}
				b.SetBytes(int64(n))
			})
		}
	}
}

type countWriter int64

func (c *countWriter) Write(p []byte) (int, error) {
	*c += countWriter(len(p))
	return len(p), nil
}
