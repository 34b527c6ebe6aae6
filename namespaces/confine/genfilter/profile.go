package genfilter

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// oldestKernel is the oldest Linux that nook runs on: the first with overlayfs
// in a user namespace.
var oldestKernel = [2]int{5, 11}

// Profile is a seccomp profile in docker's form, for one set of capabilities.
type Profile struct {
	DefaultAction   string `json:"defaultAction"`
	DefaultErrnoRet uint32 `json:"defaultErrnoRet"`
	ArchMap         []struct {
		Architecture     string   `json:"architecture"`
		SubArchitectures []string `json:"subArchitectures"`
	} `json:"archMap"`
	Syscalls []rule `json:"syscalls"`
}

// rule is one entry of the profile: what the calls in Names get when all of Args
// hold.
type rule struct {
	Names    []string    `json:"names"`
	Action   string      `json:"action"`
	ErrnoRet *uint32     `json:"errnoRet"`
	Args     []condition `json:"args"`
	Comment  string      `json:"comment"`
	Includes conditions  `json:"includes"`
	Excludes conditions  `json:"excludes"`
}

// condition compares one argument.
type condition struct {
	Index    uint   `json:"index"`
	Value    uint64 `json:"value"`
	ValueTwo uint64 `json:"valueTwo"`
	Op       string `json:"op"`
}

// conditions tells for which containers a rule is meant.
type conditions struct {
	Caps      []string `json:"caps"`
	Arches    []string `json:"arches"`
	MinKernel string   `json:"minKernel"`
}

// Parse reads a profile and drops the rules that aren't meant for a container
// with these capabilities on a kernel from 5.11 on. It refuses fields it doesn't
// know, and a rule that some of those kernels would have and others not when
// leaving it out would allow more.
func Parse(data []byte, hasCap func(name string) bool) (*Profile, error) {
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.DisallowUnknownFields()
	p := new(Profile)
	if err := dec.Decode(p); err != nil {
		return nil, fmt.Errorf("parse seccomp profile: %w", err)
	}
	var kept []rule
	for _, r := range p.Syscalls {
		keep, err := r.meantFor(hasCap)
		if err != nil {
			return nil, fmt.Errorf("seccomp rule for %s: %w", strings.Join(r.Names, ","), err)
		}
		if keep {
			kept = append(kept, r)
		}
	}
	p.Syscalls = kept
	return p, nil
}

// meantFor decides by capabilities and kernel version. Architectures are looked
// at later: they differ from target to target.
func (r rule) meantFor(hasCap func(string) bool) (bool, error) {
	if slices.ContainsFunc(r.Excludes.Caps, hasCap) {
		return false, nil
	}
	for _, c := range r.Includes.Caps {
		if !hasCap(c) {
			return false, nil
		}
	}
	always, err := everyKernelFrom(r.Includes.MinKernel)
	if err != nil {
		return false, err
	}
	if always && r.Excludes.MinKernel == "" {
		return true, nil
	}
	// Some of our kernels have the rule and some not. Without an allowing rule the
	// filter is at least as strict everywhere; any other must be thought about.
	if r.Action != "SCMP_ACT_ALLOW" {
		return false, errors.New("depends on a kernel above the oldest one and does not allow")
	}
	return false, nil
}

// everyKernelFrom tells whether all kernels we run on are at least version.
func everyKernelFrom(version string) (bool, error) {
	if version == "" {
		return true, nil
	}
	major, minor, ok := strings.Cut(version, ".")
	a, errA := strconv.Atoi(major)
	b, errB := strconv.Atoi(minor)
	if !ok || errA != nil || errB != nil {
		return false, fmt.Errorf("minKernel %q: not a version", version)
	}
	return a < oldestKernel[0] || a == oldestKernel[0] && b <= oldestKernel[1], nil
}

// onArch decides by architecture; docker compares the native one.
func (r rule) onArch(t Target) bool {
	if slices.Contains(r.Excludes.Arches, t.Docker) {
		return false
	}
	return len(r.Includes.Arches) == 0 || slices.Contains(r.Includes.Arches, t.Docker)
}

// offers checks that the profile's archMap is what Targets says.
func (p *Profile) offers(t Target) error {
	var want []string
	for _, abi := range t.ABIs {
		want = append(want, abi.Name)
	}
	for _, m := range p.ArchMap {
		if m.Architecture == want[0] {
			if got := append([]string{m.Architecture}, m.SubArchitectures...); !slices.Equal(got, want) {
				return fmt.Errorf("archMap of %s: %v, and the generator knows %v", want[0], got, want)
			}
			return nil
		}
	}
	return fmt.Errorf("archMap: no %s", want[0])
}

// action is the filter's return value for an action of the profile.
func action(name string, errno uint32) (uint32, error) {
	switch name {
	case "SCMP_ACT_ALLOW":
		return unix.SECCOMP_RET_ALLOW, nil
	case "SCMP_ACT_ERRNO":
		return unix.SECCOMP_RET_ERRNO | errno, nil
	}
	return 0, fmt.Errorf("action %q: not known to the generator", name)
}

// spans gives the verdict for every number of one ABI. What no span covers is
// above the newest call the profile knows.
func (p *Profile) spans(numbers Numbers, t Target, abi ABI, emulate bool) ([]span, error) {
	table, err := numbers.of(abi)
	if err != nil {
		return nil, err
	}
	deny, err := action(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	byNumber := map[uint32][]rule{}
	for _, r := range p.Syscalls {
		if !r.onArch(t) {
			continue
		}
		for _, name := range r.Names {
			if nr, ok := table[name]; ok {
				byNumber[nr] = append(byNumber[nr], r)
			}
		}
	}
	verdicts := map[uint32]*node{}
	for nr, rules := range byNumber {
		if verdicts[nr], err = decide(rules, abi.Wide, deny); err != nil {
			return nil, fmt.Errorf("%s call %d: %w", abi.Name, nr, err)
		}
	}
	if emulate {
		if err := emulateOwners(verdicts, table); err != nil {
			return nil, fmt.Errorf("%s: %w", abi.Name, err)
		}
	}
	return fill(verdicts, abi, deny), nil
}

// fill turns verdicts into spans from the ABI's first number to the newest in
// verdicts, with deny in the holes. The verdicts of arm's private calls stand
// apart, with ENOSYS between (which is what no span means).
func fill(verdicts map[uint32]*node, abi ABI, deny uint32) []span {
	var nrs []uint32
	for nr := range verdicts {
		nrs = append(nrs, nr)
	}
	slices.Sort(nrs)
	var spans []span
	next := first(abi)
	for _, nr := range nrs {
		if nr > next && !(abi.Name == "SCMP_ARCH_ARM" && nr == armPrivate+1) {
			spans = append(spans, span{next, nr - 1, ret(deny)})
		}
		spans = append(spans, span{nr, nr, verdicts[nr]})
		next = nr + 1
	}
	return spans
}
