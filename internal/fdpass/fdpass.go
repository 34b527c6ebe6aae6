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

// Receive waits for a message with one descriptor on a SOCK_SEQPACKET socket.
// The name is the file's, for errors.
func Receive(sock int, name string) (*os.File, error) {
	var b [1]byte
	control := make([]byte, unix.CmsgSpace(4))
	for {
		n, cn, _, _, err := unix.Recvmsg(sock, b[:], control, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("receive the %s: %w", name, err)
		}
		if n == 0 {
			return nil, fmt.Errorf("receive the %s: %w", name, ErrGone)
		}
		messages, err := unix.ParseSocketControlMessage(control[:cn])
		if err != nil || len(messages) != 1 {
			return nil, fmt.Errorf("receive the %s: no descriptor came: %w", name, err)
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil || len(fds) != 1 {
			return nil, fmt.Errorf("receive the %s: no descriptor came: %w", name, err)
		}
		return os.NewFile(uintptr(fds[0]), name), nil
	}
}
