package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/images"
	"nook/internal/hint"
)

// ListOptions say which containers List gives.
type ListOptions struct {
	// All: also those that don't run.
	All bool
	// Last is how many of the youngest, running or not; 0: no limit.
	Last int
	// Size: their sizes too, for which their files are counted.
	Size bool
	// Filters are docker's: id, name, label, status, exited, health, ancestor,
	// before, since, volume, network. Of the values of one any has to match,
	// but all of label's.
	Filters map[string][]string
}

// Summary is what a list shows of a container.
type Summary struct {
	ID, Name string
	// Image is the image as it was typed; ImageID, its config's digest, once that
	// name is nobody's or another's.
	Image, ImageID string
	Command        []string
	Created        time.Time
	Labels         map[string]string
	Mounts         []containers.Mount
	Network        string
	State          containers.State
	// Size is what the writable layer's files hold, RootSize that and the
	// image's, in bytes. Without ListOptions.Size both are 0.
	Size, RootSize int64

	rootfs string
}

// List gives the containers, the youngest first. A record that can't be read
// is told to Options.Note and left out.
//
// What killed commands left behind is put in order on the way: see Settle and
// Dir.Sweep.
func (e *Engine) List(ctx context.Context, o ListOptions) ([]Summary, error) {
	f, err := e.filter(o)
	if err != nil {
		return nil, err
	}
	read, err := e.readRecords()
	if err != nil {
		return nil, err
	}
	var abandoned []string
	var out []record
	for _, r := range read {
		switch {
		case r.abandoned:
			abandoned = append(abandoned, r.ID)
		case r.ID != "":
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b record) int {
		return cmp.Or(b.Created.Compare(a.Created), strings.Compare(a.ID, b.ID))
	})
	if len(abandoned) > 0 {
		// Who lists containers isn't stopped by those that are none any more.
		_ = e.stage(ctx, request{Sweep: abandoned}, nil)
	}
	out = f.apply(out)
	summaries := make([]Summary, len(out))
	for i, r := range out {
		summaries[i] = r.summary()
	}
	e.nameImages(ctx, summaries)
	if o.Size {
		if err := e.addSizes(ctx, summaries); err != nil {
			return nil, err
		}
	}
	return summaries, ctx.Err()
}

// nameImages leaves the containers only those names of images that are still
// their image's, as docker does.
func (e *Engine) nameImages(ctx context.Context, list []Summary) {
	if len(list) == 0 {
		return
	}
	known, err := e.images.List(ctx)
	if err != nil {
		return // a list of containers isn't stopped by that
	}
	ids := map[string]string{}
	for i := range list {
		c := &list[i]
		id, asked := ids[c.Image]
		if !asked {
			if img, err := images.Find(known, c.Image); err == nil {
				id = img.ID
			}
			ids[c.Image] = id
		}
		if id != c.ImageID {
			c.Image = c.ImageID
		}
	}
}

// record is the part of a container's record that a list needs; to read the
// rest, such as the environment, costs as much again.
type record struct {
	Version    int                `json:"version"`
	ID         string             `json:"id"`
	Name       string             `json:"name"`
	Created    time.Time          `json:"created"`
	Image      string             `json:"image"`
	ImageID    string             `json:"imageID"`
	Layers     []string           `json:"layers"`
	Rootfs     string             `json:"rootfs"`
	Entrypoint []string           `json:"entrypoint"`
	Cmd        []string           `json:"cmd"`
	Labels     map[string]string  `json:"labels"`
	Remove     bool               `json:"remove"`
	Network    string             `json:"network"`
	Mounts     []containers.Mount `json:"mounts"`

	state     containers.State
	abandoned bool
}

func (r *record) summary() Summary {
	return Summary{
		ID: r.ID, Name: r.Name, Image: r.Image, ImageID: r.ImageID,
		Command: append(slices.Clone(r.Entrypoint), r.Cmd...), Created: r.Created,
		Labels: r.Labels, Mounts: r.Mounts, Network: r.Network, State: r.state, rootfs: r.Rootfs,
	}
}

// readRecords reads them all, on all processors there are. One that can't be
// read is left empty.
func (e *Engine) readRecords() ([]record, error) {
	dir, err := os.Open(containersDir(e.root))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	defer dir.Close()
	ids, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	const idLength = 64
	ids = slices.DeleteFunc(ids, func(name string) bool { return len(name) != idLength })
	out := make([]record, len(ids))
	var next atomic.Int64
	var notes sync.Mutex
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(ids)) {
		workers.Go(func() {
			r := reader{dir: int(dir.Fd())}
			for i := next.Add(1) - 1; int(i) < len(ids); i = next.Add(1) - 1 {
				var err error
				if out[i], err = e.readRecord(&r, e.containers.At(ids[i])); err != nil {
					notes.Lock()
					e.note("%s", noted(err))
					notes.Unlock()
				}
			}
		})
	}
	workers.Wait()
	return out, nil
}

// reader reads small files with three system calls each: a list is of many,
// and os.ReadFile takes twice as many.
type reader struct {
	dir int
	buf []byte
}

// json reads a file below dir; errors are those of the system.
func (r *reader) json(name string, to any) error {
	fd, err := unix.Openat(r.dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if r.buf == nil {
		r.buf = make([]byte, 16<<10)
	}
	for n := 0; ; {
		got, err := unix.Read(fd, r.buf[n:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n+got < len(r.buf): // of a file, less than asked for is its end
			return json.Unmarshal(r.buf[:n+got], to)
		}
		n += got
		r.buf = append(r.buf, make([]byte, len(r.buf))...)
	}
}

// noted is an error in the one line that a note has.
func noted(err error) string {
	if advice := hint.Of(err); advice != "" {
		return err.Error() + " (" + advice + ")"
	}
	return err.Error()
}

// readRecord gives an empty record for a container that is being removed.
func (e *Engine) readRecord(read *reader, ct containers.Container) (record, error) {
	var r record
	err := read.json(ct.ID+"/config.json", &r)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return record{}, nil
	case err != nil:
		if is, held := ct.CutShort(); is && held {
			return record{}, nil // it is being made
		} else if is {
			return record{ID: ct.ID, abandoned: true}, nil
		}
		return record{}, fmt.Errorf("container %.12s is not listed: read config.json: %w", ct.ID, err)
	case r.Version > containers.ConfigVersion:
		return record{}, hint.Errorf("use the nook that made it", "container %.12s is not listed: %w (version %d)", ct.ID, containers.ErrVersion, r.Version)
	case r.ID != ct.ID:
		return record{}, fmt.Errorf("container %.12s is not listed: its record is of another, %.12s", ct.ID, r.ID)
	}
	// What doesn't run is as it is written; State finds the rest out.
	err = read.json(ct.ID+"/state.json", &r.state)
	if err != nil || r.state.Version > containers.StateVersion || r.state.Status.Live() {
		if r.state, err = ct.State(); err != nil {
			return record{}, hint.Wrap(fmt.Errorf("not listed: %w", err), hint.Of(err))
		}
	}
	if r.Remove && ct.Abandoned(true, r.state) {
		r.abandoned = true
		return r, nil
	}
	if r.state.Lost {
		r.state = e.settleStale(ct)
	}
	return r, nil
}
