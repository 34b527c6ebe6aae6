package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/internal/hint"
)

// ErrRunning says that a container runs.
var ErrRunning = errors.New("container is running")

// RemoveOptions say what goes with a container.
type RemoveOptions struct {
	// Force ends one that runs first, by SIGKILL.
	Force bool
	// Volumes: those go too that were made for it without a name, and that no
	// other container has.
	Volumes bool
}

// RemoveContainer removes a container with its writable layer. It is found by
// name, id or unique prefix of an id. One that runs is refused (ErrRunning)
// without Force.
func (e *Engine) RemoveContainer(ctx context.Context, nameOrID string, o RemoveOptions) error {
	for _, err := range e.RemoveContainers(ctx, []string{nameOrID}, o) {
		return err
	}
	return nil
}

// A removal needs a stage, whose start takes longer than its work: one serves
// removeBatch containers, each of which is held open meanwhile. So many at once
// are asked to end.
const (
	removeBatch = 64
	removeEnds  = 8
)

// RemoveContainers is RemoveContainer for each of many. It gives each name and
// its error in the order of names; nothing more is begun once the loop over it
// is left.
func (e *Engine) RemoveContainers(ctx context.Context, names []string, o RemoveOptions) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for len(names) > 0 {
			batch := e.findRemovals(names)
			names = names[len(batch):]
			e.removeAll(ctx, batch, o)
			for _, r := range batch {
				if !yield(r.asked, r.err) {
					return
				}
			}
		}
	}
}

// removing is a container on its way out.
type removing struct {
	asked string
	ct    containers.Container
	cfg   *containers.Config
	lock  *containers.Lock
	err   error
	// job says what a stage has left to do; nil: nothing.
	job *removal
}

// findRemovals finds the next few. One that is named twice is of the next
// batch: then it is gone.
func (e *Engine) findRemovals(names []string) []*removing {
	var batch []*removing
	seen := map[string]bool{}
	for _, name := range names[:min(len(names), removeBatch)] {
		r := &removing{asked: name}
		r.ct, r.err = e.containers.Find(name)
		if r.err == nil && seen[r.ct.ID] {
			break
		}
		seen[r.ct.ID] = true
		batch = append(batch, r)
	}
	return batch
}

func (e *Engine) removeAll(ctx context.Context, batch []*removing, o RemoveOptions) {
	var busy errgroup.Group
	busy.SetLimit(removeEnds)
	for _, r := range batch {
		if r.err == nil {
			busy.Go(func() error {
				r.err = e.takeForRemoval(ctx, r, o)
				return nil
			})
		}
	}
	_ = busy.Wait()
	defer func() {
		for _, r := range batch {
			r.lock.Release()
		}
	}()
	jobs := map[string]*removing{}
	var req request
	for _, r := range batch {
		if r.job != nil && r.err == nil {
			jobs[r.ct.ID] = r
			req.Remove = append(req.Remove, *r.job)
		}
	}
	if len(req.Remove) == 0 {
		return
	}
	err := e.stage(ctx, req, func(ev event) {
		if r := jobs[ev.Removed]; r != nil && ev.Failure == nil {
			e.event("destroy", r.cfg)
			delete(jobs, ev.Removed)
		} else if r != nil {
			r.err = fmt.Errorf("remove container %s: %w", r.asked, ev.Failure.err())
			delete(jobs, ev.Removed)
		}
	})
	if err == nil && len(jobs) > 0 {
		err = errors.New("the stage said nothing of it")
	}
	for _, r := range jobs {
		r.err = fmt.Errorf("remove container %s: %w", r.asked, err)
	}
	if last := batch[len(batch)-1]; err != nil && last.err == nil {
		last.err = fmt.Errorf("remove container %s: %w", last.asked, err) // what it swept besides
	}
}

// takeForRemoval ends a container that runs and takes it.
func (e *Engine) takeForRemoval(ctx context.Context, r *removing, o RemoveOptions) error {
	var err error
	r.lock, err = e.waitUnowned(ctx, r.ct)
	if o.Force && (errors.Is(err, ErrRunning) || errors.Is(err, containers.ErrBusy)) {
		r.lock, err = e.end(ctx, r.ct)
	}
	if o.Force && errors.Is(err, containers.ErrNotFound) {
		return nil // it had --rm
	}
	if err != nil {
		return fmt.Errorf("remove container %s: %w", r.asked, err)
	}
	if r.cfg, err = r.ct.Config(); err != nil {
		r.lock.Release()
		if is, held := r.ct.CutShort(); is && !held {
			return e.stage(ctx, request{Sweep: []string{r.ct.ID}}, nil)
		}
		return err
	}
	if err := e.checkIDs(r.cfg); err != nil {
		return err
	}
	if state, err := r.ct.State(); err == nil {
		r.ct.RemoveSocket(state)
	}
	r.job = &removal{ID: r.ct.ID, Name: r.cfg.Name, Volumes: o.Volumes || r.cfg.Remove}
	return nil
}

// removal is what a stage is to remove.
type removal struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Volumes bool   `json:"volumes,omitempty"` // its anonymous ones go too
}

// remove takes containers away, each after its volumes: those of one that is
// gone would stay for ever. It tells of each.
func (s *stageRun) remove(ctx context.Context) error {
	dir := containers.Open(containersDir(s.req.Root))
	volumes := false
	for _, job := range s.req.Remove {
		if err := ctx.Err(); err != nil {
			return err
		}
		ct := dir.At(job.ID)
		var err error
		if job.Volumes {
			volumes = true
			var cfg *containers.Config
			if cfg, err = ct.Config(); err == nil {
				err = ct.DropVolumes(cfg)
			} else if errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
		}
		if err == nil {
			err = ct.Remove(job.Name)
		}
		ev := event{Removed: job.ID}
		if err != nil {
			ev.Failure = failed(err)
		}
		s.tell(ev)
	}
	if volumes {
		if err := dir.Volumes().Sweep(); err != nil {
			return err
		}
	}
	return dir.Sweep()
}

// end kills a container that runs and takes it.
func (e *Engine) end(ctx context.Context, ct containers.Container) (*containers.Lock, error) {
	none := 0
	_, err := askMonitor(ctx, ct, containers.Request{Verb: containers.VerbStop, Signal: int(unix.SIGKILL), Timeout: &none})
	if errors.Is(err, containers.ErrNoMonitor) {
		err = withoutSocket(ctx, ct)
	}
	if err != nil && !errors.Is(err, ErrNotRunning) {
		return nil, err
	}
	return e.waitUnowned(ctx, ct)
}

// checkIDs refuses a container of another id mode: its files belong to ids
// that this one doesn't have.
func (e *Engine) checkIDs(cfg *containers.Config) error {
	if cfg.IDs == string(e.ids.Mode) {
		return nil
	}
	return hint.Errorf("use --ids "+cfg.IDs, "container %s was made with %s ids, and these are %s", cfg.Name, cfg.IDs, e.ids.Mode)
}
