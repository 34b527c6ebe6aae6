package treetar

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"nook/internal/testenv/testimage"
)

func TestExtractRefusesEndlessSparseFiles(t *testing.T) {
	for _, tc := range []struct {
		name  string
		sizes []int64
		bomb  bool
	}{
		{"a small one", []int64{1 << 20}, false},
		{"an endless one", []int64{1 << 40}, true},
		{"two that are too long together", []int64{1 << 20, MaxSparse}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var stream []byte
			for i, size := range tc.sizes {
				stream = append(stream, testimage.Hole(string(rune('a'+i)), size)...)
			}
			dir := t.TempDir()
			_, err := Extract(t.Context(), bytes.NewReader(append(stream, make([]byte, 1024)...)), open(t, dir, 0), Options{})
			if errors.Is(err, ErrBomb) != tc.bomb || !tc.bomb && err != nil {
				t.Fatalf("got %v", err)
			}
			var st unix.Stat_t
			if err := unix.Lstat(dir+"/a", &st); !tc.bomb && (err != nil || st.Size != tc.sizes[0] || st.Blocks > 8) {
				t.Errorf("%d bytes in %d blocks, %v", st.Size, st.Blocks, err)
			}
		})
	}
}
