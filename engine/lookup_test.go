package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nook/internal/testenv/testimage"
)

// TestUserIsNeverTheHosts: while pid 1 pivots, ".." of the container's root
// leads to the host's, in which the same path is another file. The lookup runs
// at that time, hence the tries.
func TestUserIsNeverTheHosts(t *testing.T) {
	users, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	hosts, _, _ := strings.Cut(string(users), ":")
	e := loaded(t, "single", func(img *testimage.Image) {
		link := testimage.Symlink("etc/passwd", strings.Repeat("../", 8)+"etc/passwd")
		img.Layers = append(img.Layers, testimage.Layer{Entries: []testimage.Entry{link}})
	})
	for range 20 {
		got, err := run(t, e, RunOptions{Remove: true, User: hosts, Command: []string{"true"}})
		if err == nil {
			t.Fatalf("%s of the host's passwd ran: %+v", hosts, got)
		}
	}
	nothingLeft(t, e)
}

// TestUserIsLookedUpInWhatIsMounted: a passwd file of the user's is the one
// that the container sees.
func TestUserIsLookedUpInWhatIsMounted(t *testing.T) {
	eachMode(t, func(t *testing.T, ids string) {
		e := loaded(t, ids, nil)
		passwd := filepath.Join(e.root, "passwd")
		if err := os.WriteFile(passwd, []byte("bob:x:77:77::/tmp:/bin/sh\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			got := sh(t, e, "id -u; echo $HOME", func(o *RunOptions) {
				o.User, o.Volumes = "bob", []string{passwd + ":/etc/passwd:ro"}
			})
			if got != "77\n/tmp" {
				t.Errorf("got %q, want bob of the mounted file", got)
			}
		}
	})
}
