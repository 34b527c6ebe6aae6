package genfilter

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nook/internal/testenv"
)

// someCaps is the set that these tests resolve the profile for. It doesn't have
// to be nook's.
func someCaps(name string) bool {
	return slices.Contains([]string{"CAP_CHOWN", "CAP_SYS_CHROOT", "CAP_MKNOD"}, name)
}

// sysDir finds golang.org/x/sys, which needs the go command.
func sysDir(t *testing.T) string {
	t.Helper()
	var dir string
	testenv.Need(t, "go-list", func() error {
		out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
		if err != nil {
			return fmt.Errorf("go list -m golang.org/x/sys: %w", err)
		}
		dir = strings.TrimSpace(string(out))
		_, err = os.Stat(dir)
		return err
	})
	return dir
}

func profileBytes(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile("../default.json")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// run interprets a filter as the kernel does.
func run(t *testing.T, prog []unix.SockFilter, words [16]uint32) uint32 {
	t.Helper()
	var acc uint32
	for pc := 0; pc < len(prog); pc++ {
		in := prog[pc]
		var holds bool
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			acc = words[in.K/4]
			continue
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			acc &= in.K
			continue
		case unix.BPF_RET | unix.BPF_K:
			return in.K
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(in.K)
			continue
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			holds = acc == in.K
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			holds = acc >= in.K
		default:
			// The kernel caches "always allowed" only for programs of the codes
			// above (seccomp_is_const_allow); another would make each call slower.
			t.Fatalf("instruction %d: code %#x", pc, in.Code)
		}
		if holds {
			pc += int(in.Jt)
		} else {
			pc += int(in.Jf)
		}
	}
	t.Fatal("the program runs off its end")
	return 0
}

func data(audit, nr uint32, args [6]uint64) (words [16]uint32) {
	words[0], words[1] = nr, audit
	for i, a := range args {
		words[4+2*i], words[5+2*i] = uint32(a), uint32(a>>32)
	}
	return words
}

// oracle reads the profile a second time, in no way that the compiler does: it
// asks for each single call what docker's rules say.
type oracle struct {
	deny  uint32
	rules []any
	goos  string // docker's name of the native architecture
	table map[string]uint32
	wide  bool
	fakes bool
	max   uint32 // newest ordinary call with a rule
}

func newOracle(t *testing.T, dir string, target Target, abi ABI, fakes bool) *oracle {
	t.Helper()
	var root map[string]any
	if err := json.Unmarshal(profileBytes(t), &root); err != nil {
		t.Fatal(err)
	}
	src, err := os.ReadFile(filepath.Join(dir, "unix", "zsysnum_linux_"+abi.Numbers+".go"))
	if err != nil {
		t.Fatal(err)
	}
	o := &oracle{
		deny: unix.SECCOMP_RET_ERRNO | uint32(root["defaultErrnoRet"].(float64)), goos: target.GOARCH,
		table: map[string]uint32{}, wide: abi.Wide, fakes: fakes,
	}
	for _, m := range regexp.MustCompile(`\bSYS_(\w+)\s*=\s*(\d+)`).FindAllStringSubmatch(string(src), -1) {
		nr, err := strconv.Atoi(m[2])
		if err != nil {
			t.Fatal(err)
		}
		name := strings.ToLower(m[1])
		if abi.Name == "SCMP_ARCH_X32" {
			if own, ok := x32Own[name]; ok {
				nr = int(own)
			} else if only64[name] {
				continue
			}
			nr += x32Bit
		}
		o.table[name] = uint32(nr)
	}
	if abi.Name == "SCMP_ARCH_ARM" {
		for name, nr := range armOwn {
			o.table[name] = nr
		}
	}
	for _, r := range root["syscalls"].([]any) {
		if o.meant(r.(map[string]any)) {
			o.rules = append(o.rules, r)
			for _, name := range r.(map[string]any)["names"].([]any) {
				if nr, ok := o.table[name.(string)]; ok && (nr < armPrivate || nr >= x32Bit) {
					o.max = max(o.max, nr)
				}
			}
		}
	}
	return o
}

// meant tells whether docker gives the rule to our container on Linux 5.11.
func (o *oracle) meant(r map[string]any) bool {
	list := func(key, what string) []string {
		f, _ := r[key].(map[string]any)
		l, _ := f[what].([]any)
		var s []string
		for _, v := range l {
			s = append(s, v.(string))
		}
		return s
	}
	for _, c := range list("excludes", "caps") {
		if someCaps(c) {
			return false
		}
	}
	for _, c := range list("includes", "caps") {
		if !someCaps(c) {
			return false
		}
	}
	if slices.Contains(list("excludes", "arches"), o.goos) {
		return false
	}
	if in := list("includes", "arches"); in != nil && !slices.Contains(in, o.goos) {
		return false
	}
	if f, ok := r["includes"].(map[string]any); ok && f["minKernel"] != nil {
		// The only one that the profile has.
		return f["minKernel"] == "4.8"
	}
	return true
}

// callRules is what the profile has for one number.
type callRules struct {
	names []string
	rules []map[string]any
}

func (o *oracle) rulesOf(nr uint32) callRules {
	var c callRules
	for name, n := range o.table {
		if n == nr {
			c.names = append(c.names, name)
		}
	}
	for _, r := range o.rules {
		for _, name := range r.(map[string]any)["names"].([]any) {
			if slices.Contains(c.names, name.(string)) {
				c.rules = append(c.rules, r.(map[string]any))
			}
		}
	}
	return c
}

// looksAtArguments tells whether some verdict depends on more than the number.
func (c callRules) looksAtArguments() bool {
	return slices.Contains(c.names, "mknod") || slices.Contains(c.names, "mknodat") ||
		slices.ContainsFunc(c.rules, func(r map[string]any) bool { return r["args"] != nil })
}

func (o *oracle) verdict(nr uint32, call callRules, args [6]uint64) uint32 {
	if o.fakes {
		for _, name := range call.names {
			if fake, ok := o.fake(name, args); ok {
				return fake
			}
		}
	}
	private := nr > armPrivate && nr <= armPrivate+5
	if nr > o.max && !(private && len(call.names) > 0) {
		return unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	}
	for _, r := range call.rules {
		if !o.holds(r["args"], args) {
			continue
		}
		if r["action"] == "SCMP_ACT_ALLOW" {
			return unix.SECCOMP_RET_ALLOW
		}
		return unix.SECCOMP_RET_ERRNO | uint32(r["errnoRet"].(float64))
	}
	return o.deny
}

func (o *oracle) holds(conds any, args [6]uint64) bool {
	list, _ := conds.([]any)
	for _, c := range list {
		c := c.(map[string]any)
		arg, v := args[int(c["index"].(float64))], uint64(c["value"].(float64))
		if !o.wide {
			arg = arg % (1 << 32)
		}
		ok := false
		switch c["op"] {
		case "SCMP_CMP_EQ":
			ok = arg == v
		case "SCMP_CMP_LT":
			ok = arg < v
		case "SCMP_CMP_MASKED_EQ":
			two, _ := c["valueTwo"].(float64)
			ok = arg&v == uint64(two)
		}
		if !ok {
			return false
		}
	}
	return true
}

func (o *oracle) fake(name string, args [6]uint64) (uint32, bool) {
	mode, dev := args[1], uint32(args[2])
	switch name {
	case "chown", "fchown", "lchown", "fchownat", "chown32", "fchown32", "lchown32", "setgroups", "setgroups32":
		return unix.SECCOMP_RET_ERRNO, true
	case "mknodat":
		mode, dev = args[2], uint32(args[3])
	case "mknod":
	default:
		return 0, false
	}
	char, block := mode&0o170000 == 0o020000, mode&0o170000 == 0o060000
	return unix.SECCOMP_RET_ERRNO, block || char && dev != 0
}

// argValues are those around every value that a condition compares with.
var argValues = func() []uint64 {
	vs := []uint64{
		1, 7, 8, 9, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 0x1ff, 0x501, 0x20000, 0x20001, 0x20007,
		0x20008, 0x20009, 0x40000, 0x7e020000, 0xfffffffe, 0xffffffff, math.MaxUint64,
		0o010644, 0o020600, 0o040755, 0o060600, 0o070000, 0o100644, 0o120777, 0o140755, 0o160000, 0o020000 | 1<<16,
	}
	for bit := range 32 {
		vs = append(vs, 1<<bit, 1<<bit|0x11)
	}
	for _, v := range slices.Clone(vs) {
		vs = append(vs, v|1<<32, v|1<<63)
	}
	return append(vs, 1<<32, 1<<63)
}()

func numbersToTry(abi ABI) []uint32 {
	var nrs []uint32
	for nr := range uint32(700) {
		nrs = append(nrs, first(abi)+nr)
	}
	if abi.Name == "SCMP_ARCH_X32" {
		return append(nrs, 0x40001000, 0x7fffffff, 0xc0000000, 0xc0000001, math.MaxUint32)
	}
	for nr := uint32(armPrivate - 8); nr < armPrivate+16; nr++ {
		nrs = append(nrs, nr)
	}
	nrs = append(nrs, 1000, 4000, 0xffff, 0x3fffffff, 0x80000000, 0xbfffffff)
	if abi.Name != "SCMP_ARCH_X86_64" {
		nrs = append(nrs, x32Bit, x32Bit+1, math.MaxUint32)
	}
	return nrs
}

// TestFilterSaysWhatTheProfileSays evaluates the compiled filters for every
// number of every ABI and compares them with the profile.
func TestFilterSaysWhatTheProfileSays(t *testing.T) {
	dir := sysDir(t)
	numbers, err := ReadNumbers(dir)
	if err != nil {
		t.Fatal(err)
	}
	profile, err := Parse(profileBytes(t), someCaps)
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range Targets {
		for _, fakes := range []bool{false, true} {
			prog, err := Compile(profile, numbers, target, fakes)
			if err != nil {
				t.Fatal(err)
			}
			for _, abi := range target.ABIs {
				t.Run(fmt.Sprintf("%s/%s/emulate=%v", target.GOARCH, abi.Name, fakes), func(t *testing.T) {
					compare(t, prog, newOracle(t, dir, target, abi, fakes), abi)
				})
			}
		}
	}
}

func compare(t *testing.T, prog []unix.SockFilter, o *oracle, abi ABI) {
	seen := map[uint32]int{}
	var call callRules
	try := func(nr uint32, args [6]uint64) {
		got, want := run(t, prog, data(abi.Audit, nr, args)), o.verdict(nr, call, args)
		if got != want {
			t.Fatalf("call %#x with %#x: the filter says %s, the profile %s", nr, args, value(got), value(want))
		}
		seen[got]++
	}
	for _, nr := range numbersToTry(abi) {
		call = o.rulesOf(nr)
		try(nr, [6]uint64{})
		if len(call.names) == 0 {
			try(nr, [6]uint64{math.MaxUint64, 38, 0o060600, 0o020600, 1, 1})
			continue
		}
		step := 8 // where arguments shouldn't matter, a sample of them does
		if call.looksAtArguments() {
			step = 1
		}
		for i := range 6 {
			for k := i % step; k < len(argValues); k += step {
				v, args := argValues[k], [6]uint64{}
				args[i] = v
				if i < 5 {
					args[i+1] = 0x103 // a device number behind a mode
				}
				try(nr, args)
				args[(i+1)%6] = 0
				try(nr, args)
			}
		}
	}
	if seen[unix.SECCOMP_RET_ALLOW] == 0 || seen[o.deny] == 0 || (o.fakes && seen[fakeSuccess] == 0) {
		t.Errorf("verdicts seen: %v: not all kinds occur", seen)
	}
}

func TestForeignArchitectureIsKilled(t *testing.T) {
	numbers, err := ReadNumbers(sysDir(t))
	if err != nil {
		t.Fatal(err)
	}
	profile, err := Parse(profileBytes(t), someCaps)
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range Targets {
		prog, err := Compile(profile, numbers, target, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, audit := range []uint32{0, unix.AUDIT_ARCH_S390X, unix.AUDIT_ARCH_RISCV64, math.MaxUint32} {
			if got := run(t, prog, data(audit, 0, [6]uint64{})); got != unix.SECCOMP_RET_KILL_PROCESS {
				t.Errorf("%s, call by %#x: %s, want kill", target.GOARCH, audit, value(got))
			}
		}
	}
}

// TestNumbersAreTheKernels compares the tables, and what is written by hand for
// x32, with the headers of a C compiler.
func TestNumbersAreTheKernels(t *testing.T) {
	const include = "/usr/include/x86_64-linux-gnu/asm/"
	testenv.Need(t, "kernel-headers", func() error {
		_, err := os.Stat(include + "unistd_x32.h")
		return err
	})
	numbers, err := ReadNumbers(sysDir(t))
	if err != nil {
		t.Fatal(err)
	}
	for i, header := range []string{"unistd_64.h", "unistd_32.h", "unistd_x32.h"} {
		table, err := numbers.of(Targets[0].ABIs[i])
		if err != nil {
			t.Fatal(err)
		}
		src, err := os.ReadFile(include + header)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]uint32{}
		var newest uint32
		for _, m := range regexp.MustCompile(`__NR_(\w+) \(?(__X32_SYSCALL_BIT \+ )?(\d+)`).FindAllStringSubmatch(string(src), -1) {
			nr, err := strconv.ParseUint(m[3], 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			if m[2] != "" {
				nr |= x32Bit
			}
			want[m[1]] = uint32(nr)
			if nr&^x32Bit < 512 {
				newest = max(newest, uint32(nr))
			}
			if got, ok := table[m[1]]; !ok || got != uint32(nr) {
				t.Errorf("%s: %s is %d, want %d", header, m[1], got, nr)
			}
		}
		// Calls younger than the header are only in our table.
		for name, nr := range table {
			if _, ok := want[name]; !ok && nr <= newest && name != "uretprobe" && name != "uprobe" {
				t.Errorf("%s: %s (%d) is not a call", header, name, nr)
			}
		}
	}
}
