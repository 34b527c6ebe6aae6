package layers

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestContentsTellsWhatIsCopied: what a copy would show is in it, and no more.
func TestContentsTellsWhatIsCopied(t *testing.T) {
	later := contentEntry("d/f", "text")
	later.ModTime = time.Unix(2000000000, 0)
	base := []*tar.Header{dirEntry("d", 0o755), contentEntry("d/f", "text")}
	for name, tc := range map[string]struct {
		above []*tar.Header
		same  bool
	}{
		"nothing":       {nil, true},
		"elsewhere":     {[]*tar.Header{fileEntry("e")}, true},
		"written again": {[]*tar.Header{later}, true},
		"content":       {[]*tar.Header{contentEntry("d/f", "next")}, false},
		"owner":         {[]*tar.Header{ownedBy(contentEntry("d/f", "text"), 7, 8)}, false},
		"attribute":     {[]*tar.Header{withXattr(contentEntry("d/f", "text"), "user.a", "b")}, false},
		"one more":      {[]*tar.Header{symlinkEntry("d/g", "f")}, false},
		"removed":       {[]*tar.Header{fileEntry("d/.wh.f")}, false},
		"left out":      {[]*tar.Header{fileEntry("d/skipped")}, true},
		"own directory": {[]*tar.Header{dirEntry("d", 0o700)}, true},
	} {
		t.Run(name, func(t *testing.T) {
			describe := func(layers ...[]*tar.Header) string {
				dirs, _ := stack(t, Single, layers...)
				c, err := OpenContents(dirs, Single)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				var out strings.Builder
				skip := func(name string) bool { return name == "d/skipped" }
				if err := c.Describe(t.Context(), &out, "d", skip); err != nil {
					t.Fatal(err)
				}
				return out.String()
			}
			got, want := describe(base, tc.above), describe(base)
			if (got == want) != tc.same {
				t.Errorf("it says\n%sand without the layer\n%s", got, want)
			}
		})
	}
}

func TestReceiveRefusesAnotherDiffID(t *testing.T) {
	s := NewStore(t.TempDir(), Single)
	blob := layerOf(t, fileEntry("f"))
	for name, tc := range map[string]struct{ id, want string }{
		"its own":    {digestOf(blob), ""},
		"of another": {digestOf([]byte("x")), "the layer's content has the digest " + digestOf(blob)},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "fs"), 0o755); err != nil {
				t.Fatal(err)
			}
			meta, err := s.Receive(t.Context(), bytes.NewReader(blob), tc.id, dir, nil)
			if tc.want != "" {
				wantError(t, err, tc.want)
			} else if err != nil || meta.DiffID != tc.id || meta.Entries != 1 {
				t.Errorf("got %+v, %v", meta, err)
			}
		})
	}
}
