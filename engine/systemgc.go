package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"nook/containers"
	"nook/containers/pause"
	"nook/images"
	"nook/images/layers"
)

// Unpacked layers come before what refers to them, an image's entry or a
// container's record. Until that is written they are pinned, or in use: see
// layers.Pin and layers.Use. What a collection keeps is found out by the stage
// that collects, once it has the lock.

// pins are of images that are on their way into the store.
type pins struct {
	engine *Engine
	held   []func()
}

// pins begins to flush what came before, too, and release waits for that.
func (e *Engine) pins(ctx context.Context) *pins {
	return &pins{engine: e, held: []func(){e.flushOld(ctx)}}
}

func (p *pins) release() {
	for _, release := range p.held {
		release()
	}
}

// unpack is an images.UnpackFunc.
func (p *pins) unpack(ctx context.Context, img images.Image, list []images.Layer) error {
	return p.pinned(ctx, list, func() error { return p.engine.unpack(ctx, img, list) })
}

// unpackArriving is an images.ArrivingFunc.
func (p *pins) unpackArriving(ctx context.Context, img images.Image, list []images.Layer, arrivals <-chan images.Arrival) error {
	return p.pinned(ctx, list, func() error { return p.engine.unpackArriving(ctx, img, list, arrivals) })
}

// pinned pins the layers, has them unpacked, and counts them. An image of a
// config alone, which FROM scratch makes, has none.
func (p *pins) pinned(ctx context.Context, list []images.Layer, unpack func() error) error {
	if len(list) == 0 {
		return nil
	}
	ids := diffIDs(list)
	release, err := p.engine.layers.Pin(ctx, ids)
	if err != nil {
		return p.engine.noRoom(err)
	}
	p.held = append(p.held, release)
	if err := unpack(); err != nil {
		return err
	}
	return p.engine.countLayers(list, ids)
}

func diffIDs(list []images.Layer) []string {
	ids := make([]string, len(list))
	for i, l := range list {
		ids[i] = l.DiffID
	}
	return ids
}

// countLayers sets the sizes of layers that are unpacked.
func (e *Engine) countLayers(list []images.Layer, ids []string) error {
	sizes, err := e.layers.Sizes(ids)
	if err != nil {
		return err
	}
	for i := range list {
		list[i].UnpackedSize = sizes[i]
	}
	return nil
}

// collect removes the unpacked layers that no image and no container has, and
// what the dead left half made. It tells how many bytes that were.
func (e *Engine) collect(ctx context.Context, discard ...string) (freed int64, err error) {
	defer e.flushOld(ctx)()
	_ = e.images.Forget(ctx)
	err = e.stage(ctx, request{Collect: true, Discard: discard}, func(ev event) {
		e.tellNotes(ev)
		for _, n := range ev.Sizes {
			freed += n
		}
	})
	if err != nil {
		return freed, fmt.Errorf("collect layers: %w", err)
	}
	return freed, nil
}

// collect is the stage's part.
func (s *stageRun) collect(ctx context.Context, store *layers.Store) error {
	e := &Engine{root: s.req.Root, layers: store, containers: containers.Open(containersDir(s.req.Root))}
	var err error
	if e.images, err = images.Open(filepath.Join(e.root, "images")); err != nil {
		return err
	}
	done, err := store.Collect(ctx, func() (layers.Keep, error) {
		keep, err := e.wanted(ctx)
		if err == nil && keep.Unread != nil {
			if len(s.req.Discard) > 0 {
				return keep, keep.Unread
			}
			s.tell(event{Note: fmt.Sprintf("no unpacked layers were removed, as any may be those of an image that can't be read: %v", keep.Unread)})
		}
		for _, key := range s.req.Discard {
			delete(keep.Keys, key)
		}
		return keep, err
	})
	if err != nil {
		return err
	}
	s.tell(event{Sizes: []int64{done.Bytes}})
	if err := e.containers.Sweep(); err != nil {
		return err
	}
	pause.Sweep()
	e.sweepCache()
	if err := e.sweepBuilds(ctx); err != nil {
		return err
	}
	return store.Sweep()
}

// wanted are the layers of all images and containers. An image that can't be
// read is Keep.Unread.
func (e *Engine) wanted(ctx context.Context) (layers.Keep, error) {
	keep := layers.Keep{Keys: map[string]bool{}, Chains: map[string]bool{}}
	records, err := e.records()
	if err != nil {
		return keep, err
	}
	for _, cfg := range records {
		for _, key := range cfg.Layers {
			keep.Keys[key] = true
		}
	}
	list, err := e.images.List(ctx)
	if err != nil {
		return keep, err
	}
	for _, img := range list {
		cfg, err := e.images.Config(img)
		if err == nil {
			err = e.layers.KeepChain(keep, cfg.RootFS.DiffIDs)
		}
		if err != nil {
			keep.Unread = errors.Join(keep.Unread, fmt.Errorf("image %s: %w", imageLabel(img), err))
		}
	}
	return keep, e.keepBuilds(keep)
}

// records reads those of all containers. One that is damaged is an error: it may
// need any layer.
func (e *Engine) records() ([]*containers.Config, error) {
	list, err := e.containers.List()
	if err != nil {
		return nil, err
	}
	var records []*containers.Config
	for _, ct := range list {
		cfg, err := ct.Config()
		if err == nil {
			records = append(records, cfg)
			continue
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // it is being removed
		}
		if short, _ := ct.CutShort(); short {
			continue // of one that was killed before it was made
		}
		return nil, err
	}
	return records, nil
}

// create's part: what chain finds stays until the container's record is there.
func (e *Engine) useLayers(ctx context.Context) (done func(), err error) {
	done, err = e.layers.Use(ctx)
	if err != nil {
		return nil, e.noRoom(err)
	}
	return done, nil
}
