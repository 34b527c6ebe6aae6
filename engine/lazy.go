package engine

import (
	"context"
	"errors"
	"time"

	"nook/containers"
	"nook/images"
)

// Images come in without waiting for the disk: see images/lazy.go and
// images/layers/lazy.go. Commands that change the stores flush what is left of
// earlier ones, beside their own work.

// settleAge is how old that is by then. Most of it the kernel has written after
// half a minute (vm.dirty_expire_centisecs); and a series of loads waits for
// nothing.
const settleAge = 2 * time.Minute

// silence is how long something unforeseen may take before it is told: what a
// power cut took is proven, unpacked and flushed, and others may be at it.
const silence = time.Second

// late does something once a time has passed. stop calls it off, or waits for
// it.
func late(d time.Duration, do func()) (stop func()) {
	done := make(chan struct{})
	t := time.AfterFunc(d, func() { do(); close(done) })
	return func() {
		if !t.Stop() {
			<-done
		}
	}
}

// flushOld begins that flush. An error isn't the caller's: what isn't flushed
// stays marked.
func (e *Engine) flushOld(ctx context.Context) (wait func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = e.images.Settle(ctx, settleAge)
		_ = e.layers.Settle(ctx, settleAge)
	}()
	return func() { <-done }
}

// readyLayers unpacks the layers of a container that was made before the machine
// went down, where the disk may not have them.
func (e *Engine) readyLayers(ctx context.Context, cfg *containers.Config) error {
	suspects, err := e.layers.Suspects(cfg.Layers)
	if err != nil || len(suspects) == 0 {
		return err
	}
	img, err := e.images.Resolve(cfg.ImageID)
	if errors.Is(err, images.ErrNotFound) {
		e.note("%s: its image was removed, and nothing else tells whether its layers are whole: the machine went down before the disk had them", cfg.Name)
		return nil
	}
	if err != nil {
		return err
	}
	image, err := e.images.Config(img)
	if err != nil {
		return err
	}
	_, err = e.chain(ctx, img, image)
	return err
}
