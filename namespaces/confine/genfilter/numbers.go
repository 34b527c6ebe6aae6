package genfilter

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"strconv"
	"strings"
)

// x32Bit marks the numbers of the x32 ABI, __X32_SYSCALL_BIT.
const x32Bit = 0x40000000

// armPrivate is where arm's own calls begin, __ARM_NR_BASE.
const armPrivate = 0xf0000

// Numbers holds the system call numbers by Go architecture and kernel name.
type Numbers map[string]map[string]uint32

// ReadNumbers reads the tables in dir, the directory of golang.org/x/sys.
func ReadNumbers(dir string) (Numbers, error) {
	n := Numbers{}
	for _, arch := range []string{"amd64", "386", "arm64", "arm"} {
		table, err := readTable(filepath.Join(dir, "unix", "zsysnum_linux_"+arch+".go"))
		if err != nil {
			return nil, fmt.Errorf("read system call numbers: %w", err)
		}
		n[arch] = table
	}
	return n, nil
}

// readTable reads the SYS_ constants of one file.
func readTable(name string) (map[string]uint32, error) {
	file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	table := map[string]uint32{}
	var bad error
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		for i, id := range spec.Names {
			bare, ok := strings.CutPrefix(id.Name, "SYS_")
			if !ok || i >= len(spec.Values) {
				continue
			}
			lit, ok := spec.Values[i].(*ast.BasicLit)
			if !ok {
				bad = fmt.Errorf("%s: %s is not a number", name, id.Name)
				continue
			}
			nr, err := strconv.ParseUint(lit.Value, 0, 32)
			if err != nil {
				bad = fmt.Errorf("%s: %s: %w", name, id.Name, err)
			}
			table[strings.ToLower(bare)] = uint32(nr)
		}
		return true
	})
	if bad == nil && len(table) < 300 {
		bad = fmt.Errorf("%s: only %d numbers", name, len(table))
	}
	return table, bad
}

// of is the ABI's table: x/sys's, with what it leaves out.
func (n Numbers) of(abi ABI) (map[string]uint32, error) {
	table := n[abi.Numbers]
	if table == nil {
		return nil, fmt.Errorf("no system call numbers for %s", abi.Numbers)
	}
	switch abi.Name {
	case "SCMP_ARCH_ARM":
		table = maps.Clone(table)
		maps.Copy(table, armOwn)
	case "SCMP_ARCH_X32":
		own := map[string]uint32{}
		for name, nr := range table {
			if !only64[name] {
				own[name] = nr | x32Bit
			}
		}
		for name, nr := range x32Own {
			own[name] = nr | x32Bit
		}
		table = own
	}
	return table, nil
}

// first is the ABI's lowest number.
func first(abi ABI) uint32 {
	if abi.Name == "SCMP_ARCH_X32" {
		return x32Bit
	}
	return 0
}

// armOwn holds arm's private calls (asm/unistd.h) and the other name of one that
// x/sys has.
var armOwn = map[string]uint32{
	"sync_file_range2": 341,
	"breakpoint":       armPrivate + 1,
	"cacheflush":       armPrivate + 2,
	"usr26":            armPrivate + 3,
	"usr32":            armPrivate + 4,
	"set_tls":          armPrivate + 5,
}

// x32Own holds the calls that have an entry of their own for x32: the lines
// marked x32 in the kernel's arch/x86/entry/syscalls/syscall_64.tbl.
var x32Own = map[string]uint32{
	"rt_sigaction": 512, "rt_sigreturn": 513, "ioctl": 514, "readv": 515, "writev": 516,
	"recvfrom": 517, "sendmsg": 518, "recvmsg": 519, "execve": 520, "ptrace": 521,
	"rt_sigpending": 522, "rt_sigtimedwait": 523, "rt_sigqueueinfo": 524, "sigaltstack": 525,
	"timer_create": 526, "mq_notify": 527, "kexec_load": 528, "waitid": 529,
	"set_robust_list": 530, "get_robust_list": 531, "vmsplice": 532, "move_pages": 533,
	"preadv": 534, "pwritev": 535, "rt_tgsigqueueinfo": 536, "recvmmsg": 537, "sendmmsg": 538,
	"process_vm_readv": 539, "process_vm_writev": 540, "setsockopt": 541, "getsockopt": 542,
	"io_setup": 543, "io_submit": 544, "execveat": 545, "preadv2": 546, "pwritev2": 547,
}

// only64 holds the calls that x32 doesn't have: the lines marked 64 in the same
// file without an x32 one.
var only64 = map[string]bool{
	"uselib": true, "_sysctl": true, "create_module": true, "get_kernel_syms": true,
	"query_module": true, "nfsservctl": true, "set_thread_area": true, "get_thread_area": true,
	"epoll_ctl_old": true, "epoll_wait_old": true, "vserver": true,
	"uretprobe": true, "uprobe": true, "map_shadow_stack": true,
}
