package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

// memoryPart measures how much memory pull and load take.
func memoryPart(s settings, w io.Writer) error {
	list, err := payloads(s)
	if err != nil {
		return err
	}
	huge, err := hugePayloads(s)
	if err != nil {
		return err
	}
	defer func() {
		for _, p := range huge {
			_ = os.Remove(p.archive)
		}
	}()
	list = append(list, huge...)
	registry, err := openRegistry(s, list)
	if err != nil {
		return err
	}
	defer registry.Stop()
	fmt.Fprint(w, "## Memory of `pull` and `load`\n\nThe sum of the greatest resident sets (VmHWM, looked at every 5 ms) of all of nook's processes: the command, the stage that unpacks, and what maps its ids. Shared pages count for each.\n\n"+
		"| | layers | pull, MiB | load, MiB |\n|---|---|---:|---:|\n")
	most := figure{name: "MiB"}
	for _, p := range list {
		pull, err := peakIn(s, "pull", "-q", registry.ref(p))
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		load, err := peakIn(s, "load", "-q", "-i", p.archive)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		fmt.Fprintf(w, "| %s | %s | %.1f | %.1f |\n", p.name, p.what, pull, load)
		most.value = max(most.value, pull, load)
	}
	fmt.Fprintln(w)
	atMost(w, "under 100 MiB whatever the image's size", 100, most)
	return nil
}

// hugePayloads are images of one file: one of letters, of 1 GiB, that packs as
// programs do, to a third of that, and one of 2 GiB that nothing packs.
func hugePayloads(s settings) ([]payload, error) {
	size := int64(1 << 30)
	if s.quick {
		size = 32 << 20
	}
	noise := rand.NewChaCha8([32]byte{})
	list := []payload{{name: "letters"}, {name: "noise"}}
	for i, content := range []io.Reader{letters{noise}, noise} {
		p, size := &list[i], size<<i
		p.archive = filepath.Join(s.payloadDir(), p.name+".tar")
		p.what = fmt.Sprintf("1 of %d MB", size/1e6)
		layer := p.archive + ".layer"
		err := writeLayer(layer, io.LimitReader(content, size), size)
		if err == nil {
			err = writeArchive(p.archive, p.name+":1", []string{layer})
		}
		if err := errors.Join(err, os.Remove(layer)); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// letters are six different ones, in no order: 2.6 bits each.
type letters struct{ noise io.Reader }

func (l letters) Read(p []byte) (int, error) {
	n, err := l.noise.Read(p)
	for i := range p[:n] {
		p[i] = 'a' + p[i]%6
	}
	return n, err
}

// writeLayer writes a tar of one file.
func writeLayer(name string, content io.Reader, size int64) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	t := tar.NewWriter(f)
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "file", Mode: 0o644, Size: size, ModTime: testimage.Epoch}); err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{t}, content, make([]byte, 1<<20))
	return errors.Join(err, t.Close())
}

// peakIn is the most memory, in MiB, of a command with a store of its own.
func peakIn(s settings, args ...string) (mib float64, err error) {
	root, err := os.MkdirTemp(s.own(), "peak-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, testenv.RemoveAll(root)) }()
	cmd := nookIn(s, filepath.Join(root, "root"), args...)
	peaks := map[int]int64{} // KiB of each process there was
	ctx, cancel := context.WithCancel(context.Background())
	looked := make(chan struct{})
	look := func() {
		defer close(looked)
		for ; ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
			notePeaks(peaks, cmd.Process.Pid)
		}
	}
	err = patientlyWith(cmd, func() { go look() })
	cancel()
	<-looked
	var sum int64
	for _, kib := range peaks {
		sum += kib
	}
	return float64(sum) / 1024, err
}

// notePeaks adds what a process and those below it needed so far.
func notePeaks(peaks map[int]int64, top int) {
	entries, _ := filepath.Glob("/proc/[0-9]*/status")
	parents, now := map[int]int{}, map[int]int64{}
	for _, name := range entries {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it ended
		}
		pid := number(filepath.Base(filepath.Dir(name)))
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(line, ":")
			switch key {
			case "PPid":
				parents[pid] = number(strings.TrimSpace(value))
			case "VmHWM":
				now[pid], _ = strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			}
		}
	}
	for pid, kib := range now {
		for above := pid; above > 0; above = parents[above] {
			if above == top {
				peaks[pid] = max(peaks[pid], kib)
			}
		}
	}
}

// patiently is quietly for what takes minutes.
func patiently(cmd *exec.Cmd) error { return patientlyWith(cmd, func() {}) }

// patientlyWith calls started once the command runs.
func patientlyWith(cmd *exec.Cmd, started func()) error {
	said, err := os.CreateTemp("", "said-")
	if err != nil {
		return err
	}
	defer os.Remove(said.Name())
	defer said.Close()
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		return err
	}
	started()
	timer := time.AfterFunc(10*patience, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	if err := cmd.Wait(); err != nil {
		text, _ := os.ReadFile(said.Name())
		return fmt.Errorf("%s: %w: %s", cmd, err, strings.TrimSpace(string(text)))
	}
	return nil
}
