package main

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

// unpackRounds are few: each writes a hundred megabytes.
const unpackRounds = 5

// unpackPart compares nook's way from an archive to a Debian that runs with
// what tar needs for its one layer. nook's two commands are timed apart and
// together: load copies and checks the archive, and whichever of the two
// unpacks does it with digests and ownership.
func unpackPart(s settings, w io.Writer) error {
	rounds := unpackRounds
	if s.quick {
		rounds = 1
	}
	fmt.Fprintf(w, "## From Debian's gzip layer to files on disk\n\n%d rounds after 1. The tar is `tar -xzf` and `sync -f` of the same layer by the same user.\n\n", rounds)
	dir, err := os.MkdirTemp("", "unpack-")
	if err != nil {
		return err
	}
	defer func() { _ = testenv.RemoveAll(dir) }()
	layer, archive, err := debianArchive(dir)
	if err != nil {
		return err
	}
	all := []times{
		{contestant: contestant{name: "tar -xzf && sync -f", note: "owners all the user's, no digest checked; without /dev, whose nodes no user can make"}},
		{contestant: contestant{name: "nook load && nook run debian true", note: "archive read, digests checked, stored, unpacked with all owners, synced, a container run"}},
		{contestant: contestant{name: "of that, nook load"}},
		{contestant: contestant{name: "of that, the first nook run"}},
		{contestant: contestant{name: "a later nook run"}},
	}
	for round := range 1 + rounds {
		out := filepath.Join(dir, "out")
		if err := os.Mkdir(out, 0o755); err != nil {
			return err
		}
		settle(dir)
		tar, err := clock(exec.Command("sh", "-c", `tar -C "$1" --exclude "./dev/*" -xzf "$2" && sync -f "$1"`, "sh", out, layer))
		if err != nil {
			return fmt.Errorf("tar: %w", err)
		}
		root := filepath.Join(dir, "root")
		settle(dir)
		load, err := clock(nookIn(s, root, "load", "-q", "-i", archive))
		if err != nil {
			return fmt.Errorf("nook load: %w", err)
		}
		first, err := clock(nookIn(s, root, "run", "--rm", "--network", "none", "debian", "true"))
		if err != nil {
			return fmt.Errorf("nook run: %w", err)
		}
		later, err := clock(nookIn(s, root, "run", "--rm", "--network", "none", "debian", "true"))
		if err != nil {
			return fmt.Errorf("nook run: %w", err)
		}
		if err := errors.Join(testenv.RemoveAll(out), testenv.RemoveAll(root)); err != nil {
			return err
		}
		if round == 0 {
			continue
		}
		all[0].all = append(all[0].all, tar)
		all[1].all = append(all[1].all, load+first)
		all[2].all = append(all[2].all, load)
		all[3].all = append(all[3].all, first)
		all[4].all = append(all[4].all, later)
	}
	table(w, all, "ratio to tar")
	atMost(w, "not slower than tar and sync, as a ratio to them", 1, over(all, "nook", all[1].name, all[0].name))
	return nil
}

// settle writes out what others have dirtied, so that no sync that is timed pays
// for it.
func settle(dir string) { _ = exec.Command("sync", "-f", dir).Run() }

func nookIn(s settings, root string, args ...string) *exec.Cmd {
	cmd := exec.Command(s.nook, args...)
	cmd.Env = append(os.Environ(), "NOOK_ROOT="+root)
	return cmd
}

// debianArchive makes Debian's root filesystem a gzip layer and an image.
func debianArchive(dir string) (layer, archive string, err error) {
	tar, err := testenv.DebianTar()
	if err != nil {
		return "", "", err
	}
	layer, archive = filepath.Join(dir, "layer.tar.gz"), filepath.Join(dir, "debian.tar")
	raw, err := os.ReadFile(tar)
	if err != nil {
		return "", "", err
	}
	img := testimage.Image{Name: "debian:latest", Layers: []testimage.Layer{{Raw: raw}}, Compression: testimage.Gzip,
		Config: testimage.Config{Cmd: []string{"bash"}, Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}}}
	f, err := os.Create(archive)
	if err != nil {
		return "", "", err
	}
	if err := errors.Join(img.WriteOCI(f), f.Close()); err != nil {
		return "", "", err
	}
	return layer, archive, gzipTo(layer, raw)
}

func gzipTo(name string, data []byte) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	var w io.WriteCloser = gzip.NewWriter(f)
	_, err = w.Write(data)
	return errors.Join(err, w.Close(), f.Close())
}
