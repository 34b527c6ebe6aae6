package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"nook/images/layers"
	"nook/internal/hint"
)

// The jobs of buildJob.
const (
	jobRemove = "remove"
	jobOwn    = "own"
	jobTidy   = "tidy"
	jobCopy   = "copy"
	jobMkdir  = "mkdir"
	jobLayer  = "layer"
	jobFiles  = "files"
	jobSquash = "squash"
	// jobReceive unpacks the blob in Paths, which has DiffID.
	jobReceive = "receive"
	// jobPick finds the sources of a COPY in Layers.
	jobPick = "pick"

	jobFlatten = "flatten"
	jobDiffer  = "differ"
)

// buildJob is a build's work in a stage.
type buildJob struct {
	Do      string      `json:"do"`
	Paths   []string    `json:"paths,omitempty"`
	Staging string      `json:"staging,omitempty"` // the new layer's directory
	Layers  []string    `json:"layers,omitempty"`  // keys of those below, topmost first
	Top     []string    `json:"top,omitempty"`     // of a squash: all layers
	Trees   []buildTree `json:"trees,omitempty"`
	DiffID  string      `json:"diffID,omitempty"`
	Epoch   *time.Time  `json:"epoch,omitempty"`
	Now     time.Time   `json:"now,omitzero"` // of directories that are made on the way
	Owner   string      `json:"owner,omitempty"`
	Owned   bool        `json:"owned,omitempty"` // of tidy: the owners are written down already
	Copy    *buildCopy  `json:"copy,omitempty"`
	// Mode, UID and GID are of a cache mount's root, or of an agent's socket.
	Mode     *uint32 `json:"mode,omitempty"`
	UID, GID uint32
}

// buildTree are the files of layers, topmost first, and where they are copied
// to.
type buildTree struct {
	Dir    string   `json:"dir"`
	Layers []string `json:"layers"`
}

func flattenTrees(ctx context.Context, store *layers.Store, trees []buildTree) error {
	for _, t := range trees {
		if err := os.Mkdir(t.Dir, 0o755); err != nil {
			return err
		}
		var dirs []string
		for _, key := range t.Layers {
			dirs = append(dirs, store.Dir(key))
		}
		if err := layers.Flatten(ctx, t.Dir, dirs); err != nil {
			return err
		}
	}
	return nil
}

// build does a buildJob.
func (s *stageRun) build(ctx context.Context, store *layers.Store) error {
	job := s.req.Build
	var lowers []string
	for _, key := range job.Layers {
		lowers = append(lowers, store.Dir(key))
	}
	switch job.Do {
	case jobRemove:
		var all error
		for _, dir := range job.Paths {
			all = errors.Join(all, os.RemoveAll(dir))
		}
		return all
	case jobOwn:
		return job.own()
	case jobTidy:
		return s.tidy(ctx, job, lowers)
	case jobFlatten:
		return flattenTrees(ctx, store, job.Trees)
	case jobDiffer:
		v := layers.View{
			Upper: filepath.Join(job.Staging, "rootfs"), Full: true, Lowers: lowers, IDs: s.req.IDs, Skip: ownPath,
			Note: func(text string) { s.tell(event{Note: text}) },
		}
		_, err := v.Layer(ctx, job.Staging)
		return err
	case jobLayer, jobFiles, jobSquash:
		return s.packStep(ctx, store, job, lowers)
	case jobPick:
		return s.pick(ctx, job, lowers)
	case jobReceive:
		return s.receiveStep(ctx, store, job, lowers)
	}
	m, err := layers.Make(job.Staging, lowers, s.req.IDs)
	if err != nil {
		return err
	}
	defer func() { m.Close() }()
	owner, err := ownerIn(m, job.owner())
	if err != nil {
		return fmt.Errorf("%s: %w", job.ownedBy(), err)
	}
	if job.Copy != nil && job.Copy.Link {
		m.Close()
		if m, err = layers.Make(job.Staging, nil, s.req.IDs); err != nil {
			return err
		}
	}
	m.Now = job.Now
	m.Note = func(text string) { s.tell(event{Note: text}) }
	if job.Epoch != nil {
		m.Latest = *job.Epoch
	}
	var took *relinked
	if job.Do == jobMkdir {
		err = s.makeDir(m, job, owner)
	} else {
		took, err = s.copyStep(ctx, store, m, job, owner)
	}
	if err != nil {
		return err
	}
	if job.Mode != nil {
		if err := m.Root().Set(layers.Look{Mode: *job.Mode, UID: job.UID, GID: job.GID}); err != nil {
			return err
		}
	}
	meta, err := m.Done()
	s.tell(event{Made: &meta, Relinked: took})
	return err
}

func (s *stageRun) receiveStep(ctx context.Context, store *layers.Store, job *buildJob, lowers []string) error {
	blob, err := os.Open(job.Paths[0])
	if err != nil {
		return err
	}
	defer blob.Close()
	meta, err := store.Receive(ctx, blob, job.DiffID, job.Staging, lowers)
	s.tell(event{Made: &meta})
	return err
}

// packStep writes a step's layer, or all files of a state, to the pipe.
func (s *stageRun) packStep(ctx context.Context, store *layers.Store, job *buildJob, dirs []string) error {
	unix.CloseOnExec(stageFD + 1)
	data := os.NewFile(uintptr(stageFD+1), "pipe")
	if job.Do == jobSquash {
		return s.squash(ctx, store, job, dirs, data)
	}
	v := layers.View{Upper: dirs[0], Lowers: dirs[1:], IDs: s.req.IDs, Note: func(text string) { s.tell(event{Note: text}) }}
	if job.Do == jobFiles {
		v.Owned = dirs
		if job.Epoch != nil {
			v.Latest = *job.Epoch
		}
		return v.Archive(ctx, data)
	}
	v.Owned, v.Still = dirs[:1], true
	if meta, err := store.Meta(job.Layers[0]); err == nil {
		v.NoRoot = meta.Root == nil
	}
	packed, err := v.Pack(ctx, data)
	s.tell(event{Sizes: []int64{packed.Bytes}, Lacks: packed.Lacks})
	return err
}

// ownedBy is what the owner was given by.
func (job *buildJob) ownedBy() string {
	if job.Copy != nil {
		return "--chown " + job.Copy.Chown
	}
	return "USER " + job.Owner
}

func (job *buildJob) owner() string {
	if job.Copy != nil {
		return job.Copy.Chown
	}
	return job.Owner
}

func (s *stageRun) makeDir(m *layers.Making, job *buildJob, owner layers.Owned) error {
	way, kind, err := m.Real(job.Paths[0])
	if err != nil || kind == layers.Directory {
		return err
	}
	if kind == layers.OtherFile {
		return fmt.Errorf("%s: %w", job.Paths[0], unix.ENOTDIR)
	}
	look := layers.Look{Mode: 0o755, UID: owner.UID, GID: owner.GID, Time: job.Now}
	spot, err := m.MkdirAll(way, look)
	if err != nil {
		return err
	}
	return spot.Close()
}

// ownerIn reads user[:group], by the names that the state knows. A user
// without a group has the group of the same number, as docker has it.
//
// root is 0 without a look at them: an image of one program has no passwd.
func ownerIn(m *layers.Making, spec string) (layers.Owned, error) {
	var o layers.Owned
	if spec == "" {
		return o, nil
	}
	name, group, _ := strings.Cut(spec, ":")
	const longest = 4 << 20
	number := func(s string) (uint32, bool) {
		if s == "root" {
			return 0, true
		}
		n, err := strconv.ParseUint(s, 10, 32)
		return uint32(n), err == nil
	}
	const advice = "user[:group] is meant; a name must stand in /etc/passwd or /etc/group of what the stage has so far"
	if id, ok := number(name); ok {
		o.UID, o.GID = id, id
	} else {
		data, _ := m.ReadFile("/etc/passwd", longest)
		users, err := user.ParsePasswdFilter(strings.NewReader(string(data)), func(u user.User) bool { return u.Name == name })
		if err != nil || len(users) == 0 {
			return o, hint.Errorf(advice, "no user %q", name)
		}
		o.UID, o.GID = uint32(users[0].Uid), uint32(users[0].Gid)
	}
	if group == "" {
		return o, nil
	}
	if id, ok := number(group); ok {
		o.GID = id
		return o, nil
	}
	data, _ := m.ReadFile("/etc/group", longest)
	groups, err := user.ParseGroupFilter(strings.NewReader(string(data)), func(g user.Group) bool { return g.Name == group })
	if err != nil || len(groups) == 0 {
		return o, hint.Errorf(advice, "no group %q", group)
	}
	o.GID = uint32(groups[0].Gid)
	return o, nil
}

// copyingStep is one COPY or ADD in a stage.
type copyingStep struct {
	*buildCopy
	m     *layers.Making
	c     *layers.Copier
	owner layers.Owned
	look  layers.Look // of the directories that are made on the way
}

func (s *stageRun) copyStep(ctx context.Context, store *layers.Store, m *layers.Making, job *buildJob, owner layers.Owned) (_ *relinked, err error) {
	k := &copyingStep{buildCopy: job.Copy, m: m, owner: owner}
	what := layers.Copying{From: []string{k.Dir}, Host: true, Only: k.Only}
	if k.Dir == "" {
		what.From, what.Host = nil, false
		for _, key := range k.From {
			what.From = append(what.From, store.Dir(key))
		}
	}
	if !k.Keep || k.Chown != "" {
		what.Owner = &k.owner
	}
	if what.Chmod, err = parseChmod(k.Chmod); err != nil {
		return nil, err
	}
	if k.Earlier != "" {
		what.Earlier = store.Dir(k.Earlier)
		what.Same = func(name string) bool {
			_, changed := slices.BinarySearch(k.Changed, name)
			return !changed
		}
	}
	k.look = layers.Look{Mode: 0o755, UID: k.owner.UID, GID: k.owner.GID, Time: job.Now}
	if k.Time != nil {
		what.Time, k.look.Time = *k.Time, *k.Time
	}
	exclude, err := newExcluder(k.Spec.Exclude)
	if err != nil {
		return nil, err
	}
	var skip func(string) bool // of the source that is copied now
	if len(k.Spec.Exclude) > 0 {
		what.Skip = func(name string) bool { return skip != nil && skip(name) }
	}
	if k.c, err = m.Copier(ctx, what); err != nil {
		return nil, err
	}
	defer k.c.Close()
	if k.Dir == "" {
		if k.Items, exclude, err = expand(k.c, k.Spec); err != nil {
			return nil, err
		}
	}
	if len(k.Items) == 0 && k.ToDir { // all is excluded
		spot, err := k.destDir()
		if err != nil {
			return nil, err
		}
		return nil, spot.Close()
	}
	for _, item := range k.Items {
		skip = exclude.in(item)
		if err := k.item(ctx, item); err != nil {
			return nil, err
		}
		// What two of them have in common must not meet.
		if err := k.c.Wait(); err != nil {
			return nil, err
		}
	}
	if k.Earlier == "" {
		return nil, nil
	}
	linked, copied := k.c.Taken()
	return &relinked{linked, copied}, nil
}

// destDir makes the destination where it is a directory.
func (k *copyingStep) destDir() (*layers.Spot, error) {
	way, _, err := k.m.Real(k.Dest)
	if err != nil {
		return nil, err
	}
	return k.m.MkdirAll(way, k.look)
}

// item copies one source.
func (k *copyingStep) item(ctx context.Context, item copyItem) error {
	if k.Parents {
		return k.withParents(item)
	}
	way, kind, err := k.m.Real(k.Dest)
	if err != nil {
		return err
	}
	if item.Dir {
		if kind == layers.OtherFile {
			return fmt.Errorf("%s: %w", k.Dest, layers.ErrNotDirectory)
		}
		spot, err := k.m.MkdirAll(way, k.look)
		if err != nil {
			return err
		}
		return k.c.Contents(item.From, spot)
	}
	if k.Unpack {
		if done, err := k.unpack(ctx, item, way); done || err != nil {
			return err
		}
	}
	name := item.Name
	if !k.ToDir && kind != layers.Directory {
		way, name = path.Split(way)
		way = path.Clean(way)
	}
	spot, err := k.m.MkdirAll(way, k.look)
	if err != nil {
		return err
	}
	err = k.c.Entry(item.From, spot, name)
	return errors.Join(err, spot.Close())
}

// withParents copies a source with the directories that it is in.
func (k *copyingStep) withParents(item copyItem) error {
	spot, err := k.destDir()
	if err != nil {
		return err
	}
	above := item.Above
	if item.Dir {
		above = append(above, item.From)
	}
	for n, dir := range above {
		name := path.Base(dir)
		if n == len(item.Above) {
			name = item.Name // From is what a link of this name leads to
		}
		next, err := k.c.Dressed(dir, spot, name)
		if err = errors.Join(err, spot.Close()); err != nil {
			return err
		}
		spot = next
	}
	if item.Dir {
		return k.c.Contents(item.From, spot)
	}
	err = k.c.Entry(item.From, spot, item.Name)
	return errors.Join(err, spot.Close())
}

// tidy removes the mount points that a step's mounts needed, where they are
// empty and the layers below have none, writes down the owners of what the
// command changed, and sets times that are after the epoch back to it.
func (s *stageRun) tidy(ctx context.Context, job *buildJob, lowers []string) error {
	top := filepath.Join(job.Staging, "fs")
	for _, target := range job.Paths {
		if err := layers.RemoveStub(top, lowers, target); err != nil {
			return err
		}
	}
	if !job.Owned {
		if err := (layers.View{Upper: top, Lowers: lowers, IDs: s.req.IDs}).Inherit(ctx); err != nil {
			return err
		}
	}
	if job.Epoch == nil {
		return nil
	}
	return clampTimes(top, *job.Epoch)
}

// unpack is ADD of a tar archive: what is in it comes into the directory dest.
// It tells whether the source is one.
func (k *copyingStep) unpack(ctx context.Context, item copyItem, dest string) (bool, error) {
	f, err := k.c.Open(item.From)
	if err != nil {
		return false, nil // no file: it is copied, or refused, as it is
	}
	defer f.Close()
	stream, err := openArchive(f)
	if err != nil || stream == nil {
		return false, err
	}
	defer stream.Close()
	var owner *layers.Owned
	if k.Chown != "" {
		owner = &k.owner
	}
	if err := k.m.Unpack(ctx, stream, dest, k.look, owner); err != nil {
		return true, fmt.Errorf("%s: %w", item.From, err)
	}
	return true, nil
}

// openArchive gives the tar stream of a file that is one, packed or not; nil
// for any other.
func openArchive(f *os.File) (io.ReadCloser, error) {
	isTar, err := layers.IsArchive(f)
	if err != nil || !isTar {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return layers.OpenArchive(f)
}
