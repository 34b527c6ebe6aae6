package build

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"nook/build/dockerfile"
	"nook/images"
	"nook/internal/hint"
)

// solver builds the stages of one plan.
type solver struct {
	w    Worker
	o    *Options
	plan *plan
	src  *source
	runs chan struct{} // a place for each command that may run at once

	mu     sync.Mutex
	steps  int
	stages map[*stage]*promise[*built]
	bases  map[string]*promise[Base]
	keys   map[string]*promise[State] // steps under way or done, by key
	work   atomic.Int64               // see scope
	ports  atomic.Int64               // that EXPOSE named
	copied atomic.Int64               // see built
	done   []solvedStep
	// caches are of other workers; warnings are about them.
	caches   []*RemoteCache
	warnings []string
}

// mostRuns bounds the commands that run side by side.
const mostRuns = 16

func newSolver(w Worker, o *Options) *solver {
	return &solver{
		w: w, o: o, runs: make(chan struct{}, mostRuns),
		stages: map[*stage]*promise[*built]{}, bases: map[string]*promise[Base]{}, keys: map[string]*promise[State]{},
	}
}

// promise is a result that several may wait for.
type promise[T any] struct {
	done  chan struct{}
	value T
	err   error
}

// once returns the result of do, which runs once for each key however many ask.
func once[K comparable, T any](ctx context.Context, mu *sync.Mutex, all map[K]*promise[T], key K, do func() (T, error)) (T, error) {
	mu.Lock()
	p := all[key]
	if p == nil {
		p = &promise[T]{done: make(chan struct{})}
		all[key] = p
		mu.Unlock()
		p.value, p.err = do()
		close(p.done)
		return p.value, p.err
	}
	mu.Unlock()
	select {
	case <-p.done:
		return p.value, p.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// solve builds the target. All stages that it needs begin at once, and wait for
// each other where one copies from another.
func (s *solver) solve(ctx context.Context) (*built, error) {
	needed := s.plan.closure()
	if err := s.refuseForeign(needed); err != nil {
		return nil, err
	}
	g, side := errgroup.WithContext(ctx)
	for _, st := range needed {
		g.Go(func() error {
			_, err := s.stage(side, st)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return s.stage(ctx, s.plan.target)
}

// closure is the target and all that it needs, what is needed first.
func (p *plan) closure() []*stage {
	var order []*stage
	seen := map[*stage]bool{}
	var visit func(*stage)
	visit = func(st *stage) {
		if seen[st] {
			return
		}
		seen[st] = true
		for _, other := range p.needs(st) {
			visit(other)
		}
		order = append(order, st)
	}
	visit(p.target)
	return order
}

// refuseForeign refuses to RUN what this machine can't, before anything starts.
func (s *solver) refuseForeign(needed []*stage) error {
	for _, st := range needed {
		platform, err := images.ParsePlatform(s.platformOf(st))
		if err != nil {
			return st.from.Fault("--platform", err)
		}
		cfg := images.ImageConfig{OS: platform.OS, Architecture: platform.Architecture, Variant: platform.Variant}
		for _, in := range st.steps {
			if _, runs := in.Command.(*dockerfile.Run); !runs {
				continue
			}
			if err := images.CheckPlatform(&cfg); err != nil {
				return in.Fault("", hint.Errorf("leave the command out, build on such a host, or install qemu-user-static, which registers emulators",
					"%w: the stage is for %s, this host is %s", images.ErrPlatform, platform, images.HostPlatform()))
			}
		}
	}
	return nil
}

func (s *solver) platformOf(st *stage) string {
	for st.base != nil {
		st = st.base
	}
	if st.platform != "" {
		return st.platform
	}
	return s.o.Platform
}

func (s *solver) stage(ctx context.Context, st *stage) (*built, error) {
	return once(ctx, &s.mu, s.stages, st, func() (*built, error) { return s.buildStage(ctx, st) })
}

// buildStage does the steps of one stage, one after another.
func (s *solver) buildStage(ctx context.Context, st *stage) (*built, error) {
	b, err := s.begins(ctx, st)
	if err != nil {
		return nil, err
	}
	triggers, err := s.triggers(st, b)
	if err != nil {
		return nil, err
	}
	c := &chain{s: s, st: st, b: b, total: 1}
	steps := append(triggers, st.steps...)
	for _, in := range steps {
		if makesLayer(in) {
			c.total++
		}
	}
	c.begun()
	for _, in := range steps {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		err := c.do(ctx, in)
		if err == nil && s.copied.Add(int64(b.copied)) > mostCopied {
			err = errCopied
		}
		if err != nil {
			return nil, c.failure(ctx, in, err)
		}
		b.copied = 0
	}
	return b, nil
}

func makesLayer(in *dockerfile.Instruction) bool {
	return slices.Contains([]string{"RUN", "COPY", "ADD", "WORKDIR"}, in.Keyword)
}

// begins is what a stage's FROM means.
func (s *solver) begins(ctx context.Context, st *stage) (*built, error) {
	if st.base != nil {
		below, err := s.stage(ctx, st.base)
		if err != nil {
			return nil, err
		}
		return below.clone(), nil
	}
	if st.image == "scratch" {
		b := &built{args: map[string]string{}}
		platform, _ := images.ParsePlatform(s.platformOf(st))
		b.config = images.ImageConfig{OS: platform.OS, Architecture: platform.Architecture, Variant: platform.Variant}
		b.setEnv("PATH", defaultPath)
		b.config.Config.WorkingDir = "/"
		return b, nil
	}
	base, err := s.image(ctx, st.image, s.platformOf(st))
	if err != nil {
		return nil, st.from.Fault(st.from.Command.(*dockerfile.From).Base, err)
	}
	b := &built{state: base.State, base: &base, args: map[string]string{}}
	b.config = *base.Config
	if _, ok := b.variables()["PATH"]; !ok {
		b.setEnv("PATH", defaultPath)
	}
	return b, nil
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// image gets an image once, however many stages begin with it.
func (s *solver) image(ctx context.Context, ref, platform string) (Base, error) {
	return once(ctx, &s.mu, s.bases, ref+" "+platform, func() (Base, error) {
		step := s.begin("[internal] load metadata for " + familiar(ref))
		base, err := s.w.Base(ctx, BaseSpec{Ref: ref, Platform: platform, Pull: s.o.Pull})
		step.end(ctx, err)
		return base, err
	})
}

func familiar(ref string) string {
	r, err := images.ParseReference(ref)
	if err != nil {
		return ref
	}
	return r.String()
}

// triggers are the ONBUILD instructions that the base has for this stage.
func (s *solver) triggers(st *stage, b *built) ([]*dockerfile.Instruction, error) {
	texts := b.config.Config.OnBuild
	b.config.Config.OnBuild = nil
	var all []*dockerfile.Instruction
	for _, text := range texts {
		in, err := dockerfile.ParseOne("ONBUILD of "+st.image, text)
		if err == nil && slices.Contains([]string{"FROM", "ONBUILD", "MAINTAINER"}, in.Keyword) {
			err = in.Fault("", fmt.Errorf("%s is no ONBUILD trigger", in.Keyword))
		}
		if err != nil {
			return nil, st.from.Fault("", err)
		}
		if err := s.depend(st, in); err != nil {
			return nil, err
		}
		s.mu.Lock()
		noteArgs(s.plan.late, in)
		s.mu.Unlock()
		all = append(all, in)
	}
	return all, nil
}

// depend notes what a trigger copies from. It came too late for the plan's own
// search for cycles, and stages that wait for each other would do so for ever.
func (s *solver) depend(st *stage, in *dockerfile.Instruction) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, from := range fromsOf(in) {
		other, err := s.plan.lookup(from)
		if err != nil {
			return st.from.Fault("", fmt.Errorf("ONBUILD %s: %w", in.Text, err))
		}
		if other == nil {
			continue
		}
		if s.plan.reaches(other, st) {
			return st.from.Fault("", fmt.Errorf("stages need each other: %s -> %s, by ONBUILD %s", st.label(), other.label(), in.Text))
		}
		st.late = append(st.late, other)
	}
	return nil
}

// reaches says whether from is to, or needs it.
func (p *plan) reaches(from, to *stage) bool {
	seen := map[*stage]bool{}
	var visit func(*stage) bool
	visit = func(st *stage) bool {
		if st == to {
			return true
		}
		if seen[st] {
			return false
		}
		seen[st] = true
		return slices.ContainsFunc(st.late, visit) || slices.ContainsFunc(p.needs(st), visit)
	}
	return visit(from)
}

// end tells how a step ended.
func (st *step) end(ctx context.Context, err error) {
	switch {
	case err == nil:
		st.tell(Event{Kind: Done})
	case ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx))):
		st.tell(Event{Kind: Canceled})
	default:
		st.tell(Event{Kind: Failed, Err: err})
	}
}
