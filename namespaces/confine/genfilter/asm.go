package genfilter

import (
	"fmt"
	"math"
	"slices"

	"golang.org/x/sys/unix"
)

// maxInsns is BPF_MAXINSNS, the longest filter that the kernel takes.
const maxInsns = 4096

// assembler writes a program from its last instruction to its first, because
// jumps only go forward: what a jump leads to is always already there.
type assembler struct {
	rev    []unix.SockFilter // backwards
	placed []placed
}

// label is an instruction's index in rev.
type label int

// placed is a verdict's code, to be jumped to again.
type placed struct {
	verdict *node
	at      label
}

func (a *assembler) emit(i unix.SockFilter) label {
	a.rev = append(a.rev, i)
	return label(len(a.rev) - 1)
}

func (a *assembler) ret(value uint32) label {
	return a.emit(unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: value})
}

// load reads a word of seccomp_data and goes on at next.
func (a *assembler) load(off uint32, next label) label {
	a.follow(next)
	return a.emit(unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off})
}

// follow makes next the instruction that comes right after the one to be
// written.
func (a *assembler) follow(next label) {
	if skip := a.distance(next); skip > 0 {
		a.detour(next)
	}
}

// distance is the jump offset from the instruction to be written to target.
func (a *assembler) distance(target label) int { return len(a.rev) - int(target) - 1 }

// detour writes what stands for target where a jump can't reach it: the same
// return again, or a jump that reaches any distance.
func (a *assembler) detour(target label) label {
	if i := a.rev[target]; i.Code == unix.BPF_RET|unix.BPF_K {
		return a.ret(i.K)
	}
	return a.emit(unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(a.distance(target))})
}

// branch compares the accumulator with k. A conditional jump has 8 bits for each
// of its ways.
func (a *assembler) branch(op uint16, k uint32, yes, no label) label {
	// A detour for the second moves the first one further away, by one.
	if a.distance(yes) >= math.MaxUint8 {
		yes = a.detour(yes)
	}
	if a.distance(no) > math.MaxUint8 {
		no = a.detour(no)
	}
	return a.emit(unix.SockFilter{
		Code: unix.BPF_JMP | op | unix.BPF_K, K: k,
		Jt: uint8(a.distance(yes)), Jf: uint8(a.distance(no)),
	})
}

// verdict gives the code for n, new or written before and near enough.
func (a *assembler) verdict(n *node) label {
	for i, p := range a.placed {
		if p.verdict.equal(n) {
			// Room is left for the jumps of a chain that comes before.
			if a.distance(p.at) > math.MaxUint8-16 {
				a.placed[i].at = a.detour(p.at)
			}
			return a.placed[i].at
		}
	}
	at := a.decision(n, math.MaxUint32)
	a.placed = append(a.placed, placed{n, at})
	return at
}

// decision writes n for when the accumulator holds the word at offset have.
func (a *assembler) decision(n *node, have uint32) label {
	if n.yes == nil {
		return a.verdictOfReturn(n)
	}
	left := uint32(math.MaxUint32) // a masked word is of no use to what follows
	if n.mask == math.MaxUint32 {
		left = n.off
	}
	no := a.decision(n.no, left)
	yes := a.decision(n.yes, left)
	at := a.branch(n.op, n.k, yes, no)
	if n.mask != math.MaxUint32 {
		at = a.emit(unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: n.mask})
	}
	if have != n.off {
		at = a.load(n.off, at)
	}
	return at
}

func (a *assembler) verdictOfReturn(n *node) label {
	for _, p := range a.placed {
		if p.verdict.equal(n) && a.distance(p.at) < math.MaxUint8-16 {
			return p.at
		}
	}
	at := a.ret(n.value)
	a.placed = append(a.placed, placed{n, at})
	return at
}

// program gives the instructions in the kernel's order.
func (a *assembler) program() ([]unix.SockFilter, error) {
	if len(a.rev) > maxInsns {
		return nil, fmt.Errorf("filter of %d instructions: the kernel takes %d", len(a.rev), maxInsns)
	}
	p := slices.Clone(a.rev)
	slices.Reverse(p)
	return p, nil
}
