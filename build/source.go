package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"nook/internal/hint"
)

// Source says where the Dockerfile and the context come from.
type Source struct {
	// Context is a directory, "-" for Stdin, a git URL, or that of an archive
	// or Dockerfile.
	Context string
	// File is the Dockerfile's path, on the host for a directory, else in the
	// context; "-" is Stdin; "": Dockerfile in the context.
	File  string
	Stdin io.Reader
}

// source is a context that is here.
type source struct {
	name   string // of the Dockerfile, as messages show it
	data   []byte
	dir    string
	filter Filter
}

// tree is the context for Select.
func (src *source) tree() Tree {
	return Tree{Dir: src.dir, Filter: src.filter}
}

// load brings the context here and reads Dockerfile and .dockerignore.
func (s *solver) load(ctx context.Context) (*source, error) {
	o := s.o.Source
	if o.Context == "-" && o.File == "-" {
		return nil, hint.Errorf("give one of them as a file", "both the context and the Dockerfile are to come from standard input")
	}
	src := &source{}
	var err error
	local := false
	switch {
	case o.Context == "":
		return nil, errContext
	case o.Context == "-":
		step := s.begin("[internal] load remote build context")
		err = src.fromStdin(ctx, o, filepath.Join(s.o.Temp, "context"))
		step.end(ctx, err)
	case isGit(o.Context):
		step := s.begin("[internal] load git source " + redacted(o.Context))
		keep, _ := strconv.ParseBool(s.o.Args[argKeepGitDir])
		src.dir, err = cloneGit(ctx, gitSource{url: o.Context, keep: keep}, filepath.Join(s.o.Temp, "context"), step)
		step.end(ctx, err)
	case strings.HasPrefix(o.Context, "http://"), strings.HasPrefix(o.Context, "https://"):
		step := s.begin("[internal] load remote build context")
		err = src.fromURL(ctx, o, s.o.Temp)
		step.end(ctx, err)
	default:
		local = true
		src.dir, err = localDir(o.Context)
	}
	if err == nil && src.data == nil {
		step := s.begin("[internal] load build definition from Dockerfile")
		err = src.dockerfile(ctx, o, local)
		step.end(ctx, err)
	}
	if err == nil && src.dir == "" { // a Dockerfile alone
		src.dir = filepath.Join(s.o.Temp, "context")
		return src, os.Mkdir(src.dir, 0o755)
	}
	if err == nil {
		step := s.begin("[internal] load .dockerignore")
		src.filter, err = src.ignore(o, local)
		step.end(ctx, err)
	}
	return src, err
}

// localDir checks that the context is a directory.
func localDir(dir string) (string, error) {
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return "", fmt.Errorf("build context: %w", err)
	case !info.IsDir():
		return "", hint.Errorf("an archive goes to standard input: nook build - < FILE; a Dockerfile to -f", "build context %s is not a directory", dir)
	}
	return filepath.Abs(dir)
}

// dockerfile reads the Dockerfile.
func (src *source) dockerfile(ctx context.Context, o Source, local bool) error {
	if o.File == "-" {
		src.name = "Dockerfile"
		in, err := given(ctx, o.Stdin)
		if err != nil {
			return err
		}
		src.data, err = readLimited(in)
		if err == nil && len(src.data) == 0 {
			err = hint.Errorf(emptyAdvice, "standard input is empty")
		}
		return err
	}
	if local && o.File != "" {
		// Named by the caller: as seen from the caller's directory.
		src.name = o.File
		var err error
		src.data, err = readLimited(patientFile(ctx, o.File))
		if errors.Is(err, fs.ErrNotExist) {
			if _, there := os.Stat(filepath.Join(src.dir, o.File)); there == nil {
				err = hint.Wrap(err, "-f is relative to this directory, not to the context: -f "+filepath.Join(o.Context, o.File))
			}
		}
		return err
	}
	name := o.File
	if name == "" {
		name = "Dockerfile"
	}
	root, err := os.OpenRoot(src.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := regular(root.OpenFile, name)
	if errors.Is(err, fs.ErrNotExist) && o.File == "" {
		name = strings.ToLower(name) // docker takes this too
		f, err = regular(root.OpenFile, name)
	}
	if errors.Is(err, fs.ErrNotExist) && o.File == "" {
		return hint.Errorf("-f FILE names it, -f - reads it from standard input", "no Dockerfile in the context %s", o.Context)
	}
	if err != nil {
		err = fmt.Errorf("%s of the context: %w", name, err)
		if info, linked := root.Lstat(name); linked == nil && info.Mode()&fs.ModeSymlink != 0 {
			advice := "it is a symlink, and what it leads to has to be in the context"
			if local {
				advice += "; -f FILE takes any"
			}
			err = hint.Wrap(err, advice)
		}
		return err
	}
	src.name = name
	src.data, err = readLimited(f)
	return err
}

// mostDockerfile is more than anybody wrote.
const mostDockerfile = 16 << 20

// readLimited reads all of a Dockerfile, and closes it.
func readLimited(r io.ReadCloser) ([]byte, error) {
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, mostDockerfile+1))
	if err == nil && len(data) > mostDockerfile {
		err = fmt.Errorf("a Dockerfile of more than %d MiB", mostDockerfile>>20)
	}
	if data == nil {
		data = []byte{}
	}
	return data, err
}
