package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"nook/engine"
	"nook/internal/hint"
)

// filesystem is the part of *engine.Engine over a container's files.
type filesystem interface {
	CopyTo(ctx context.Context, nameOrID, dstPath string, tarStream io.Reader, o engine.CopyToOptions) error
	CopyInto(context.Context, engine.CopyOptions) (int64, error)
	CopyOutOf(context.Context, engine.CopyOptions) (int64, error)
	CopyOutTo(context.Context, engine.CopyOptions, io.Writer) error
	Diff(ctx context.Context, nameOrID string) ([]engine.Change, error)
	Commit(ctx context.Context, nameOrID string, o engine.CommitOptions) (imageID string, err error)
	Export(ctx context.Context, nameOrID string, w io.Writer) error
	ExportVolume(ctx context.Context, name string, w io.Writer) error
	ImportVolume(ctx context.Context, name string, tarStream io.Reader) error
	Unshare(ctx context.Context, command []string) (code int, err error)
}

func cpVerb() verb {
	return verb{
		name:    "cp",
		long:    []string{"container cp"},
		about:   "Copy files/folders between a container and the local filesystem",
		usage:   "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n       nook cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
		min:     2,
		max:     2,
		options: cpOptions,
		examples: []string{
			"nook cp page.html web:/usr/share/nginx/html/",
			"nook cp web:/var/log/nginx/. logs     what is in it, to logs",
			"tar -c etc | nook cp - web:/          a tar archive to be extracted",
		},
		run: (*shell).cp,
	}
}

func cpOptions() []option {
	return []option{
		{name: "archive", short: "a", usage: "Archive mode (copy all uid/gid information)"},
		{name: "follow-link", short: "L", usage: "Always follow symbol link in SRC_PATH"},
		{name: "quiet", short: "q", usage: "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached"},
	}
}

// cpSide splits CONTAINER:PATH as docker does: what begins with / or . is a
// path of this host, whatever colons it has.
func cpSide(arg string) (container, path string) {
	container, path, found := strings.Cut(arg, ":")
	if filepath.IsAbs(arg) || !found || strings.HasPrefix(container, ".") {
		return "", arg
	}
	return container, path
}

func (s *shell) cp(c *cli.Context) error {
	const usage = "nook cp CONTAINER:SRC DEST, or nook cp SRC CONTAINER:DEST; - is a tar stream"
	o := engine.CopyOptions{Archive: c.Bool("archive"), Follow: c.Bool("follow-link")}
	from, src := cpSide(c.Args().Get(0))
	to, dst := cpSide(c.Args().Get(1))
	switch {
	case from != "" && to != "":
		return hint.Errorf("copy to a file of this host first, or pipe: nook cp A:FILE - | nook cp - B:DIR",
			"copying between containers is not supported")
	case from == "" && to == "":
		return hint.Errorf(usage, "must specify at least one container source")
	case src == "", dst == "":
		return hint.Errorf(usage, "a path is missing")
	}
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		var n int64
		if from != "" {
			o.Container, o.Path, o.Local = from, src, dst
			if dst == "-" {
				return s.cpToStdout(ctx, nook, o)
			}
			n, err = nook.CopyOutOf(ctx, o)
		} else {
			o.Container, o.Path, o.Local = to, dst, src
			if src == "-" {
				return s.cpFromStdin(ctx, nook, o)
			}
			n, err = nook.CopyInto(ctx, o)
		}
		if err != nil {
			return err
		}
		if !c.Bool("quiet") && asTerminal(s.stdout) != nil {
			fmt.Fprintf(s.stderr, "Successfully copied %s to %s\n", units.HumanSize(float64(n)), c.Args().Get(1))
		}
		return nil
	})
}

func (s *shell) cpToStdout(ctx context.Context, nook backend, o engine.CopyOptions) error {
	if asTerminal(s.stdout) != nil {
		return hint.Errorf("redirect standard output, or name a file or directory", "an archive is not written to a terminal")
	}
	return nook.CopyOutTo(ctx, o, s.stdout)
}

func (s *shell) cpFromStdin(ctx context.Context, nook backend, o engine.CopyOptions) error {
	if asTerminal(s.stdin) != nil {
		return hint.Wrap(errors.New("requested to read an archive from standard input, which is a terminal"),
			"redirect a tar archive to standard input, or name a file or directory")
	}
	return nook.CopyTo(ctx, o.Container, o.Path, s.stdin, engine.CopyToOptions{Owners: o.Archive})
}
