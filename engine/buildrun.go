package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nook/build"
	"nook/cgroups"
	"nook/containers"
	"nook/containers/pid1"
	"nook/images/layers"
	"nook/internal/hint"
	"nook/namespaces"
	"nook/namespaces/confine"
	"nook/rootfs"
)

// buildRun is one RUN.
type buildRun struct {
	w     *worker
	below build.State
	spec  build.RunSpec
	st    *staged
	// mounts are those of the spec as rootfs has them, and stubs the mount
	// points that may be ours to remove.
	binds  []rootfs.Bind
	tmpfs  []rootfs.Tmpfs
	files  []rootfs.File
	stacks []shown
	held   []func()
	full   string // a copy of all files, where there is no overlay
}

// buildHost is the hostname of a RUN, as buildkit's.
const buildHost = "buildkitsandbox"

// Run runs a command on a state.
func (w *worker) Run(ctx context.Context, below build.State, spec build.RunSpec, out io.Writer) (state build.State, err error) {
	if len(below.Layers) == 0 && len(spec.Mounts) == 0 {
		return state, hint.Errorf("begin the stage with an image that has a shell, or copy one into it", "RUN in a stage without any file")
	}
	if below, err = w.local(ctx, below); err != nil {
		return state, err
	}
	spec.Mounts = slices.Clone(spec.Mounts)
	for i := range spec.Mounts {
		if from := spec.Mounts[i].From; from != nil {
			shown, err := w.local(ctx, *from)
			if err != nil {
				return state, err
			}
			spec.Mounts[i].From = &shown
		}
	}
	st, err := w.e.stageStep()
	if err != nil {
		return state, err
	}
	defer st.close()
	r := &buildRun{w: w, below: below, spec: spec, st: st}
	defer r.release()
	if err := r.prepare(ctx); err != nil {
		return state, err
	}
	code, err := r.run(ctx, out)
	if err != nil {
		return state, runFault(&spec, err)
	}
	if code != 0 {
		return state, &build.ExitError{Args: spec.Args, Code: code}
	}
	if err := r.tidy(ctx); err != nil {
		return state, err
	}
	// What belongs to other ids behind a closed directory is counted when the
	// layer is packed.
	size, _ := countFiles(ctx, filepath.Join(st.dir, "fs"))
	return w.place(ctx, st, below, layers.Meta{Bytes: size, Made: &layers.Made{Time: w.stepTime(spec.Epoch)}})
}

// runFault puts an error into the words of a Dockerfile, and tells a command that
// couldn't be executed from a container that couldn't be made.
func runFault(spec *build.RunSpec, err error) error {
	switch code := hint.Code(err); {
	case errors.Is(err, confine.ErrNoUser):
		return hint.Wrap(err, "USER takes name|uid[:group|gid]; a name must stand in /etc/passwd or /etc/group of what the stage has so far")
	case code == hint.ExitCannotRun || code == hint.ExitNotFound:
		return &build.ExitError{Args: spec.Args, Code: code, Err: err}
	}
	return err
}

// run runs the command in the first way that this host allows: on an overlay,
// or in a copy of the state's files.
func (r *buildRun) run(ctx context.Context, out io.Writer) (code int, err error) {
	e, network := r.w.e, first(r.spec.Network, "host")
	if e.rootfsKind(false) != rootfs.Copy {
		code, err = e.keep(ctx, network, r.process(), r.root, out)
		if !refusesOverlay(err) {
			return code, err
		}
	}
	if why := e.copyRuns(); why != nil {
		return 0, why
	}
	if err := r.flatten(ctx); err != nil {
		return 0, err
	}
	return e.keep(ctx, network, r.process(), r.root, out)
}

// flatten copies the state's files, and those that binds show.
func (r *buildRun) flatten(ctx context.Context) error {
	r.full = filepath.Join(r.st.dir, "rootfs")
	trees := []buildTree{{r.full, r.w.lowers(r.below)}}
	for _, s := range r.stacks {
		dir := filepath.Join(s.dir, "mnt")
		if err := os.Remove(dir); err != nil {
			return err
		}
		trees = append(trees, buildTree{dir, s.keys})
	}
	if err := r.w.e.stage(ctx, request{Build: &buildJob{Do: jobFlatten, Trees: trees}}, nil); err != nil {
		return fmt.Errorf("copy the files for RUN, as overlay is refused here: %w", err)
	}
	mode, err := r.w.rootMode(r.below)
	if err != nil {
		return err
	}
	return os.Chmod(r.full, os.FileMode(mode&0o777))
}

// stepTime is when a step was made, for the image's history and for the files
// that nook itself makes. With an epoch it doesn't depend on the clock at all.
func (w *worker) stepTime(epoch build.Epoch) time.Time {
	if !epoch.Epoch.IsZero() {
		return epoch.Epoch.UTC()
	}
	return w.now().UTC()
}

func (r *buildRun) release() {
	for _, release := range r.held {
		release()
	}
}

// prepare makes what the container's root is mounted from.
func (r *buildRun) prepare(ctx context.Context) error {
	if network := r.spec.Network; network != "" && network != "host" && network != "none" {
		return hint.Errorf("none and host are the networks there are", "--network %q is not known", network)
	}
	if err := checkHostname(r.spec.Hostname); err != nil {
		return err
	}
	mode, err := r.w.rootMode(r.below)
	if err != nil {
		return err
	}
	if err := unix.Chmod(filepath.Join(r.st.dir, "fs"), mode); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	for _, name := range []string{"work", "mnt"} {
		if err := os.Mkdir(filepath.Join(r.st.dir, name), 0o700); err != nil {
			return r.w.e.noRoom(err)
		}
	}
	if err := r.lockCaches(ctx); err != nil {
		return err
	}
	for _, m := range r.spec.Mounts {
		if err := r.mount(ctx, m); err != nil {
			return fmt.Errorf("--mount=type=%s,target=%s: %w", m.Kind, m.Target, err)
		}
	}
	return nil
}

// removeEtcStubs removes the mount points that were made of links in /etc that
// lead nowhere. The command may have left anything there, also a link to the
// host's own files, so that nothing is followed.
func (r *buildRun) removeEtcStubs() {
	root, err := os.OpenRoot(filepath.Join(r.st.dir, "fs"))
	if err != nil {
		return
	}
	defer root.Close()
	if etc, err := root.Lstat("etc"); err != nil || !etc.IsDir() {
		return
	}
	for _, name := range etcNames() {
		file := "etc/" + name
		if info, err := root.Lstat(file); err == nil && info.Mode().IsRegular() && info.Size() == 0 {
			_ = root.Remove(file)
		}
	}
}

// rootMode is the mode of a state's /, which an upper directory must have.
func (w *worker) rootMode(s build.State) (uint32, error) {
	for _, key := range slices.Backward(s.Layers) {
		m, err := w.e.layers.Meta(key)
		if err != nil {
			return 0, err
		}
		if m.Root != nil {
			return m.Root.Mode, nil
		}
	}
	return 0o755, nil
}

// process is what pid 1 becomes.
func (r *buildRun) process() pid1.Spec {
	s := &r.spec
	spec := pid1.Spec{
		Args: s.Args, Env: environment(s.Env, nil, nil), User: rootByNumber(s.User),
		WorkingDir: first(s.WorkingDir, "/"), Hostname: first(s.Hostname, buildHost),
		Loopback: s.Network == "none",
		Caps:     confine.DefaultCaps,
		Filter:   confine.Filter(r.w.e.ids.Mode == namespaces.Single),
	}
	if !slices.ContainsFunc(spec.Env, func(e string) bool { return strings.HasPrefix(e, "PATH=") }) {
		spec.Env = append([]string{defaultPath}, spec.Env...)
	}
	return spec
}

// rootByNumber is USER with root as 0, who needs no line in /etc/passwd.
func rootByNumber(user string) string {
	name, group, given := strings.Cut(user, ":")
	if name == "root" {
		name = "0"
	}
	if !given {
		return name
	}
	if group == "root" {
		group = "0"
	}
	return name + ":" + group
}

// root describes the root file system.
func (r *buildRun) root(number func() int) (*rootfs.Root, error) {
	e := r.w.e
	skeleton, err := e.skeleton()
	if err != nil {
		return nil, err
	}
	at := func(elem ...string) rootfs.Dir { return rootfs.Dir{Path: filepath.Join(elem...), FD: number()} }
	root := &rootfs.Root{
		// An upper directory that a power cut may spoil is of no use after it:
		// see layers.Made.
		Kind: rootfs.Overlay, Dir: filepath.Join(r.st.dir, "mnt"), Volatile: true,
		OwnNet: r.spec.Network == "none", CgroupV2: cgroups.Hierarchy() == cgroups.Unified,
		TTYGroup: e.ttyGroup(), ShmSize: r.spec.ShmSize, Exists: exists,
		Upper: at(r.st.dir, "fs"), Work: at(r.st.dir, "work"),
		Binds: r.binds, Tmpfs: r.tmpfs, Files: r.files,
	}
	for _, s := range r.stacks {
		root.Stacks = append(root.Stacks, s.stack(e, number))
	}
	if root.ShmSize == 0 {
		root.ShmSize = shmSize
	}
	if r.full != "" {
		root.Kind, root.Dir = rootfs.Copy, r.full
		root.Stacks = nil
		return r.etc(root)
	}
	for _, key := range r.w.lowers(r.below) {
		root.Lowers = append(root.Lowers, at(e.layers.Dir(key)))
	}
	root.Lowers = append(root.Lowers, at(skeleton))
	return r.etc(root)
}

// etc adds the files of /etc that are nook's.
func (r *buildRun) etc(root *rootfs.Root) (*rootfs.Root, error) {
	root.Etc = etc(&containers.Config{Network: first(r.spec.Network, "host"), Hostname: first(r.spec.Hostname, buildHost)})
	for _, host := range r.spec.ExtraHosts {
		name, ip, ok := strings.Cut(host, ":")
		if !ok {
			return nil, hint.Errorf("--add-host takes NAME:IP", "--add-host %q: no address", host)
		}
		root.Etc["hosts"] += ip + "\t" + name + "\n"
	}
	return root, nil
}

// tidy takes away what isn't the command's own.
func (r *buildRun) tidy(ctx context.Context) error {
	// Overlayfs's directories without mode bits, which root of the user
	// namespace owns: that is who we are.
	extra := []string{r.st.dir}
	for _, s := range r.stacks {
		extra = append(extra, s.dir)
	}
	gone := []string{filepath.Join(r.st.dir, "mnt"), filepath.Join(r.st.dir, agents)}
	for _, dir := range extra {
		own := filepath.Join(dir, "work", "work")
		for _, dir := range []string{own, filepath.Join(own, "incompat"), filepath.Join(own, "incompat", "volatile")} {
			_ = os.Chmod(dir, 0o700)
		}
		gone = append(gone, filepath.Join(dir, "work"))
	}
	if r.full != "" {
		job := &buildJob{Do: jobDiffer, Staging: r.st.dir, Layers: r.w.lowers(r.below)}
		if _, err := r.w.make(ctx, job); err != nil {
			return err
		}
		gone = append(gone, r.full)
	}
	if err := r.w.e.removeTrees(ctx, append(gone, extra[1:]...)...); err != nil {
		return err
	}
	r.removeEtcStubs()
	job := &buildJob{Do: jobTidy, Staging: r.st.dir, Layers: r.w.lowers(r.below), Owned: r.full != ""}
	for _, m := range r.spec.Mounts {
		job.Paths = append(job.Paths, m.Target)
	}
	if !r.spec.Epoch.Epoch.IsZero() {
		job.Epoch = &r.spec.Epoch.Epoch
	}
	if len(job.Paths) == 0 && job.Epoch == nil && r.w.e.ids.Mode != namespaces.Single {
		return nil
	}
	return r.w.e.stage(ctx, request{Build: job}, nil)
}
