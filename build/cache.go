package build

import (
	"context"
	"fmt"
	"slices"
)

// A cache of another worker knows steps by keys in which layers are called by
// their diff ids (stepKey.with), as those are the same wherever they lie:
//
//	FROM x       base's diff ids           pulled here
//	RUN a        key(base, a)      -> D1   found there: D1 is stacked on the base
//	RUN b        key(base D1, b)   -> D2   found there
//	COPY c       key(base D1 D2 c)         not found: D1 and D2 are fetched now
//
// So it is asked only where this worker's own cache knows nothing, and a state
// whose last layer was made here and never packed has no such name.

// solvedStep is a step that was done or found.
type solvedStep struct {
	key    stepKey
	below  State
	result State
	info   CacheInfo
}

// layer is what the step put on top, "" for nothing.
func (d solvedStep) layer() string {
	if len(d.result.Layers) == len(d.below.Layers) {
		return ""
	}
	return d.result.Layers[len(d.result.Layers)-1]
}

func (s *solver) solved(d solvedStep) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = append(s.done, d)
}

// again is a solver of the same build that trusts no cache but the worker's.
func (s *solver) again() *solver {
	next := newSolver(s.w, s.o)
	next.src, next.steps = s.src, s.steps
	return next
}

// readCaches reads the caches that the build is to use. One that can't be read
// is a warning.
func (s *solver) readCaches(ctx context.Context) error {
	if s.o.NoCache {
		return nil
	}
	for _, ref := range s.o.CacheFrom {
		step := s.begin("importing cache manifest from " + ref)
		cache, err := s.w.ReadCache(ctx, ref)
		if err != nil && ctx.Err() != nil {
			step.end(ctx, err)
			return err
		}
		if err != nil {
			step.tell(Event{Kind: Told, Text: "not used: " + err.Error()})
			step.tell(Event{Kind: Done})
			s.warnings = append(s.warnings, fmt.Sprintf("the cache of %s is not used: %v", ref, err))
			continue
		}
		step.tell(Event{Kind: Done})
		s.caches = append(s.caches, cache)
	}
	return nil
}

// diffIDs is DiffIDs without packing.
func (s *solver) diffIDs(layers []string) ([]string, bool) {
	ids, ok, err := s.w.DiffIDs(context.Background(), layers, false)
	return ids, ok && err == nil
}

// anywhere marks those keys in the worker's cache in which layers have diff ids.
const anywhere = "by diff ids "

// lookup finds a step in the worker's cache, then in those of others.
func (s *solver) lookup(k stepKey, below State) (State, bool) {
	if state, ok := s.w.Lookup(k.local()); ok || len(s.caches) == 0 {
		return state, ok
	}
	name, ok := k.with(s.diffIDs)
	if !ok {
		return State{}, false
	}
	for _, cache := range s.caches {
		step, ok := cache.Steps[name]
		switch {
		case !ok:
			continue
		case step.DiffID == "":
			return below, true
		}
		// It may have been fetched by an earlier build.
		if state, ok := s.w.Lookup(anywhere + name); ok && len(state.Layers) == len(below.Layers)+1 &&
			slices.Equal(state.Layers[:len(below.Layers)], below.Layers) {
			if got, ok := s.diffIDs(state.Layers); ok && got[len(got)-1] == step.DiffID {
				return state, true
			}
		}
		return s.w.Stack(below, cache, step), true
	}
	return State{}, false
}

// rememberFetched puts what was fetched into the worker's cache.
func (s *solver) rememberFetched() error {
	if len(s.caches) == 0 {
		return nil
	}
	for _, d := range s.done {
		layer := d.layer()
		below, ok := s.w.Fetched(d.below.Layers)
		if !ok {
			continue
		}
		result, ok := s.w.Fetched(d.result.Layers)
		if !ok || layer == "" || result[len(result)-1] == layer {
			continue // it was never anything but the worker's own
		}
		state := State{Layers: append(slices.Clip(below), result[len(result)-1])}
		var keys []string
		if k, ok := d.key.with(s.w.Fetched); ok {
			keys = append(keys, k)
		}
		if k, ok := d.key.with(s.diffIDs); ok {
			keys = append(keys, anywhere+k)
		}
		for _, k := range keys {
			if err := s.w.Remember(k, state, d.info); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeCaches sends what this build did and found.
func (s *solver) writeCaches(ctx context.Context, b *built) error {
	for _, to := range s.o.CacheTo {
		step := s.begin("exporting cache to registry " + to.Ref)
		records, err := s.records(ctx, b, to.Max)
		if err == nil {
			err = s.w.WriteCache(ctx, to.Ref, records, step)
		}
		step.end(ctx, err)
		if err != nil {
			return fmt.Errorf("export the cache to %s: %w", to.Ref, err)
		}
	}
	return nil
}

// records are the steps of a build with keys that hold anywhere: all of them,
// or those whose layers the image has.
func (s *solver) records(ctx context.Context, b *built, all bool) ([]CacheRecord, error) {
	var list []CacheRecord
	seen := map[string]bool{}
	sent := s.settled(b.state.Layers)
	unsent := func(layer string) bool { return !slices.Contains(sent, layer) }
	foreign := func(layer string) bool { return !all && unsent(layer) }
	var done, others []solvedStep
	for _, d := range s.done {
		if !slices.ContainsFunc(s.settled(d.result.Layers), unsent) {
			done = append(done, d)
		} else if all {
			others = append(others, d)
		}
	}
	// Of two steps with the same key that of the image counts.
	for _, d := range append(done, others...) {
		var failed error
		names := func(layers []string) ([]string, bool) {
			// Of a stage that isn't sent nothing is packed just for its name.
			pack := !slices.ContainsFunc(s.settled(layers), foreign)
			ids, ok, err := s.w.DiffIDs(ctx, layers, pack)
			failed = err
			return ids, ok && err == nil
		}
		k, ok := d.key.with(names)
		if failed != nil {
			return nil, failed
		}
		if ok && d.layer() != "" {
			_, ok, failed = s.w.DiffIDs(ctx, d.result.Layers, true)
			if failed != nil {
				return nil, failed
			}
		}
		if ok && !seen[k] {
			seen[k] = true
			list = append(list, CacheRecord{Key: k, Layer: d.layer()})
		}
	}
	return list, nil
}

// settled are layers by the worker's own names, as far as they were fetched.
func (s *solver) settled(layers []string) []string {
	out := slices.Clone(layers)
	for i := range out {
		if own, ok := s.w.Fetched(out[i : i+1]); ok {
			out[i] = own[0]
		}
	}
	return out
}
