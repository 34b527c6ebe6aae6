package confine

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// helperMode tells the re-executed test binary which filter to load.
const helperMode = "NOOK_SECCOMP_HELPER"

// TestFilterConfines starts this test binary again as a process that loads the
// filter and tries system calls.
func TestFilterConfines(t *testing.T) {
	for _, mode := range []string{"profile", "emulate"} {
		t.Run(mode, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestSeccompHelper$", "-test.v")
			cmd.Env = append(os.Environ(), helperMode+"="+mode, "TMPDIR="+t.TempDir())
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "--- PASS: TestSeccompHelper") {
				t.Errorf("under the filter: %v\n%s", err, out)
			}
		})
	}
}

// TestSeccompHelper is the other process. The thread that it confines is lost
// with it.
func TestSeccompHelper(t *testing.T) {
	mode := os.Getenv(helperMode)
	if mode == "" {
		return // is started by TestFilterConfines
	}
	runtime.LockOSThread()
	dir := t.TempDir()
	var calls []call
	calls = append(calls, refusedCalls()...)
	calls = append(calls, grantedCalls()...)
	for _, c := range calls {
		if errno := c.do(); c.before != anything && errno != c.before {
			t.Errorf("before the filter, %s: %v, want %v", c.name, errno, c.before)
		}
	}
	probe386 := build386(t, dir)
	no386 := errors.Is(run386(probe386, nr386Getpid), errNotRun)
	if err := load(Filter(mode == "emulate")); err != nil {
		t.Fatal(err)
	}
	for _, c := range calls {
		if errno := c.do(); errno != c.want {
			t.Errorf("%s: %v, want %v", c.name, errno, c.want)
		}
	}
	if no386 {
		t.Log("this kernel runs no i386 programs")
	} else {
		check386(t, probe386, mode == "emulate")
	}
	checkOwners(t, dir, mode == "emulate")
	checkNodes(t, dir, mode == "emulate")
}

// load confines this thread.
func load(filter []unix.SockFilter) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("load seccomp filter: %w", errno)
	}
	return nil
}

// anything stands for an answer that differs from kernel to kernel.
const anything = syscall.Errno(4095)

// call is a system call that shows the filter: without it, before is the answer,
// for root and for others, and nothing happens; with it, want.
type call struct {
	name         string
	do           func() syscall.Errno
	before, want syscall.Errno
}

func making(nr uintptr, args ...uintptr) func() syscall.Errno {
	return func() syscall.Errno {
		var a [6]uintptr
		copy(a[:], args)
		_, _, errno := unix.RawSyscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
		return errno
	}
}

// badPointer is in no address space. A call that gets as far as reading it
// answers EFAULT.
const badPointer = ^uintptr(4095)

func refusedCalls() []call {
	return []call{
		// A process of several threads can't do this: EINVAL when it is asked.
		{"unshare(CLONE_NEWUSER)", making(unix.SYS_UNSHARE, unix.CLONE_NEWUSER), unix.EINVAL, unix.EPERM},
		{"unshare(0)", making(unix.SYS_UNSHARE, 0), 0, unix.EPERM},
		{"setns(-1)", making(unix.SYS_SETNS, ^uintptr(0), 0), unix.EBADF, unix.EPERM},
		// The kernel refuses these pairs of flags, so that nothing is forked.
		{"clone(CLONE_NEWUSER|CLONE_FS)", making(unix.SYS_CLONE, unix.CLONE_NEWUSER|unix.CLONE_FS), unix.EINVAL, unix.EPERM},
		{"clone(CLONE_NEWNS|CLONE_FS)", making(unix.SYS_CLONE, unix.CLONE_NEWNS|unix.CLONE_FS), unix.EINVAL, unix.EPERM},
		{"clone3(size 0)", making(unix.SYS_CLONE3, 0, 0), unix.EINVAL, unix.ENOSYS},
		{"mount", making(unix.SYS_MOUNT, badPointer, badPointer, badPointer, 0, 0), unix.EFAULT, unix.EPERM},
		{"umount2", making(unix.SYS_UMOUNT2, badPointer, 0xffff), unix.EINVAL, unix.EPERM},
		{"open_tree", making(unix.SYS_OPEN_TREE, 0, badPointer, 0x40000000), unix.EINVAL, unix.EPERM},
		{"keyctl(4095)", making(unix.SYS_KEYCTL, 4095), unix.EOPNOTSUPP, unix.EPERM},
		{"add_key", making(unix.SYS_ADD_KEY, badPointer, 0, 0, 0, 0), unix.EFAULT, unix.EPERM},
		{"bpf(4095)", making(unix.SYS_BPF, 4095, badPointer, 8), anything, unix.EPERM},
		{"userfaultfd(bad flags)", making(unix.SYS_USERFAULTFD, 0x7fffffff), anything, unix.EPERM},
		{"io_uring_setup", making(unix.SYS_IO_URING_SETUP, 1, badPointer), anything, unix.EPERM},
		{"personality(ADDR_NO_RANDOMIZE)", personality(0x40000), 0, unix.EPERM},
		{"personality(8 | 1<<32)", personality(8 | 1<<32), 0, unix.EPERM},
		{"socket(AF_VSOCK)", socket(unix.AF_VSOCK), anything, unix.EPERM},
		{"socket(AF_ALG)", socket(unix.AF_ALG), anything, unix.EPERM},
		{"socket(AF_UNIX | 1<<32)", socket(unix.AF_UNIX | 1<<32), 0, unix.EPERM},
		{"a call newer than the profile", making(4000), unix.ENOSYS, unix.ENOSYS},
		{"file_getattr, newer than the profile", making(468, 0, badPointer, 0, 0, 0), anything, unix.ENOSYS},
	}
}

func grantedCalls() []call {
	return []call{
		{"getpid", making(unix.SYS_GETPID), 0, 0},
		{"personality(PER_LINUX)", personality(0), 0, 0},
		{"personality(PER_LINUX32)", personality(8), 0, 0},
		{"personality(UNAME26)", personality(0x20000), 0, 0},
		{"personality(UNAME26|PER_LINUX32)", personality(0x20008), 0, 0},
		{"personality(query)", personality(0xffffffff), 0, 0},
		// Allowed from 4.8 on, where ptrace can't get round a filter any more.
		{"ptrace(PTRACE_PEEKTEXT, nobody)", making(unix.SYS_PTRACE, 1, 0x7ffffffe), unix.ESRCH, unix.ESRCH},
		{"process_vm_readv(nobody)", making(unix.SYS_PROCESS_VM_READV, 0x7ffffffe, 0, 0, 0, 0, 0), anything, 0},
		{"socket(AF_UNIX)", socket(unix.AF_UNIX), 0, 0},
		{"socket(AF_NETLINK)", socket(unix.AF_NETLINK), 0, 0},
		{"chroot", making(unix.SYS_CHROOT, badPointer), unix.EFAULT, unix.EFAULT},
		{"clone(CLONE_THREAD alone)", making(unix.SYS_CLONE, unix.CLONE_THREAD), unix.EINVAL, unix.EINVAL},
		{"seccomp(bad operation)", making(unix.SYS_SECCOMP, 4095, 0, 0), unix.EINVAL, unix.EINVAL},
	}
}

// personality sets the thread's execution domain and puts the default back.
func personality(p uintptr) func() syscall.Errno {
	return func() syscall.Errno {
		_, _, errno := unix.RawSyscall(unix.SYS_PERSONALITY, p, 0, 0)
		unix.RawSyscall(unix.SYS_PERSONALITY, 0, 0, 0)
		return errno
	}
}

func socket(family uintptr) func() syscall.Errno {
	return func() syscall.Errno {
		fd, _, errno := unix.RawSyscall(unix.SYS_SOCKET, family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if errno == 0 {
			unix.Close(int(fd))
		}
		return errno
	}
}

// checkOwners changes owners to one that no user may give away to and that no
// single id container knows.
func checkOwners(t *testing.T, dir string, emulate bool) {
	name := filepath.Join(dir, "owned")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var before unix.Stat_t
	if err := unix.Stat(name, &before); err != nil {
		t.Fatal(err)
	}
	const other = 12345
	missing := filepath.Join(dir, "missing")
	for call, err := range map[string]error{
		"chown": unix.Chown(name, other, other), "lchown": unix.Lchown(name, other, other),
		"fchown":    unix.Fchown(int(f.Fd()), other, other),
		"fchownat":  unix.Fchownat(unix.AT_FDCWD, name, other, other, 0),
		"setgroups": rawSetgroups(0xfffff), // more than the kernel takes
	} {
		if emulate && err != nil {
			t.Errorf("%s: %v, want success without effect", call, err)
		}
		if !emulate && os.Geteuid() != 0 && err == nil {
			t.Errorf("%s: success as an unprivileged user", call)
		}
	}
	if err := rawSetgroups(0xfffff); !emulate && err == nil {
		t.Error("setgroups of too many groups: success, want the kernel's error")
	}
	if err := unix.Chown(missing, 0, 0); (err == nil) != emulate {
		t.Errorf("chown of a missing file: %v, want success %v", err, emulate)
	}
	var after unix.Stat_t
	if err := unix.Stat(name, &after); err != nil {
		t.Fatal(err)
	}
	if emulate && (after.Uid != before.Uid || after.Gid != before.Gid) {
		t.Errorf("owner after the chowns: %d:%d, want %d:%d", after.Uid, after.Gid, before.Uid, before.Gid)
	}
	if !emulate && os.Geteuid() == 0 && after.Uid != other {
		t.Errorf("owner after root's chown: %d, want %d", after.Uid, other)
	}
}

// rawSetgroups is for this thread alone: unix.Setgroups would do it on all.
func rawSetgroups(n uintptr) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, n, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

func checkNodes(t *testing.T, dir string, emulate bool) {
	for _, tc := range []struct {
		name string
		mode uint32
		dev  uint64
		kind uint32 // of what is there afterwards in emulate mode; 0 for nothing
	}{
		{"char", unix.S_IFCHR | 0o600, unix.Mkdev(1, 3), 0},
		{"block", unix.S_IFBLK | 0o600, unix.Mkdev(7, 0), 0},
		{"block00", unix.S_IFBLK | 0o600, 0, 0},
		{"whiteout", unix.S_IFCHR | 0o600, 0, unix.S_IFCHR},
		{"fifo", unix.S_IFIFO | 0o600, 0, unix.S_IFIFO},
		{"socket", unix.S_IFSOCK | 0o600, 0, unix.S_IFSOCK},
		{"file", unix.S_IFREG | 0o600, 0, unix.S_IFREG},
		{"untyped", 0o600, 0, unix.S_IFREG},
	} {
		for way, mknod := range map[string]func(string) error{
			"mknod":   func(p string) error { return unix.Mknod(p, tc.mode, int(tc.dev)) },
			"mknodat": func(p string) error { return unix.Mknodat(unix.AT_FDCWD, p, tc.mode, int(tc.dev)) },
		} {
			path := filepath.Join(dir, tc.name+"."+way)
			err := mknod(path)
			var st unix.Stat_t
			there := unix.Lstat(path, &st) == nil
			switch {
			case tc.kind != 0 && (err != nil || !there || st.Mode&unix.S_IFMT != tc.kind):
				t.Errorf("%s of a %s: %v, mode %#o, want type %#o", way, tc.name, err, st.Mode, tc.kind)
			case tc.kind == 0 && emulate && (err != nil || there):
				t.Errorf("%s of a %s: %v, made: %v; want success and nothing made", way, tc.name, err, there)
			case tc.kind == 0 && !emulate && (err == nil) != there:
				t.Errorf("%s of a %s: %v, made: %v", way, tc.name, err, there)
			}
		}
	}
}

// i386 system call numbers.
const (
	nr386Getpid  = 20
	nr386Umount  = 22
	nr386Chown   = 182
	nr386Unshare = 310
	nr386Clone3  = 435
	nr386Newer   = 468
)

// errNotRun is a program that the kernel doesn't start.
var errNotRun = errors.New("not started")

// build386 writes a program for i386 that makes one call, with the number and
// the first argument from its argument's bytes, and exits with the error.
func build386(t *testing.T, dir string) string {
	const base = 0x08048000
	code := []byte{
		0x8b, 0x74, 0x24, 0x08, // mov esi, [esp+8]: argv[1]
		0x0f, 0xb6, 0x06, 0x2c, 0x41, // movzx eax, byte [esi]; sub al, 'A'
		0x0f, 0xb6, 0x4e, 0x01, 0x80, 0xe9, 0x41, // movzx ecx, byte [esi+1]; sub cl, 'A'
		0xc1, 0xe1, 0x04, 0x01, 0xc8, // shl ecx, 4; add eax, ecx
		0x0f, 0xb6, 0x4e, 0x02, 0x80, 0xe9, 0x41, // third digit
		0xc1, 0xe1, 0x08, 0x01, 0xc8, // shl ecx, 8; add eax, ecx
		0x31, 0xdb, 0x31, 0xc9, 0x31, 0xd2, // all arguments 0
		0xcd, 0x80, // int 0x80
		0xf7, 0xd8, 0x79, 0x02, 0x31, 0xc0, // neg eax; jns +2; xor eax, eax
		0x89, 0xc3, 0xb8, 1, 0, 0, 0, 0xcd, 0x80, // exit(eax)
	}
	head := elf.Header32{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_386), Version: 1, Entry: base + 84,
		Phoff: 52, Ehsize: 52, Phentsize: 32, Phnum: 1,
	}
	copy(head.Ident[:], elf.ELFMAG+"\x01\x01\x01")
	size := uint32(84 + len(code))
	prog := elf.Prog32{
		Type: uint32(elf.PT_LOAD), Vaddr: base, Filesz: size, Memsz: size,
		Flags: uint32(elf.PF_R | elf.PF_X), Align: 4096,
	}
	var b []byte
	for _, part := range []any{head, prog, code} {
		var err error
		if b, err = binary.Append(b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	name := filepath.Join(dir, "probe386")
	if err := os.WriteFile(name, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

// run386 makes an i386 call in a child and gives its errno as the error.
func run386(program string, nr int) error {
	digits := []byte{'A' + byte(nr&15), 'A' + byte(nr>>4&15), 'A' + byte(nr>>8)}
	err := exec.Command(program, string(digits)).Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return syscall.Errno(exit.ExitCode())
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errNotRun, err)
	}
	return nil
}

// check386 makes the same kinds of calls by i386's numbers.
func check386(t *testing.T, program string, emulate bool) {
	chown := error(unix.EFAULT) // of the null path
	if emulate {
		chown = nil
	}
	for _, tc := range []struct {
		name string
		nr   int
		want error
	}{
		{"getpid", nr386Getpid, nil},
		{"umount", nr386Umount, unix.EPERM},
		{"unshare", nr386Unshare, unix.EPERM},
		{"clone3", nr386Clone3, unix.ENOSYS},
		{"file_getattr", nr386Newer, unix.ENOSYS},
		{"chown", nr386Chown, chown},
	} {
		if err := run386(program, tc.nr); !errors.Is(err, tc.want) {
			t.Errorf("i386 %s: %v, want %v", tc.name, err, tc.want)
		}
	}
}

// BenchmarkLoadFilter measures seccomp(2) alone, on a thread a time.
func BenchmarkLoadFilter(b *testing.B) {
	for _, emulate := range []bool{false, true} {
		b.Run(fmt.Sprintf("emulate=%v", emulate), func(b *testing.B) {
			b.StopTimer()
			for range b.N {
				errs := make(chan error)
				go func() {
					runtime.LockOSThread() // never unlocked: the thread ends with its filter
					b.StartTimer()
					err := load(Filter(emulate))
					b.StopTimer()
					errs <- err
				}()
				if err := <-errs; err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
