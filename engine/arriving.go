package engine

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"sync"

	"nook/images"
	"nook/images/layers"
)

// A layer is unpacked while it is downloaded. The command writes the blob to a
// file and tells the stage how long that is by now, through the stage's socket;
// the stage reads as far as it was told, and waits:
//
//	registry --> command --> .staging/N/M <-- stage --> layers/.staging/…
//	                 `-- {"digest", "size", "whole"} --^
//
// A file has no end where a pipe would be full: a slow disk doesn't hold up the
// download, nor one layer another. End of file is only told of a blob whose
// digest was right, so that nothing is committed that wasn't.

// arrived is what a command tells a stage of a blob.
type arrived struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
	Whole  bool   `json:"whole,omitempty"`
}

// unpackArriving is the images.ArrivingFunc of pulls.
func (e *Engine) unpackArriving(ctx context.Context, img images.Image, list []images.Layer, arrivals <-chan images.Arrival) error {
	sources := make([]layers.Source, len(list))
	for i, l := range list {
		sources[i] = layers.Source{DiffID: l.DiffID, Blob: l.Digest, Known: l.Known}
	}
	if len(list) > 0 && e.layers.Unpacked(sources) {
		return nil
	}
	feed := make(chan arrived)
	go func() {
		defer close(feed)
		for a := range arrivals {
			select {
			case feed <- arrived(a):
			case <-ctx.Done():
				return
			}
		}
	}()
	err := e.unpackFrom(ctx, img, list, feed)
	go func() {
		for range feed { // a stage that ended early heard no more
			continue
		}
	}()
	return err
}

// hear passes on what a command tells until it goes away.
func (s *stageRun) hear(dec *json.Decoder) {
	for {
		var a arrived
		if dec.Decode(&a) != nil {
			return
		}
		if blob := s.arriving[a.Digest]; blob != nil {
			blob.grow(a)
		}
	}
}

// expect prepares for the blobs that arrive while they are unpacked.
func (s *stageRun) expect() {
	s.arriving = make(map[string]*arriving)
	for _, u := range s.req.Unpack {
		if u.Arrives != "" && s.arriving[u.Arrives] == nil {
			s.arriving[u.Arrives] = &arriving{path: u.Path, more: make(chan struct{})}
		}
	}
}

// source is a layer to unpack, here or on its way.
func (s *stageRun) source(ctx context.Context, u unpackSource) layers.Source {
	src := layers.Source{DiffID: u.DiffID, Path: u.Path, Blob: u.Blob, From: u.From, Known: u.Known, Own: u.Own}
	if blob := s.arriving[u.Arrives]; blob != nil {
		src.Open = func() (io.ReadCloser, error) { return &arrivingReader{ctx: ctx, blob: blob}, nil }
	}
	return src
}

// arriving is a file that grows.
type arriving struct {
	path string

	mu    sync.Mutex
	size  int64
	whole bool
	more  chan struct{} // closed, and replaced, at each change
}

func (b *arriving) grow(a arrived) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.size, b.whole = a.Size, a.Whole
	close(b.more)
	b.more = make(chan struct{})
}

func (b *arriving) state() (size int64, whole bool, more <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.size, b.whole, b.more
}

// arrivingReader reads it from its beginning, and waits where it isn't there
// yet.
type arrivingReader struct {
	ctx  context.Context //nolint:containedctx // it stands for an open file, which ends with the job
	blob *arriving
	file *os.File // opened when something is there
	at   int64
}

func (r *arrivingReader) Read(p []byte) (int, error) {
	for {
		size, whole, more := r.blob.state()
		switch {
		case r.at < size:
			return r.readUpTo(p, size)
		case whole:
			return 0, io.EOF
		}
		select {
		case <-more:
		case <-r.ctx.Done():
			return 0, r.ctx.Err()
		}
	}
}

func (r *arrivingReader) readUpTo(p []byte, size int64) (int, error) {
	if r.file == nil {
		f, err := os.Open(r.blob.path)
		if err != nil {
			return 0, err
		}
		r.file = f
	}
	n, err := r.file.ReadAt(p[:min(int64(len(p)), size-r.at)], r.at)
	r.at += int64(n)
	if n > 0 {
		err = nil
	}
	if err == io.EOF { // ReadAt's own; a file that was told longer than it is
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (r *arrivingReader) Close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}
