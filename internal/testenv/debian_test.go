package testenv_test

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"testing"

	"nook/internal/testenv"
)

// TestDebianIsReal: what the tests of layers lean on is in it.
func TestDebianIsReal(t *testing.T) {
	testenv.Need(t, "long", testenv.Long)
	testenv.Need(t, "mmdebstrap", testenv.Mmdebstrap)
	testenv.Need(t, "subids", testenv.Subids)
	name, err := testenv.DebianTar()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var setuid, capabilities, owners int
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Mode&0o4000 != 0 {
			setuid++
		}
		if h.PAXRecords["SCHILY.xattr.security.capability"] != "" {
			capabilities++
		}
		if h.Gid != 0 {
			owners++
		}
	}
	if setuid == 0 || capabilities == 0 || owners == 0 {
		t.Errorf("got %d setuid files, %d file capabilities, %d other groups: want some of each", setuid, capabilities, owners)
	}
}
