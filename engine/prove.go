package engine

import (
	"context"
	"fmt"
	"os"

	"nook/images"
	"nook/images/layers"
	"nook/internal/finding"
)

// proveLayers holds unpacked layers to the blobs that they came from, and blobs
// to the diff ids that the images say: each pair once. bad are the blobs that
// are damaged, and told of. What is wrong with unpacked layers is added to
// theirs, for a repair to unpack them again; what is wrong with images is
// returned.
func (e *Engine) proveLayers(ctx context.Context, bad map[string]bool, unpacked *layers.Checked) ([]finding.Finding, error) {
	list, err := e.images.List(ctx)
	if err != nil {
		return nil, err
	}
	type pair struct{ blob, key string }
	proven := make(map[pair]bool)
	told := make(map[string]bool)
	var found []finding.Finding
	for _, img := range list {
		all, err := e.images.Layers(img)
		if err != nil || len(all) == 0 {
			continue // told of
		}
		ids := diffIDs(all)
		chain, err := e.layers.Chain(ids)
		if err != nil {
			chain.Keys = ids // not unpacked: the blob alone is looked at
		}
		todo := false
		for i := range all {
			p := pair{all[i].Digest, chain.Keys[i]}
			all[i].Known = proven[p] || bad[p.blob] || !hasSize(all[i])
			proven[p] = true
			todo = todo || !all[i].Known
		}
		if !todo {
			continue
		}
		wrong, err := e.prove(ctx, img, all)
		if err != nil {
			return found, err
		}
		for _, w := range wrong {
			switch {
			case w.Key == "":
				found = append(found, finding.Finding{
					Object: "image " + imageLabel(img), Fact: fmt.Sprintf("layer %d: its blob %s: %s", w.Layer+1, all[w.Layer].Digest, w.Fact),
					Advice: "nook rmi it, and load or pull it from someone you trust",
				})
			case !told[w.Key]:
				told[w.Key] = true
				unpacked.Wrong(w.Key, w.Fact)
			}
		}
	}
	return found, nil
}

// hasSize says whether a layer's blob is there and as long as it should be.
func hasSize(l images.Layer) bool {
	info, err := os.Lstat(l.BlobPath)
	return err == nil && info.Size() == l.Size
}

// prove proves the layers of an image in a stage.
func (e *Engine) prove(ctx context.Context, img images.Image, list []images.Layer) (wrong []layers.Wrong, err error) {
	req := request{}
	var total int64
	for _, l := range list {
		req.Prove = append(req.Prove, unpackSource{Path: l.BlobPath, DiffID: l.DiffID, Blob: l.Digest, Known: l.Known})
		if !l.Known {
			total += l.Size
		}
	}
	var bar Bar
	if e.opts.Progress != nil {
		bar = e.opts.Progress.Begin("checking "+imageLabel(img), total)
		defer bar.End()
	}
	err = e.stage(ctx, req, func(ev event) {
		if bar != nil {
			bar.Add(ev.Add)
		}
		wrong = append(wrong, ev.Wrong...)
	})
	if err != nil {
		return nil, fmt.Errorf("check %s: %w", imageLabel(img), err)
	}
	return wrong, nil
}

// prove is the stage's part.
func (s *stageRun) prove(ctx context.Context, store *layers.Store) (event, error) {
	var sources []layers.Source
	for _, u := range s.req.Prove {
		sources = append(sources, s.source(ctx, u))
	}
	wrong, err := store.Prove(ctx, sources, func(_ string, read int64) { s.tell(event{Add: read}) })
	if len(wrong) > 0 {
		s.tell(event{Wrong: wrong})
	}
	return event{}, err
}
