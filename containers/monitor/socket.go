package monitor

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"nook/containers"
)

// The control socket lies beside the record, where nobody wipes it. Some file
// systems have no sockets; then it lies in the runtime directory, by the
// container's id. Where neither can be, the container runs all the same: its
// first client has a connection of its own, and only later ones find none.
// state.json tells which it is.

// besidePath names it through the directory's descriptor: a unix socket's path
// has room for 107 bytes and the container's own may be longer.
func besidePath() string { return fmt.Sprintf("/proc/self/fd/%d/%s", fdDir, containers.SocketBeside) }

// listen serves whoever connects. It tells what stands in state.json: beside,
// a path, or "" where no socket can be.
func (m *monitor) listen(runtimeDir string) string {
	if l, err := listenAt(besidePath()); err == nil {
		m.serve(l)
		return containers.SocketBeside
	}
	if runtimeDir == "" {
		return ""
	}
	dir, err := openRuntimeDir(runtimeDir)
	if err != nil {
		return ""
	}
	defer dir.Close()
	name := containers.SocketName(m.container.ID)
	l, err := listenAt(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name))
	if err != nil {
		return ""
	}
	m.serve(l)
	return filepath.Join(runtimeDir, name)
}

func listenAt(path string) (*net.UnixListener, error) {
	_ = os.Remove(path)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on the control socket: %w", err)
	}
	l.SetUnlinkOnClose(false) // its path may mean something else by then
	return l, nil
}

func (m *monitor) serve(l *net.UnixListener) {
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go m.accept(conn.(*net.UnixConn))
		}
	}()
}

// unlisten takes the socket's name away.
func unlisten(socket string) {
	switch socket {
	case "":
	case containers.SocketBeside:
		_ = os.Remove(besidePath())
	default:
		_ = os.Remove(socket)
	}
}

// openRuntimeDir makes the directory, and refuses one that another user put in
// its place: /tmp is everybody's. Here the user is uid 0 of the namespace.
func openRuntimeDir(path string) (*os.File, error) {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make the runtime directory: %w", err)
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the runtime directory %s: %w", path, err)
	}
	dir := os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, errors.Join(fmt.Errorf("stat the runtime directory: %w", err), dir.Close())
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0 {
		return nil, errors.Join(fmt.Errorf("runtime directory %s: not a directory of ours alone: %w", path, fs.ErrPermission), dir.Close())
	}
	return dir, nil
}

// rootOf is the data root of a container's directory: ROOT/containers/ID.
func rootOf(dir string) string { return filepath.Dir(filepath.Dir(dir)) }

// What stands where in a monitor's arguments, after its name and the
// container's id.
const (
	argRuntimeDir = 2
	argLeash      = 3 // present when fdLeash is open
)

// runtimeDir reads the argument of that name.
func runtimeDir(args []string) string {
	if len(args) <= argRuntimeDir {
		return ""
	}
	return args[argRuntimeDir]
}
