package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"nook/containers"
	"nook/containers/events"
	"nook/images"
	"nook/internal/hint"
)

func layersDir(root string) string     { return filepath.Join(root, "layers") }
func containersDir(root string) string { return filepath.Join(root, "containers") }

// LoadOptions says what Load reads.
type LoadOptions struct {
	Path     string    // an archive or an OCI layout's directory; "": Input
	Input    io.Reader // an archive
	Platform string    // os/arch[/variant]; "": this host's
}

// Load brings the images of an archive into the store and unpacks them.
func (e *Engine) Load(ctx context.Context, o LoadOptions) ([]images.Image, error) {
	pins := e.pins(ctx)
	defer pins.release()
	loaded, err := e.images.Load(ctx, images.LoadOptions{
		Path: o.Path, Input: o.Input, Platform: o.Platform,
		Progress: e.progress(), Unpack: pins.unpack,
	})
	for _, img := range loaded {
		e.imageEvent("load", img.ID, img.ID)
	}
	return loaded, err
}

// ImportOptions says what Import reads and makes.
type ImportOptions struct {
	Path    string // a tar of a root file system; "": Input
	Input   io.Reader
	Ref     string   // the image's name
	Message string   // for the history
	Changes []string // Dockerfile instructions about the config
}

// Import makes an image of one layer from a tar of a root file system.
func (e *Engine) Import(ctx context.Context, o ImportOptions) (images.Image, error) {
	config, err := applyChanges(o.Changes)
	if err != nil {
		return images.Image{}, err
	}
	pins := e.pins(ctx)
	defer pins.release()
	img, err := e.images.Import(ctx, images.ImportOptions{
		Path: o.Path, Input: o.Input, Name: o.Ref, Message: o.Message, Config: config,
		Progress: e.progress(), Unpack: pins.unpack,
	})
	if err == nil {
		e.imageEvent("import", img.ID, first(o.Ref, img.ID))
	}
	return img, err
}

// progress adapts our Progress to the store's; nil when nobody listens.
func (e *Engine) progress() images.Progress {
	if e.opts.Progress == nil {
		return nil
	}
	return func(label string, total int64) (func(int64), func()) {
		bar := e.opts.Progress.Begin(label, total)
		return bar.Add, bar.End
	}
}

// Images lists the images of the store.
func (e *Engine) Images(ctx context.Context) ([]images.Image, error) {
	return e.images.List(ctx)
}

// InspectImage gives what docker inspect shows of an image.
func (e *Engine) InspectImage(ctx context.Context, name string) (any, error) {
	img, err := e.resolve(ctx, name)
	if err != nil {
		return nil, err
	}
	return e.images.Inspect(img)
}

// Tag gives an image one more name.
func (e *Engine) Tag(ctx context.Context, src, dst string) error {
	if err := e.ensureHello(ctx, src); err != nil {
		return err
	}
	if err := e.images.Tag(ctx, src, dst); err != nil {
		return e.noRoom(err)
	}
	if img, err := e.images.Resolve(dst); err == nil {
		e.imageEvent("tag", img.ID, images.FamiliarName(dst))
	}
	return nil
}

// imageEvent is event for an image.
func (e *Engine) imageEvent(action, id, name string) {
	_ = events.Append(e.root, events.Image(action, id, name))
}

// RemoveImage removes a name of an image, and the image with its last one. It
// returns what docker rmi prints.
func (e *Engine) RemoveImage(ctx context.Context, name string, force bool) ([]string, error) {
	img, _ := e.images.Resolve(name) // for the event; Remove says what is wrong
	removal, err := e.images.Remove(ctx, name, images.RemoveOptions{Force: force, InUse: e.inUse, Running: e.runningOn})
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, n := range removal.Untagged {
		lines = append(lines, "Untagged: "+images.FamiliarName(n))
		e.imageEvent("untag", img.ID, images.FamiliarName(n))
	}
	for _, id := range removal.Deleted {
		lines = append(lines, "Deleted: "+id)
		e.imageEvent("delete", id, id)
	}
	if len(removal.DiffIDs) > 0 {
		_, err = e.collect(ctx)
	}
	return lines, err
}

// inUse names the containers of an image.
func (e *Engine) inUse(img images.Image) []string {
	var names []string
	_ = e.eachContainer(func(_ containers.Container, cfg *containers.Config) {
		if cfg.ImageID == img.ID {
			names = append(names, cfg.Name)
		}
	})
	return names
}

func (e *Engine) eachContainer(visit func(containers.Container, *containers.Config)) error {
	list, err := e.containers.List()
	if err != nil {
		return err
	}
	for _, ct := range list {
		cfg, err := ct.Config()
		if errors.Is(err, containers.ErrVersion) {
			return err
		}
		if err == nil { // one that is being removed is none
			visit(ct, cfg)
		}
	}
	return nil
}

// unpack unpacks the layers of an image in a stage.
func (e *Engine) unpack(ctx context.Context, img images.Image, list []images.Layer) error {
	return e.unpackFrom(ctx, img, list, nil)
}

// unpackFrom is unpack of layers that still arrive, when there is a feed.
func (e *Engine) unpackFrom(ctx context.Context, img images.Image, list []images.Layer, feed <-chan arrived) error {
	name := images.ShortID(img.ID)
	if len(img.Names) > 0 {
		name = images.FamiliarName(img.Names[0])
	}
	req := request{}
	var total int64
	number := map[string]int{}
	for i, l := range list {
		source := unpackSource{Path: l.BlobPath, DiffID: l.DiffID, Size: l.Size, Blob: l.Digest, From: l.From, Known: l.Known, Own: l.Own}
		if feed != nil {
			source.Arrives = l.Digest
		}
		req.Unpack = append(req.Unpack, source)
		total += l.Size
		number[l.DiffID] = i
	}
	if len(req.Unpack) == 0 {
		return hint.Errorf("an image needs one layer at least", "image %s has no layers", name)
	}
	var bar Bar
	if e.opts.Progress != nil {
		bar = e.opts.Progress.Begin("unpack "+name, total)
		defer bar.End()
	}
	err := e.stageWith(ctx, req, outfitted{feed: feed}, func(ev event) {
		if bar != nil {
			bar.Add(ev.Add)
		}
		if ev.Note != "" {
			e.note("%s: %s", name, ev.Note)
		}
	})
	if err != nil {
		err = fmt.Errorf("unpack %s: %w", name, err)
		if hint.Of(err) == "" && ctx.Err() == nil {
			err = hint.Wrap(err, "nothing of the image was kept; is the archive whole, and from someone you trust?")
		}
		return err
	}
	return nil
}

// resolve finds an image, and makes the built-in one when it is asked for.
func (e *Engine) resolve(ctx context.Context, name string) (images.Image, error) {
	if err := e.ensureHello(ctx, name); err != nil {
		return images.Image{}, err
	}
	return e.images.Resolve(name)
}
