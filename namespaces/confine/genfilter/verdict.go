package genfilter

import (
	"errors"
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data (linux/seccomp.h).
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

// node is a decision about one call: a return value, or a comparison of one word
// of seccomp_data with two nodes behind it.
type node struct {
	value uint32 // the return value, when yes is nil

	off     uint32 // of the word
	mask    uint32
	op      uint16 // unix.BPF_JEQ or BPF_JGE
	k       uint32
	yes, no *node
}

func ret(value uint32) *node { return &node{value: value} }

// lo and hi are the offsets of an argument's halves. Both targets are
// little-endian.
func lo(arg uint) uint32 { return offArgs + 8*uint32(arg) }
func hi(arg uint) uint32 { return lo(arg) + 4 }

func (n *node) equal(o *node) bool {
	if n == nil || o == nil {
		return n == o
	}
	return n.value == o.value && n.off == o.off && n.mask == o.mask && n.op == o.op && n.k == o.k &&
		n.yes.equal(o.yes) && n.no.equal(o.no)
}

// decide builds the verdict of one call from its rules: the action of the first
// whose condition holds, and else deny. A rule without condition decides alone,
// whatever others say, as in libseccomp.
func decide(rules []rule, wide bool, deny uint32) (*node, error) {
	verdict := ret(deny)
	values := make([]uint32, len(rules))
	for i, r := range rules {
		errno := uint32(unix.EPERM)
		if r.ErrnoRet != nil {
			errno = *r.ErrnoRet
		}
		value, err := action(r.Action, errno)
		if err != nil {
			return nil, err
		}
		if values[i] = value; value != values[0] {
			return nil, errors.New("rules with different actions")
		}
		if len(r.Args) == 0 {
			verdict = ret(value)
		}
	}
	if verdict.value != deny {
		return verdict, nil
	}
	for i := len(rules) - 1; i >= 0; i-- {
		switch len(rules[i].Args) {
		case 0:
		case 1:
			var err error
			if verdict, err = test(rules[i].Args[0], wide, ret(values[i]), verdict); err != nil {
				return nil, err
			}
		default:
			return nil, errors.New("rule with several conditions")
		}
	}
	return verdict, nil
}

// test puts one condition before no. Only values and masks of 32 bits occur in
// the profile. That makes the upper half simple: with it set the argument equals
// none of them and is less than none, and a mask doesn't see it.
func test(c condition, wide bool, yes, no *node) (*node, error) {
	if c.Value > math.MaxUint32 || c.ValueTwo > math.MaxUint32 || c.Index > 5 {
		return nil, fmt.Errorf("condition %+v: out of the generator's range", c)
	}
	var n *node
	switch c.Op {
	case "SCMP_CMP_EQ":
		n = &node{off: lo(c.Index), mask: math.MaxUint32, op: unix.BPF_JEQ, k: uint32(c.Value), yes: yes, no: no}
	case "SCMP_CMP_LT":
		n = &node{off: lo(c.Index), mask: math.MaxUint32, op: unix.BPF_JGE, k: uint32(c.Value), yes: no, no: yes}
	case "SCMP_CMP_MASKED_EQ":
		// libseccomp's names: the value is the mask, valueTwo what must be left.
		return &node{off: lo(c.Index), mask: uint32(c.Value), op: unix.BPF_JEQ, k: uint32(c.ValueTwo), yes: yes, no: no}, nil
	default:
		return nil, fmt.Errorf("condition %s: not known to the generator", c.Op)
	}
	if !wide {
		return n, nil
	}
	// Several conditions on one argument look at its upper half once.
	if no.yes != nil && no.off == hi(c.Index) && no.op == unix.BPF_JEQ && no.k == 0 {
		n.replace(no, no.yes)
		return &node{off: no.off, mask: no.mask, op: no.op, yes: n, no: no.no}, nil
	}
	return &node{off: hi(c.Index), mask: math.MaxUint32, op: unix.BPF_JEQ, yes: n, no: no}, nil
}

// replace puts new in old's place directly below n.
func (n *node) replace(old, fresh *node) {
	if n.yes == old {
		n.yes = fresh
	}
	if n.no == old {
		n.no = fresh
	}
}

// fakeSuccess makes a call return 0 without being made.
const fakeSuccess = unix.SECCOMP_RET_ERRNO // with errno 0

// emulateOwners changes the verdicts for a container in which one id exists, as
// charliecloud's root emulation does:
//
//   - changing an owner or the groups succeeds without effect;
//   - making a device succeeds without effect. A character device 0:0 is the
//     exception: that is overlayfs' whiteout, which the kernel lets everybody
//     make where the file system can hold it, and a program told that it had made one
//     would take a deleted file for deleted. Fifos, sockets and files are made.
//
// A faked call is not looked at by the kernel, so that chown of a file that
// isn't there succeeds too. BPF can't see the path; charliecloud has the same.
// What the profile itself refuses stays refused: faking anything but an allowed
// call is an error here, in the generator.
func emulateOwners(verdicts map[uint32]*node, table map[string]uint32) error {
	allow := ret(unix.SECCOMP_RET_ALLOW)
	device := func(mode, dev uint) *node {
		kind := func(k uint32, yes, no *node) *node {
			return &node{off: lo(mode), mask: unix.S_IFMT, op: unix.BPF_JEQ, k: k, yes: yes, no: no}
		}
		// The kernel's dev is 32 bits wide, and its mode 16.
		whiteout := &node{off: lo(dev), mask: math.MaxUint32, op: unix.BPF_JEQ, yes: allow, no: ret(fakeSuccess)}
		return kind(unix.S_IFCHR, whiteout, kind(unix.S_IFBLK, ret(fakeSuccess), allow))
	}
	fakes := map[string]*node{"mknod": device(1, 2), "mknodat": device(2, 3)}
	for _, name := range []string{
		"chown", "lchown", "fchown", "fchownat", "chown32", "lchown32", "fchown32",
		"setgroups", "setgroups32",
	} {
		fakes[name] = ret(fakeSuccess)
	}
	for name, fake := range fakes {
		nr, ok := table[name]
		if !ok {
			continue
		}
		if !verdicts[nr].equal(allow) {
			return fmt.Errorf("emulate %s: the profile does not allow it", name)
		}
		verdicts[nr] = fake
	}
	return nil
}
