package genfilter

import (
	"math"
	"slices"

	"golang.org/x/sys/unix"
)

// span is a range of numbers, both ends in it, with one verdict.
type span struct {
	lo, hi  uint32
	verdict *node
}

// cover sorts spans, puts ENOSYS where none is, and joins neighbours that agree.
func cover(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return int(int64(a.lo) - int64(b.lo)) })
	var all []span
	add := func(s span) {
		if last := len(all) - 1; last >= 0 && all[last].verdict.equal(s.verdict) {
			all[last].hi = s.hi
			return
		}
		all = append(all, s)
	}
	missing := ret(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS))
	next := uint64(0)
	for _, s := range spans {
		if uint64(s.lo) > next {
			add(span{uint32(next), s.lo - 1, missing})
		}
		add(s)
		next = uint64(s.hi) + 1
	}
	if next <= math.MaxUint32 {
		add(span{uint32(next), math.MaxUint32, missing})
	}
	return all
}

// insnWeight is what one more instruction may cost in steps, summed over all
// numbers. At load time the kernel walks a filter once for each number
// (seccomp_cache_prepare) and translates each instruction twice, which costs
// more: of 0 to 256, 64 and 128 gave the shortest seccomp(2), 65 µs where 0 gave 70
// and libseccomp's own trees 240. At run time an allowed call isn't walked at all,
// its verdict is in that cache.
const insnWeight = 64

// plan is the cheapest way found to tell spans i to j apart.
type plan struct {
	cost  float64
	split int // compare with the start of this span; or, when 0:
	base  int // all but this span's verdict are single numbers
}

// planner holds plans for spans i to j in plans[i][j].
type planner struct {
	spans []span
	sums  []float64 // of the weights before each span
	plans [][]plan
}

// newPlanner tries every tree of comparisons. A tree's nodes are "number >= K"
// where numbers on both sides differ much, and its leaves a chain of "number ==
// K" for single calls among others that agree, which is one instruction for each
// where ranges take two. (Cubic, for at most 150 spans.)
func newPlanner(spans []span) *planner {
	p := &planner{spans: spans, sums: make([]float64, len(spans)+1), plans: make([][]plan, len(spans))}
	for i, s := range spans {
		p.sums[i+1] = p.sums[i] + weight(s)
	}
	for i := len(spans) - 1; i >= 0; i-- {
		p.plans[i] = make([]plan, len(spans))
		for j := i; j < len(spans); j++ {
			p.plans[i][j] = p.best(i, j)
		}
	}
	return p
}

// weight is how often a span's numbers are walked: once each by the kernel when
// it loads the filter. It doesn't walk x32's, nor any above the newest.
func weight(s span) float64 {
	if s.lo >= x32Bit || s.hi-s.lo > 1000 {
		return 1
	}
	return float64(s.hi-s.lo) + 1
}

func (p *planner) best(i, j int) plan {
	best := plan{cost: math.Inf(1)}
	for base := i; base <= j; base++ {
		if cost, ok := p.chain(i, j, base); ok && cost < best.cost {
			best = plan{cost: cost, base: base}
		}
	}
	step := insnWeight + p.sums[j+1] - p.sums[i]
	for k := i + 1; k <= j; k++ {
		if cost := step + p.plans[i][k-1].cost + p.plans[k][j].cost; cost < best.cost {
			best = plan{cost: cost, split: k}
		}
	}
	return best
}

// chain is the cost of the leaf with base's verdict, if it can be one.
func (p *planner) chain(i, j, base int) (float64, bool) {
	cost, steps := 0.0, 0.0
	for k := i; k <= j; k++ {
		if p.spans[k].verdict.equal(p.spans[base].verdict) {
			continue
		}
		if p.spans[k].lo != p.spans[k].hi {
			return 0, false
		}
		steps++
		cost += insnWeight + steps*weight(p.spans[k])
	}
	for k := i; k <= j; k++ {
		if p.spans[k].verdict.equal(p.spans[base].verdict) {
			cost += steps * weight(p.spans[k])
		}
	}
	return cost, true
}

// tree writes the comparisons for all of spans. The number is in the accumulator.
func (a *assembler) tree(spans []span) label {
	p := newPlanner(spans)
	return a.subtree(p, 0, len(spans)-1)
}

func (a *assembler) subtree(p *planner, i, j int) label {
	plan := p.plans[i][j]
	if plan.split != 0 {
		high := a.subtree(p, plan.split, j)
		low := a.subtree(p, i, plan.split-1)
		return a.branch(unix.BPF_JGE, p.spans[plan.split].lo, high, low)
	}
	base := p.spans[plan.base].verdict
	at := a.verdict(base)
	for k := j; k >= i; k-- {
		if s := p.spans[k]; !s.verdict.equal(base) {
			at = a.branch(unix.BPF_JEQ, s.lo, a.verdict(s.verdict), at)
		}
	}
	return at
}
