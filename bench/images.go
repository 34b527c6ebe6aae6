package main

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"nook/internal/testenv/testimage"
)

// imagesPart times the list of many images.
func imagesPart(s settings, w io.Writer) error {
	// podman takes the square of the count: 500 images are half a minute a round.
	count, podmans := 500, 50
	if s.quick {
		count, podmans = 20, 5
	}
	rounds := max(1, s.rounds/2)
	fmt.Fprintf(w, "## `images` of %d images\n\nThey have a config each and one layer in common; podman has a tenth of them. %d rounds after %d that don't count.\n\n", count, rounds, s.warmup)
	archive, tenth := filepath.Join(s.own(), "images.tar"), filepath.Join(s.own(), "tenth.tar")
	defer os.Remove(archive)
	defer os.Remove(tenth)
	if err := errors.Join(writeImages(archive, count), writeImages(tenth, podmans)); err != nil {
		return err
	}
	nook := nookRoot{s: s, root: filepath.Join(s.own(), "nook-images"), ids: "mapped"}
	podman := newPodman(s)
	podman.root = filepath.Join(s.own(), "podman-images")
	all := race([]contestant{
		lister("nook", nook.command, archive, count), lister("podman", podman.command, tenth, podmans),
	}, s.warmup, rounds)
	endPause()
	table(w, all, "ratio to nook")
	atMost(w, fmt.Sprintf("%d under 50 ms", count), 50, figure{"ms", medianOf(all, "nook")})
	return nil
}

func lister(name string, command func(...string) *exec.Cmd, archive string, count int) contestant {
	return contestant{
		name: name, note: fmt.Sprintf("`%s images` of %d", name, count),
		command: func(int) *exec.Cmd { return command("images") },
		ready: func() error {
			if err := patiently(command("load", "-q", "-i", archive)); err != nil {
				return err
			}
			return listed(command("images", "-q"), count)
		},
	}
}

// writeImages writes a docker archive of many images.
func writeImages(name string, count int) (err error) {
	busybox, err := testimage.Busybox()
	if err != nil {
		return err
	}
	layer, err := busybox.Layers[0].Tar()
	if err != nil {
		return err
	}
	out, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	a := archiveWriter{tar.NewWriter(out)}
	if err := a.put("layer.tar", layer); err != nil {
		return err
	}
	var manifest []any
	for i := range count {
		config, err := json.Marshal(map[string]any{
			"created": testimage.Epoch, "architecture": runtime.GOARCH, "os": "linux",
			"config": testimage.Config{Cmd: []string{"sh"}, Labels: map[string]string{"number": fmt.Sprint(i)}},
			"rootfs": map[string]any{"type": "layers", "diff_ids": []string{testimage.Digest(layer)}},
		})
		if err != nil {
			return err
		}
		if err := a.put(fmt.Sprintf("%d.json", i), config); err != nil {
			return err
		}
		manifest = append(manifest, map[string]any{
			"Config": fmt.Sprintf("%d.json", i), "RepoTags": []string{fmt.Sprintf("localhost/many/image-%d:1", i)}, "Layers": []string{"layer.tar"},
		})
	}
	list, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	return errors.Join(a.put("manifest.json", list), a.tar.Close())
}
