package engine

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"nook/build"
)

// reproducible is a Dockerfile in which everything that nook makes itself has a
// time: directories on the way, heredocs, WORKDIR, what a stage gives to
// another, and a layer of RUN.
const reproducible = `FROM busybox AS made
WORKDIR /src/deep
COPY tree ./tree
RUN cat tree/* >all && mkdir -p /var/x && rm tree/b
FROM busybox
COPY --from=made /src /src
COPY --chown=7:8 --chmod=640 tree/a one.txt /way/down/
COPY <<one /etc/conf/one
text
one
ADD archive.tar /unpacked/
RUN ln -s /src/deep/all /link && echo x >>/etc/conf/one
ENV A=1
CMD ["cat", "/src/deep/all"]
`

// The image is the same to the byte wherever, whenever and by whomever it is
// built: in another data root, with other ids, from a directory of another
// name whose files were made in another order and at another time, by a clock
// that is years away, before the epoch or after it.
func TestBuildIsReproducible(t *testing.T) {
	epoch := time.Unix(1_000_000_000, 0)
	type made struct{ id, manifest, tar string }
	var first made
	for i, tc := range []struct {
		ids   string
		clock time.Time
		files time.Time
		order []string
	}{
		{"mapped", time.Unix(1_700_000_000, 0), time.Unix(1_600_000_000, 0), []string{"tree/a", "tree/b", "tree/c", "one.txt"}},
		{"mapped", time.Unix(2_000_000_000, 7), time.Unix(1_000_000_001, 0), []string{"one.txt", "tree/c", "tree/b", "tree/a"}},
		{"mapped", time.Unix(86_400, 0), time.Unix(1_234_567_890, 5), []string{"tree/b", "one.txt", "tree/a", "tree/c"}},
		{"single", time.Unix(1_900_000_000, 0), time.Unix(1_100_000_000, 0), []string{"tree/c", "tree/a", "one.txt", "tree/b"}},
	} {
		e := loaded(t, tc.ids, nil)
		dir := filepath.Join(t.TempDir(), fmt.Sprintf("context-%d", i))
		write := func(name, text string) {
			file := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(file, tc.files, tc.files); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range tc.order {
			write(name, "this is "+name+"\n")
		}
		archive, err := io.ReadAll(tarOf(t, tar.Header{Name: "x/y", Uid: 3, Gid: 4, ModTime: tc.files}))
		if err != nil {
			t.Fatal(err)
		}
		write("archive.tar", string(archive))
		write("Dockerfile", reproducible)
		if err := os.Chtimes(filepath.Join(dir, "tree"), tc.files, tc.files); err != nil {
			t.Fatal(err)
		}
		change := func(o *build.Options) {
			o.Epoch, o.Now = epoch, func() time.Time { return tc.clock }
			o.Names = nil
		}
		b := mustBuild(t, e, dir, change)
		var files bytes.Buffer
		mustBuild(t, e, dir, change, func(o *build.Options) { o.Outputs = []build.Output{{Type: "tar", W: &files}} })
		got := made{b.Image.ID, b.Image.Manifest.Digest, fmt.Sprintf("%x", sha256.Sum256(files.Bytes()))}
		if i == 0 {
			first = got
		}
		if got != first {
			t.Errorf("build %d, %s at %v:\ngot  %+v\nwant %+v", i, tc.ids, tc.clock, got, first)
		}
		config, err := e.images.Config(b.Image)
		if err != nil {
			t.Fatal(err)
		}
		if config.Created == nil || !config.Created.Equal(epoch) {
			t.Errorf("build %d: created %v, want %v", i, config.Created, epoch)
		}
	}
}

// Without an epoch the clock is what files and history have.
func TestBuildTakesTheClock(t *testing.T) {
	e := loaded(t, "mapped", nil)
	clock := time.Unix(1_500_000_000, 0)
	dir := contextOf(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY <<one /d/one\nx\none\nWORKDIR /w\n"})
	var files bytes.Buffer
	now := func(o *build.Options) { o.Now = func() time.Time { return clock } }
	b := mustBuild(t, e, dir, now)
	mustBuild(t, e, dir, now, func(o *build.Options) { o.Outputs = []build.Output{{Type: "tar", W: &files}} })
	times := tarTimes(t, files.Bytes())
	if len(times) < 3 || slices.ContainsFunc(times, func(at time.Time) bool { return !at.Equal(clock) }) {
		t.Errorf("times %v, want %v", times, clock)
	}
	config, err := e.images.Config(b.Image)
	if err != nil || config.Created == nil || !config.Created.Equal(clock) {
		t.Errorf("created %v (%v), want %v", config.Created, err, clock)
	}
}

// tarTimes are the times of all files in an archive.
func tarTimes(t *testing.T, archive []byte) (all []time.Time) {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, h.ModTime)
	}
}

// A base whose root directory belongs to somebody is the same with all ids, and
// a step on top of it doesn't give it to another.
func TestBuildLeavesTheOwnerOfTheRoot(t *testing.T) {
	var base bytes.Buffer
	w := tar.NewWriter(&base)
	if err := w.WriteHeader(&tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755, Uid: 7, Gid: 8}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	dir := contextOf(t, map[string]string{"Dockerfile": "FROM owned\nWORKDIR /w\nCOPY Dockerfile /d/\n"})
	var first string
	for _, ids := range []string{"mapped", "single"} {
		e := open(t, ids)
		if _, err := e.Import(t.Context(), ImportOptions{Input: bytes.NewReader(base.Bytes()), Ref: "owned"}); err != nil {
			t.Fatal(err)
		}
		b := mustBuild(t, e, dir, func(o *build.Options) { o.Epoch = time.Unix(1, 0) })
		config, err := e.images.Config(b.Image)
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprint(config.RootFS.DiffIDs)
		if first == "" {
			first = got
		}
		if got != first {
			t.Errorf("%s made %s, the first %s", ids, got, first)
		}
	}
}

// A base that has no entries for its directories has the time of their
// unpacking in none of the files that come of it.
func TestFilesOfABaseWithoutDirectoriesAreReproducible(t *testing.T) {
	epoch := time.Unix(1_000_000_000, 0)
	old := time.Unix(900_000_000, 0)
	dir := contextOf(t, map[string]string{"Dockerfile": "FROM bare\n"})
	e := open(t, "single")
	if _, err := e.Import(t.Context(), ImportOptions{Input: tarOf(t, tar.Header{Name: "x", ModTime: old}, tar.Header{Name: "d/e/y", ModTime: old}), Ref: "bare"}); err != nil {
		t.Fatal(err)
	}
	var files bytes.Buffer
	out := t.TempDir()
	mustBuild(t, e, dir, func(o *build.Options) { o.Epoch, o.Outputs = epoch, []build.Output{{Type: "tar", W: &files}} })
	mustBuild(t, e, dir, func(o *build.Options) { o.Epoch, o.Outputs = epoch, []build.Output{{Type: "local", Dir: out}} })
	times := tarTimes(t, files.Bytes())
	if len(times) != 5 || slices.ContainsFunc(times, func(at time.Time) bool { return at.After(epoch) }) {
		t.Errorf("times %v, none may be after %v", times, epoch)
	}
	for _, name := range []string{"d", "d/e"} {
		if info, err := os.Stat(filepath.Join(out, name)); err != nil || !info.ModTime().Equal(epoch) {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}
