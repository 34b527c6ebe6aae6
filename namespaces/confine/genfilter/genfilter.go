// Package genfilter compiles docker's seccomp profile to classic BPF. It runs
// under go generate and in tests, and is never linked into nook.
//
//	default.json ── Parse ── rules for our capabilities ─┐
//	x/sys's zsysnum_linux_*.go ── numbers for each ABI ──┴─ spans of numbers
//	    with one verdict ── tree ── instructions ── zseccomp_linux_ARCH.go
//
//	numbers, err := genfilter.ReadNumbers(dir)
//	profile, err := genfilter.Parse(json, func(c string) bool { return c == "CAP_KILL" })
//	insns, err := genfilter.Compile(profile, numbers, genfilter.Targets[0], false)
//
// The profile means here what it means to docker with runc 1.5:
//
//   - A rule belongs to the filter when its includes and excludes hold for the
//     native architecture and the capability set; it then goes for all ABIs of
//     the filter. Names that an ABI doesn't have are passed over.
//   - Numbers above the highest one that the resolved profile names get ENOSYS
//     and not EPERM (runc's libcontainer/seccomp/patchbpf): C libraries probe
//     for new calls and fall back only on ENOSYS. Holes below it get the
//     default action. We go one step further than runc on arm, whose private
//     calls at 0xf0000 would make every new call "older than the newest".
//   - Arguments are compared in 64 bits where the ABI has 64 (amd64, arm64) and
//     in the lower 32 on i386, x32 and arm, as libseccomp does.
//   - A foreign audit architecture ends the process. runc ends the thread,
//     which leaves a program hung; neither is reachable, as a kernel has no ABI
//     but those of the filter.
//
// minKernel is resolved for Linux 5.11, the oldest that nook runs on: a rule is
// kept when it holds on every kernel from there on, and the profile of today is
// the same on all of them. See Parse for what would be refused.
package genfilter

import "golang.org/x/sys/unix"

// Target is one binary's architecture: the ABIs its kernel offers.
type Target struct {
	GOARCH string
	// Docker is the profile's name of the native architecture, in includes.
	Docker string
	ABIs   []ABI // the native one first
}

// ABI is one of the ways to call a kernel.
type ABI struct {
	Name  string // libseccomp's
	Audit uint32 // AUDIT_ARCH_*, seccomp_data.arch
	Wide  bool   // arguments have 64 bits
	// Numbers names the table of x/sys that it begins with, as Go spells the
	// architecture.
	Numbers string
}

// Targets lists the architectures that nook is built for, and the ABIs that the
// profile's archMap gives them.
var Targets = []Target{
	{GOARCH: "amd64", Docker: "amd64", ABIs: []ABI{
		{Name: "SCMP_ARCH_X86_64", Audit: unix.AUDIT_ARCH_X86_64, Wide: true, Numbers: "amd64"},
		{Name: "SCMP_ARCH_X86", Audit: unix.AUDIT_ARCH_I386, Numbers: "386"},
		{Name: "SCMP_ARCH_X32", Audit: unix.AUDIT_ARCH_X86_64, Numbers: "amd64"},
	}},
	{GOARCH: "arm64", Docker: "arm64", ABIs: []ABI{
		{Name: "SCMP_ARCH_AARCH64", Audit: unix.AUDIT_ARCH_AARCH64, Wide: true, Numbers: "arm64"},
		{Name: "SCMP_ARCH_ARM", Audit: unix.AUDIT_ARCH_ARM, Numbers: "arm"},
	}},
}

// Compile makes the filter for t. With emulate it also answers the calls that
// need owners a container with a single id doesn't have (see emulation).
func Compile(p *Profile, numbers Numbers, t Target, emulate bool) ([]unix.SockFilter, error) {
	if err := p.offers(t); err != nil {
		return nil, err
	}
	byAudit := map[uint32][]span{}
	var audits []uint32
	for _, abi := range t.ABIs {
		spans, err := p.spans(numbers, t, abi, emulate)
		if err != nil {
			return nil, err
		}
		if _, seen := byAudit[abi.Audit]; !seen {
			audits = append(audits, abi.Audit)
		}
		byAudit[abi.Audit] = append(byAudit[abi.Audit], spans...)
	}
	var a assembler
	next := a.ret(unix.SECCOMP_RET_KILL_PROCESS)
	// The program is written from its end, so the native architecture comes last.
	for i := len(audits) - 1; i >= 0; i-- {
		tree := a.tree(cover(byAudit[audits[i]]))
		tree = a.load(offNumber, tree)
		next = a.branch(unix.BPF_JEQ, audits[i], tree, next)
	}
	a.load(offArch, next)
	return a.program()
}
