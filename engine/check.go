package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/images"
	"nook/images/layers"
	"nook/internal/finding"
	"nook/internal/hint"
)

// CheckOptions say what Check does about what it finds.
type CheckOptions struct {
	// Repair removes garbage, fetches what of an image is lost or wrong from
	// where it was pulled, removes the image where that doesn't have it, and
	// unpacks damaged layers again. Containers are never removed.
	Repair bool
	// Quick reads no layers: sizes and references are looked at alone.
	Quick bool
}

// Checked is what Check went through and found.
type Checked struct {
	Images, Blobs, Layers, Containers, Volumes int
	Findings                                   []finding.Finding
}

// Damaged tells whether something is wrong that wasn't mended. Garbage isn't:
// it only takes room.
func (c *Checked) Damaged() bool {
	return slices.ContainsFunc(c.Findings, func(f finding.Finding) bool { return !f.Garbage })
}

// Check proves that the data root is what it says: blobs by their digests,
// images and containers by what they refer to, unpacked layers by unpacking
// their blobs again beside them; and finds what nothing refers to. Others may
// work meanwhile.
func (e *Engine) Check(ctx context.Context, o CheckOptions) (*Checked, error) {
	out := &Checked{}
	defer e.flushOld(ctx)()
	from, closeAll := sources()
	defer closeAll()
	store, err := e.images.Check(ctx, images.CheckOptions{Repair: o.Repair, Quick: o.Quick, Progress: e.progress(), From: from})
	out.Images, out.Blobs, out.Findings = store.Images, store.Blobs, store.Findings
	if err != nil {
		return out, err
	}
	unpacked, err := e.layers.Check(ctx, func() (layers.Keep, error) { return e.wanted(ctx) }, o.Repair)
	if err != nil {
		return out, err
	}
	out.Layers = unpacked.Layers
	if !o.Quick {
		wrong, err := e.proveLayers(ctx, store.Bad, &unpacked)
		out.Findings = append(out.Findings, wrong...)
		if errors.Is(err, unix.EROFS) && !o.Repair {
			e.note("unpacked layers were not proven: that takes room beside them, and their file system is read-only")
			err = nil
		}
		if err != nil {
			return out, hint.Wrap(err, first(hint.Of(err), "nook system check --quick looks without reading layers"))
		}
	}
	mine, err := e.checkContainers()
	if err != nil {
		return out, err
	}
	steps, err := e.checkBuilds(ctx, o.Repair)
	out.Findings = append(out.Findings, steps...)
	if err != nil {
		return out, err
	}
	kept, err := e.checkVolumes(ctx)
	if err != nil {
		return out, err
	}
	out.Containers, out.Volumes = mine.count, kept.count
	if o.Repair {
		err = errors.Join(e.repair(ctx, out, unpacked, mine), e.repairVolumes(ctx, &kept))
	} else {
		// Without its images nobody knows who else has a layer; that is told of.
		if last, err := e.lastOfTheirKind(ctx, mine); err == nil {
			tellLast(unpacked.Findings, last)
		}
		out.Findings = append(append(out.Findings, unpacked.Findings...), mine.findings...)
	}
	out.Findings = append(out.Findings, kept.findings...)
	return out, err
}

// repair does what needs a stage: remove garbage and damaged layers, and unpack
// those again.
func (e *Engine) repair(ctx context.Context, out *Checked, unpacked layers.Checked, mine checkedContainers) error {
	mine.fixNames(e)
	last, err := e.lastOfTheirKind(ctx, mine)
	if err != nil {
		return err
	}
	tellLast(unpacked.Findings, last)
	discard := slices.DeleteFunc(unpacked.Broken, func(key string) bool { return mine.running[key] || len(last[key]) > 0 })
	if unpacked.Garbage || len(discard) > 0 || mine.garbage {
		if _, err := e.List(ctx, ListOptions{All: true}); err != nil { // which sweeps
			return err
		}
		if _, err := e.collect(ctx, discard...); err != nil {
			return err
		}
	}
	again, err := e.unpackLost(ctx, len(unpacked.Findings) > 0 || len(mine.lost) > 0)
	if err != nil {
		return err
	}
	for i := range unpacked.Findings {
		f := &unpacked.Findings[i]
		key := strings.TrimPrefix(f.Object, "layer ")
		switch {
		case f.Mended != "":
		case mine.running[key]:
			f.Advice = "stop the containers that use it, and repair again"
			continue
		case len(last[key]) > 0 && !f.Garbage:
			continue // as it is
		case f.Garbage:
			f.Mended = "removed"
		case len(e.layers.Missing([]string{key})) == 0:
			f.Mended = "unpacked again"
		default:
			f.Mended = "removed"
		}
		f.Advice = ""
	}
	for i := range mine.findings {
		f := &mine.findings[i]
		if f.Garbage {
			f.Mended, f.Advice = "removed", ""
		} else if keys := mine.lost[f.Object]; len(keys) > 0 && len(e.layers.Missing(keys)) == 0 {
			f.Mended, f.Advice = "unpacked again", ""
		}
	}
	out.Findings = append(append(append(out.Findings, unpacked.Findings...), mine.findings...), again...)
	return nil
}

// tellLast tells whose the damaged layers are that a repair leaves as they are.
func tellLast(findings []finding.Finding, last map[string][]string) {
	for i := range findings {
		f := &findings[i]
		if users := last[strings.TrimPrefix(f.Object, "layer ")]; len(users) > 0 && !f.Garbage {
			slices.Sort(users)
			f.Fact += "; no image has it any more, only " + strings.Join(users, ", ")
			f.Advice = "--repair leaves it as it is: load or pull its image again; or save what was written by nook cp, and nook rm the container"
		}
	}
}

// lastOfTheirKind are the layers that containers need and no image has any more,
// each with these containers: removed, they would be lost for good.
func (e *Engine) lastOfTheirKind(ctx context.Context, mine checkedContainers) (map[string][]string, error) {
	last := map[string][]string{}
	for object, keys := range mine.lost {
		for _, key := range keys {
			last[key] = append(last[key], object)
		}
	}
	if len(last) == 0 {
		return last, nil
	}
	list, err := e.images.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, img := range list {
		cfg, err := e.images.Config(img)
		if err != nil {
			return nil, err
		}
		keys, err := layers.Keys(cfg.RootFS.DiffIDs)
		if err != nil {
			return nil, err
		}
		for _, key := range keys {
			delete(last, key)
		}
	}
	return last, nil
}

// unpackLost unpacks the images that aren't, once something was found.
func (e *Engine) unpackLost(ctx context.Context, found bool) ([]finding.Finding, error) {
	if !found {
		return nil, nil
	}
	list, err := e.images.List(ctx)
	if err != nil {
		return nil, err
	}
	var failed []finding.Finding
	for _, img := range list {
		cfg, err := e.images.Config(img)
		if err != nil {
			return nil, err
		}
		if _, err := e.layers.Chain(cfg.RootFS.DiffIDs); !errors.Is(err, layers.ErrNotUnpacked) {
			continue
		}
		list, err := e.images.Layers(img)
		if err == nil {
			err = e.unpack(ctx, img, list)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			failed = append(failed, finding.Finding{Object: "image " + imageLabel(img), Fact: err.Error(), Advice: "load or pull it again"})
		}
	}
	return failed, nil
}

func imageLabel(img images.Image) string {
	if len(img.Names) == 0 {
		return images.ShortID(img.ID)
	}
	return images.FamiliarName(img.Names[0])
}

// checkedContainers is what the records of containers say.
type checkedContainers struct {
	count    int
	findings []finding.Finding
	garbage  bool
	lost     map[string][]string // by a finding's object: layers that are lost
	running  map[string]bool     // layers of containers that run
	nameless []*containers.Config
}

func (c *checkedContainers) add(object, fact, advice string) {
	c.findings = append(c.findings, finding.Finding{Object: object, Fact: fact, Advice: advice})
}

func (c *checkedContainers) left(object string) {
	c.garbage = true
	c.findings = append(c.findings, finding.Finding{
		Object: object, Fact: "was left by a command that was killed", Garbage: true, Advice: "nook system check --repair",
	})
}

func (e *Engine) checkContainers() (checkedContainers, error) {
	c := checkedContainers{lost: map[string][]string{}, running: map[string]bool{}}
	entries, err := os.ReadDir(containersDir(e.root))
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("check containers: %w", err)
	}
	for _, entry := range entries {
		if entry.IsDir() && len(entry.Name()) == len(containers.NewID()) {
			e.checkContainer(&c, e.containers.At(entry.Name()))
		}
	}
	e.checkNames(&c)
	return c, nil
}

func (e *Engine) checkContainer(c *checkedContainers, ct containers.Container) {
	object := "container " + ct.ID[:12]
	cfg, err := ct.Config()
	if errors.Is(err, fs.ErrNotExist) {
		// It is being made, removed, or nobody's.
		if left, lockErr := ct.Unowned(); lockErr == nil && left {
			c.left("directory containers/" + ct.ID)
		}
		return
	}
	if err != nil {
		short, held := ct.CutShort()
		switch {
		case short && !held:
			c.left("directory containers/" + ct.ID)
		case !short:
			c.count++
			c.add(object, err.Error(), "what it wrote lies in "+ct.Path+"; once that is saved, remove the directory")
		}
		return
	}
	c.count++
	if cfg.Name != "" {
		object = "container " + cfg.Name
	}
	state, err := ct.State()
	if err != nil {
		c.add(object, err.Error(), "nook rm -f "+cfg.Name)
	} else if ct.Abandoned(cfg.Remove, state) {
		c.left(object)
		return
	}
	if cfg.ID != ct.ID {
		c.add(object, "its record is that of "+cfg.ID, "remove "+ct.Path)
		return
	}
	if state.Status.Live() {
		for _, key := range cfg.Layers {
			c.running[key] = true
		}
	}
	if missing := e.layers.Missing(cfg.Layers); len(missing) > 0 {
		c.add(object, "needs layers that are lost or damaged: "+strings.Join(missing, ", "), "load or pull its image again, "+cfg.Image)
		c.lost[object] = cfg.Layers
	}
	if !cfg.Remove && len(cfg.Secrets) > 0 {
		if _, err := ct.Secrets(cfg.Secrets); errors.Is(err, containers.ErrSecretsLost) {
			c.add(object, containers.ErrSecretsLost.Error(), "it can't be started again: save what it wrote, and create it anew")
		}
	}
	e.checkMounts(c, object, ct, cfg, state.Status.Live())
	e.checkFiles(c, object, ct)
	holder, err := os.Readlink(filepath.Join(containersDir(e.root), "names", cfg.Name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.add(object, "its name leads nowhere", "nook system check --repair")
		c.nameless = append(c.nameless, cfg)
	case err != nil:
		c.add(object, "its name: "+err.Error(), "nook rename "+ct.ID[:12]+" NAME")
	case filepath.Base(holder) != ct.ID:
		c.add(object, "its name is that of "+filepath.Base(holder), "nook rename "+ct.ID[:12]+" NAME")
	}
}

// checkFiles looks for the writable layer.
func (e *Engine) checkFiles(c *checkedContainers, object string, ct containers.Container) {
	for _, name := range []string{"upper", "rootfs"} {
		if info, err := os.Lstat(filepath.Join(ct.Path, name)); err == nil && info.IsDir() {
			return
		}
	}
	if _, err := ct.Config(); err != nil {
		return // it went meanwhile
	}
	c.add(object, "what it wrote is lost", "nook rm it")
}

// checkNames tells of names that lead to no container.
func (e *Engine) checkNames(c *checkedContainers) {
	dir := filepath.Join(containersDir(e.root), "names")
	entries, _ := os.ReadDir(dir) // without it nobody has a name
	for _, entry := range entries {
		if _, err := os.Stat(filepath.Join(dir, entry.Name())); errors.Is(err, fs.ErrNotExist) {
			c.left("name " + entry.Name())
		}
	}
}

// fixNames gives containers back the names that their records say.
func (c *checkedContainers) fixNames(e *Engine) {
	for _, cfg := range c.nameless {
		link := filepath.Join(containersDir(e.root), "names", cfg.Name)
		if os.Symlink(filepath.Join("..", cfg.ID), link) != nil {
			continue
		}
		for i := range c.findings {
			f := &c.findings[i]
			if f.Object == "container "+cfg.Name && f.Fact == "its name leads nowhere" {
				f.Mended, f.Advice = "given back", ""
			}
		}
	}
}
