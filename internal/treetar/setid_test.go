package treetar

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestSetIDBitsNeedPrivileges: a container's file must not become a program of
// its reader's with his rights for everybody.
func TestSetIDBitsNeedPrivileges(t *testing.T) {
	for want, privileges := range map[fs.FileMode]bool{0: false, fs.ModeSetuid: true} {
		from, to := made(t, "echo x >x; chmod 4755 x"), t.TempDir()
		if _, err := Extract(t.Context(), bytes.NewReader(stream(t, from, ".")), open(t, to, 0), Options{Privileges: privileges}); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(filepath.Join(to, "x")); err != nil || info.Mode()&fs.ModeSetuid != want {
			t.Errorf("privileges %v: %v, %v", privileges, info.Mode(), err)
		}
	}
}

// TestSetIDBitsNeedTheirOwner: with the caller's ids in place of ids that don't
// exist here, they would be rights that nobody gave.
func TestSetIDBitsNeedTheirOwner(t *testing.T) {
	const setIDs = fs.ModeSetuid | fs.ModeSetgid
	ours := Owned{uint32(os.Getuid()), uint32(os.Getgid())}
	for name, tc := range map[string]struct {
		owner     Owned
		file, dir fs.FileMode
	}{
		"ours":      {ours, setIDs, fs.ModeSetgid},
		"another's": {Owned{ours.UID + 1, ours.GID + 1}, 0, fs.ModeSetgid},
	} {
		from, to := made(t, "echo x >x; chmod 6755 x; mkdir d; chmod 2755 d"), t.TempDir()
		var notes []string
		o := Options{
			Privileges: true, Note: func(text string) { notes = append(notes, text) },
			Owner: func(Owned) Owned { return tc.owner },
		}
		if _, err := Extract(t.Context(), bytes.NewReader(stream(t, from, ".")), open(t, to, 0), o); err != nil {
			t.Fatal(err)
		}
		for file, want := range map[string]fs.FileMode{"x": tc.file, "d": tc.dir} {
			if info, err := os.Stat(filepath.Join(to, file)); err != nil || info.Mode()&setIDs != want {
				t.Errorf("%s, %s: %v, %v; want %v", name, file, info.Mode(), err, want)
			}
		}
		if told := len(notes) > 0; told == (tc.owner == ours) {
			t.Errorf("%s: notes %q", name, notes)
		}
	}
}
