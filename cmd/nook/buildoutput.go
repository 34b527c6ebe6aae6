package main

import (
	"context"
	"io"
	"path/filepath"
	"strings"

	"nook/build"
	"nook/internal/hint"
)

// output is a place where the result goes. The zero output is this host's store.
type output struct{ kind, dest string }

func (o output) isStore() bool  { return o.kind == "" }
func (o output) isStdout() bool { return o.dest == "-" }

// isImage says whether it has an image's ID.
func (o output) isImage() bool { return o.kind != "tar" && o.kind != "local" }

// readOutputs reads all --output. The store is the first of them, once, where it
// is meant, and alone where nothing is.
func readOutputs(texts []string, load bool) ([]output, error) {
	var outs []output
	load = load || len(texts) == 0
	said := map[string]string{} // by where it goes
	for _, text := range texts {
		out, err := readOutput(text)
		if err != nil {
			return nil, err
		}
		if out.isStore() {
			load = true
			continue
		}
		place := out.dest
		if !out.isStdout() {
			if place, err = filepath.Abs(place); err != nil {
				return nil, err
			}
		}
		switch other, taken := said[place]; {
		case taken && out.isStdout():
			return nil, hint.Errorf("give one of them a file: type="+out.kind+",dest=FILE", "--output %s and %s both go to standard output", other, text)
		case taken:
			return nil, hint.Errorf("each needs a place of its own", "--output %s and %s both go to %s", other, text, out.dest)
		}
		said[place] = text
		outs = append(outs, out)
	}
	if load {
		outs = append([]output{{}}, outs...)
	}
	return outs, nil
}

// readOutput reads one: DIR, "-" for a tar stream, or type=...,dest=....
func readOutput(text string) (output, error) {
	switch {
	case text == "":
		return output{}, nil
	case text == "-":
		return output{"tar", "-"}, nil
	case !strings.Contains(text, "="):
		return output{"local", text}, nil
	}
	kv, err := keyValues("output", text, "type", "dest")
	if err != nil {
		return output{}, err
	}
	out := output{kv["type"], kv["dest"]}
	switch out.kind {
	case "docker", "oci", "tar":
		if out.dest == "" && out.kind == "docker" {
			return output{}, nil // docker's own store is meant, with docker
		}
		if out.dest == "" {
			out.dest = "-"
		}
	case "local":
		if out.dest == "" || out.dest == "-" {
			return out, hint.Errorf("write it like -o type=local,dest=out, or -o out", "--output type=local has no dest=DIRECTORY")
		}
	case "image":
		return output{}, nil
	default:
		return out, hint.Errorf("image, docker, oci, tar and local are known", "invalid value %q for --output: type %q", text, out.kind)
	}
	return out, nil
}

// toOutputs opens what the build writes to, one after another. All files get
// their names when the build has ended well.
func (s *shell) toOutputs(ctx context.Context, outs []output, opened []build.Output, do func([]build.Output) error) error {
	if len(outs) == 0 {
		return do(opened)
	}
	out := outs[0]
	next := func(to build.Output) error { return s.toOutputs(ctx, outs[1:], append(opened, to), do) }
	switch {
	case out.isStore():
		return next(build.Output{Type: "image"})
	case out.kind == "local":
		return next(build.Output{Type: "local", Dir: out.dest})
	case out.isStdout() && asTerminal(s.stdout) != nil:
		return hint.Errorf("name a file: dest=FILE, or redirect standard output", "an archive is not written to a terminal")
	case out.isStdout():
		return patiently(ctx, s.stdout, func(w io.Writer) error { return next(build.Output{Type: out.kind, W: w}) })
	}
	return s.toFile(ctx, out.dest, func(w io.Writer) error { return next(build.Output{Type: out.kind, W: w}) })
}

// patiently lets do write to what may keep it waiting for ever: a pipe whose
// reader sleeps. That ends with ctx; the last write is left behind, and ends with
// the process.
func patiently(ctx context.Context, to io.Writer, do func(io.Writer) error) error {
	r, w := io.Pipe()
	stop := context.AfterFunc(ctx, func() { _ = r.CloseWithError(ctx.Err()) })
	defer stop()
	written := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{to}, r, make([]byte, 256<<10))
		_ = r.CloseWithError(err)
		written <- err
	}()
	err := do(w)
	_ = w.CloseWithError(err) // of nil: io.EOF
	if err != nil {
		return err
	}
	select {
	case err = <-written:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
