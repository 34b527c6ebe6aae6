// Package fdpass receives a file descriptor over a unix socket (unix(7),
// SCM_RIGHTS), one with each message.
//
//	f, err := fdpass.Receive(sock, "root")
//
// The sender is a raw child, which builds the message beforehand: see
// containers/pid1.
package fdpass

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrGone says that the sender closed its end and sent nothing.
var ErrGone = errors.New("sender is gone")

// Receive waits for a message with one descriptor on a SOCK_SEQPACKET socket,
// which should be non-blocking: then it waits in Go's poller. The name is the
// received file's, for errors.
func Receive(sock *os.File, name string) (*os.File, error) {
	conn, err := sock.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("receive the %s: %w", name, err)
	}
	var b [1]byte
	var n, controlLen int
	var failure error
	control := make([]byte, unix.CmsgSpace(4))
	err = conn.Read(func(fd uintptr) bool {
		for {
			n, controlLen, _, _, failure = unix.Recvmsg(int(fd), b[:], control, unix.MSG_CMSG_CLOEXEC)
			if !errors.Is(failure, unix.EINTR) {
				return !errors.Is(failure, unix.EAGAIN)
			}
		}
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("receive the %s: %w", name, err)
	case failure == nil && n == 0, errors.Is(failure, unix.ECONNRESET): // reset: it left what we sent unread
		return nil, fmt.Errorf("receive the %s: %w", name, ErrGone)
	case failure != nil:
		return nil, fmt.Errorf("receive the %s: %w", name, failure)
	}
	messages, err := unix.ParseSocketControlMessage(control[:controlLen])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("receive the %s: no descriptor came: %w", name, err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("receive the %s: no descriptor came: %w", name, err)
	}
	_ = unix.SetNonblock(fds[0], true) // EBADF for one opened with O_PATH
	return os.NewFile(uintptr(fds[0]), name), nil
}
