package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// backward reads a file from its end, a block at a time.
type backward struct {
	file  *os.File
	block []byte
	at    int64 // of the block in the file
}

const blockSize = 64 << 10

// newline finds the last newline before an offset; -1: there is none.
func (b *backward) newline(before int64) (int64, error) {
	for before > 0 {
		if before <= b.at || before > b.at+int64(len(b.block)) {
			start := max(0, before-blockSize)
			if err := b.load(start, int(before-start)); err != nil {
				return 0, err
			}
			// It may have got shorter: half a line was cut off.
			before = min(before, start+int64(len(b.block)))
		}
		if i := bytes.LastIndexByte(b.block[:before-b.at], '\n'); i >= 0 {
			return b.at + int64(i), nil
		}
		before = b.at
	}
	return -1, nil
}

func (b *backward) load(start int64, size int) error {
	if cap(b.block) < size {
		b.block = make([]byte, size, blockSize)
	}
	n, err := b.file.ReadAt(b.block[:size], start)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read log: %w", err)
	}
	b.block, b.at = b.block[:n], start
	return nil
}

// head reads the line that begins at start and ends at the newline end.
func (b *backward) head(start, end int64) (head, error) {
	var line [textAt]byte
	from := line[:min(int64(textAt), end-start)]
	if start >= b.at && start+int64(len(from)) <= b.at+int64(len(b.block)) {
		copy(from, b.block[start-b.at:])
	} else if _, err := b.file.ReadAt(from, start); err != nil {
		return head{}, fmt.Errorf("read log: %w", err)
	}
	h, ok := parseHead(from)
	if !ok {
		return h, broken(b.file.Name(), start)
	}
	return h, nil
}
