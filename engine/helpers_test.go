package engine

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

// TestMain: a container's processes are this test binary, started again.
func TestMain(m *testing.M) {
	if code, handled := Main(os.Args); handled {
		os.Exit(code)
	}
	testenv.RunAsTestUser(m)
}

// open gives an engine with a data root of its own.
func open(t *testing.T, ids string) *Engine {
	t.Helper()
	testenv.Need(t, "userns", testenv.UserNS)
	testenv.Need(t, "overlay", testenv.Overlay)
	if ids == "mapped" {
		testenv.Need(t, "subids", testenv.Subids)
	}
	root, err := os.MkdirTemp("", "n")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := testenv.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	e, err := Open(t.Context(), Options{Root: root, IDs: ids})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// loaded gives an engine with the image busybox, and change's of it.
func loaded(t *testing.T, ids string, change func(*testimage.Image)) *Engine {
	t.Helper()
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	e := open(t, ids)
	img, err := testimage.Busybox()
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&img)
	}
	var archive bytes.Buffer
	if err := img.WriteDocker(&archive); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Load(t.Context(), LoadOptions{Input: &archive}); err != nil {
		t.Fatal(err)
	}
	return e
}

type result struct {
	code     int
	out, err string
}

func run(t *testing.T, e *Engine, o RunOptions) (result, error) {
	t.Helper()
	if o.Image == "" {
		o.Image = "busybox"
	}
	var out, errs bytes.Buffer
	code, err := e.Run(t.Context(), o, Streams{Out: &out, Err: &errs})
	return result{code, out.String(), errs.String()}, err
}

// sh runs a shell script in a container that is removed.
func sh(t *testing.T, e *Engine, script string, change ...func(*RunOptions)) string {
	t.Helper()
	o := RunOptions{Remove: true, Command: []string{"sh", "-c", script}}
	for _, c := range change {
		c(&o)
	}
	got, err := run(t, e, o)
	if err != nil || got.code != 0 {
		t.Fatalf("%s: %v, %+v", script, err, got)
	}
	return strings.TrimSpace(got.out)
}

// nothingLeft tells of records and processes that outlived their run.
func nothingLeft(t *testing.T, e *Engine) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(e.root, "containers"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.Name() == "names" || entry.Name() == ".skeleton" {
			continue
		}
		out, _ := exec.Command("find", filepath.Join(e.root, "containers", entry.Name())).Output()
		t.Errorf("left behind:\n%s", out)
	}
	if names, _ := os.ReadDir(filepath.Join(e.root, "containers", "names")); len(names) > 0 {
		t.Errorf("names left behind: %v", names)
	}
}
