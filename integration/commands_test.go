package integration

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

// commands are what the scripts have beyond testscript's own:
//
//	exits N COMMAND ARG...     runs it; its exit code is N (testscript's exec
//	                           only knows success and failure)
//	complains PATTERN          the last command said one line of fact that
//	                           matches, at most one hint, and nothing more
//	image [FLAG...] FILE       writes a busybox image; see imageFlags
//	pty [-rows N] [-cols N] [-wait TEXT] [-send TEXT] [-exits N] OUT COMMAND ARG...
//	                           runs it on a terminal; once the terminal showed
//	                           -wait types -send; writes all that it showed
//	                           to OUT
//	until [-says PATTERN] COMMAND ARG...
//	                           runs it again and again until it succeeds and
//	                           its standard output matches
//	registry [-tls] [-auth] VAR
//	                           Debian's docker-registry: see cmdRegistry
//	needs NAME                 skips the script when the probe NAME fails
//	keeps                      the script leaves containers on purpose
func commands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"exits":     cmdExits,
		"complains": cmdComplains,
		"image":     cmdImage,
		"pty":       cmdPty,
		"until":     cmdUntil,
		"needs":     cmdNeeds,
		"registry":  cmdRegistry,
		"keeps":     cmdKeeps,
	}
}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits N COMMAND ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("run %s: %v", args[1], err)
	}
	if got != want {
		ts.Fatalf("%s exits with %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

func cmdComplains(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: complains PATTERN")
	}
	said := strings.TrimSuffix(ts.ReadFile("stderr"), "\n")
	lines := strings.Split(said, "\n")
	matched, err := regexp.MatchString(args[0], lines[0])
	ts.Check(err)
	switch {
	case !matched:
		ts.Fatalf("stderr is %q, want a line that matches %q", said, args[0])
	case len(lines) > 2:
		ts.Fatalf("stderr has %d lines, want one of fact and at most one hint:\n%s", len(lines), said)
	}
}

// imageFlags read the flags of the command image.
func imageFlags(args []string) (img testimage.Image, form, out string, err error) {
	img, err = testimage.Busybox()
	if err != nil {
		return img, "", "", err
	}
	f := flag.NewFlagSet("image", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&form, "form", "docker", "docker, both, oci (an archive) or dir (a layout)")
	f.StringVar(&img.Compression, "compress", "", "gzip or zstd")
	f.StringVar(&img.Name, "name", img.Name, "the reference in it")
	f.StringVar(&img.Architecture, "arch", "", "the architecture in its config")
	f.StringVar(&img.Config.User, "user", "", "USER")
	f.StringVar(&img.Config.WorkingDir, "workdir", "", "WORKDIR")
	list := func(name string, to *[]string) {
		f.Func(name, "blank separated", func(v string) error { *to = strings.Fields(v); return nil })
	}
	list("entrypoint", &img.Config.Entrypoint)
	list("cmd", &img.Config.Cmd)
	list("env", &img.Config.Env)
	f.Func("file", "PATH=MODE=TEXT: in a layer of its own", func(v string) error {
		part := strings.SplitN(v, "=", 3)
		if len(part) != 3 {
			return fmt.Errorf("%q is not PATH=MODE=TEXT", v)
		}
		perm, err := strconv.ParseInt(part[1], 8, 32)
		img.Layers = append(img.Layers, testimage.Layer{Entries: []testimage.Entry{testimage.File(part[0], perm, part[2])}})
		return err
	})
	f.Func("dir", "PATH=MODE=UID:GID: a directory in a layer of its own", func(v string) error {
		var perm int64
		var uid, gid int
		name, rest, _ := strings.Cut(v, "=")
		if _, err := fmt.Sscanf(rest, "%o=%d:%d", &perm, &uid, &gid); err != nil {
			return fmt.Errorf("%q is not PATH=MODE=UID:GID", v)
		}
		img.Layers = append(img.Layers, testimage.Layer{Entries: []testimage.Entry{testimage.Dir(name, perm).Owned(uid, gid)}})
		return nil
	})
	f.Func("volume", "VOLUME", func(v string) error {
		if img.Config.Volumes == nil {
			img.Config.Volumes = map[string]struct{}{}
		}
		img.Config.Volumes[v] = struct{}{}
		return nil
	})
	f.Func("rm", "PATH: a whiteout in a layer of its own", func(v string) error {
		dir, base := filepath.Split(v)
		img.Layers = append(img.Layers, testimage.Layer{Entries: []testimage.Entry{testimage.File(dir+".wh."+base, 0, "")}})
		return nil
	})
	f.Func("opaque", "DIR: hidden by a layer of its own that has DIR/new", func(v string) error {
		img.Layers = append(img.Layers, testimage.Layer{Entries: []testimage.Entry{
			testimage.Dir(v, 0o755), testimage.File(v+"/.wh..wh..opq", 0, ""), testimage.File(v+"/new", 0o644, "new\n"),
		}})
		return nil
	})
	if err := f.Parse(args); err != nil {
		return img, "", "", err
	}
	if f.NArg() != 1 {
		return img, "", "", errors.New("usage: image [FLAG...] FILE")
	}
	return img, form, f.Arg(0), nil
}

func cmdImage(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("image can't be negated")
	}
	img, form, name, err := imageFlags(args)
	ts.Check(err)
	name = ts.MkAbs(name)
	if form == "dir" {
		ts.Check(img.WriteOCIDir(name))
		return
	}
	write, ok := map[string]func(io.Writer) error{
		"docker": img.WriteDocker, "both": img.WriteBoth, "oci": img.WriteOCI,
	}[form]
	if !ok {
		ts.Fatalf("no form is called %q", form)
	}
	file, err := os.Create(name)
	ts.Check(err)
	ts.Check(errors.Join(write(file), file.Close()))
}

func cmdNeeds(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: needs NAME")
	}
	probe, ok := map[string]func() error{
		"overlay": testenv.Overlay, "tmpfs": testenv.Tmpfs, "zstd": testenv.Zstd, "umoci": testenv.Umoci,
		"skopeo": testenv.Skopeo, "docker-registry": testenv.DockerRegistry, "buildah": testenv.Buildah, "podman": testenv.Podman, "setcap": testenv.Setcap, "subids": testenv.Subids, "fuse": fuse,
	}[args[0]]
	if !ok {
		ts.Fatalf("no probe is called %q", args[0])
	}
	err := probe()
	if err == nil {
		return
	}
	if testenv.MustWork(args[0]) {
		ts.Fatalf("%s does not work here, and %s lists it: %v", args[0], testenv.MustWorkVariable, err)
	}
	ts.Value(keyT{}).(testscript.T).Skip(args[0], "does not work here:", err)
}

// fuse tells whether this user may serve a file system.
func fuse() error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err == nil {
		err = f.Close()
	}
	return err
}

func cmdKeeps(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: keeps")
	}
	ts.Value(keyHost{}).(*host).keeps = true
}
