package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// transferRounds are few: each writes gigabytes.
const transferRounds = 3

// pullPart times pulls with all unpacking against podman's.
func pullPart(s settings, w io.Writer) error {
	list, err := payloads(s)
	if err != nil {
		return err
	}
	registry, err := openRegistry(s, list)
	if err != nil {
		return err
	}
	defer registry.Stop()
	fmt.Fprintf(w, "## `pull` from a registry on loopback\n\n%s\nThe registry is Debian's docker-registry, filled by skopeo: gzip layers over plain HTTP.\n\n", transferText(s))
	return transfers(s, w, list, func(p payload) []string {
		return []string{"pull", "-q", registry.ref(p)}
	}, func(p payload) []string {
		return []string{"pull", "-q", "--tls-verify=false", registry.ref(p)}
	})
}

// loadPart times the loading of docker archives with all unpacking against
// podman's.
func loadPart(s settings, w io.Writer) error {
	list, err := payloads(s)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "## `load` of a docker archive\n\n%s\nThe archives are as docker save wrote them up to 24: plain layers.\n\n", transferText(s))
	args := func(p payload) []string { return []string{"load", "-q", "-i", p.archive} }
	return transfers(s, w, list, args, args)
}

func transferText(s settings) string {
	return fmt.Sprintf("%d rounds after 1 that doesn't count. Each has a store of its own, new and empty, on the disk; podman's was used by `podman images` before. "+
		"nook's ids are mapped. Both write to the page cache, podman to its overlay; nook writes down what the disk may not have.", transferCount(s))
}

func transferCount(s settings) int {
	if s.quick {
		return 1
	}
	return transferRounds
}

// transfers times both for each image and writes the table and the bars.
func transfers(s settings, w io.Writer, list []payload, nook, podman func(payload) []string) error {
	if err := os.MkdirAll(s.stores(), 0o755); err != nil {
		return err
	}
	defer endPause()
	fmt.Fprint(w, "| | layers | nook, median ms | least | most | podman, median ms | least | most | times as fast |\n|---|---|---:|---:|---:|---:|---:|---:|---:|\n")
	bars := map[float64][]figure{}
	for _, p := range list {
		ours, theirs, err := transfer(s, p, nook(p), podman(p))
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		ratio := float64(theirs.median()) / float64(ours.median())
		fmt.Fprintf(w, "| %s | %s | %s | %s | %.2f |\n", p.name, p.what, spread(ours), spread(theirs), ratio)
		bars[p.bar] = append(bars[p.bar], figure{p.name, ratio})
	}
	fmt.Fprintln(w)
	atLeast(w, "at least twice as fast as podman", 2, bars[2]...)
	atLeast(w, fmt.Sprintf("of %d layers, at least three times", manyLayers), 3, bars[3]...)
	return nil
}

func spread(t times) string {
	least, most := t.all[0], t.all[0]
	for _, d := range t.all {
		least, most = min(least, d), max(most, d)
	}
	return fmt.Sprintf("%.0f | %.0f | %.0f", ms(t.median()), ms(least), ms(most))
}

// stores is the directory of the stores that were filled. They stay until all
// parts are over: ext4 doesn't use an inode again for minutes after its file is
// removed, and whoever makes files then pays for the search, several times what
// the files cost (fs/ext4/ialloc.c, recently_deleted).
func (s settings) stores() string { return filepath.Join(s.own(), "stores") }

// transfer times both in turns.
func transfer(s settings, p payload, nook, podman []string) (ours, theirs times, err error) {
	dir, err := os.MkdirTemp(s.stores(), p.name+"-")
	if err != nil {
		return ours, theirs, err
	}
	for round := range 1 + transferCount(s) {
		root := filepath.Join(dir, fmt.Sprint("nook-", round))
		own := podmanStore{s, filepath.Join(dir, fmt.Sprint("podman-", round)), "none"}
		if err := quietly(own.command("images")); err != nil {
			return ours, theirs, err
		}
		turns := []func() error{
			func() error { return timed(&ours, round, dir, nookIn(s, root, nook...)) },
			func() error { return timed(&theirs, round, dir, own.command(podman...)) },
		}
		if round%2 == 1 {
			turns[0], turns[1] = turns[1], turns[0]
		}
		for _, turn := range turns {
			if err := turn(); err != nil {
				return ours, theirs, err
			}
		}
	}
	return ours, theirs, nil
}

// timed adds the time of a command, unless it is the first round's.
func timed(t *times, round int, dir string, cmd *exec.Cmd) error {
	settle(dir)
	began := time.Now()
	if err := patiently(cmd); err != nil {
		return err
	}
	if took := time.Since(began); round > 0 {
		t.all = append(t.all, took)
	}
	return nil
}
