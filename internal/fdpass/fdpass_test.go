package fdpass

import (
	"errors"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func pair(t *testing.T) (*os.File, int) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(p[0]), "sock")
	t.Cleanup(func() { _ = f.Close() })
	return f, p[1]
}

func TestReceiveGivesTheSendersFile(t *testing.T) {
	sock, theirs := pair(t)
	defer unix.Close(theirs)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := unix.Sendmsg(theirs, []byte{1}, unix.UnixRights(int(w.Fd())), nil, 0); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	got, err := Receive(sock, "pipe")
	if err != nil {
		t.Fatal(err)
	}
	if flags, err := unix.FcntlInt(got.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v; want close-on-exec", flags, err)
	}
	_, _ = got.WriteString("through")
	_ = got.Close()
	if text, err := io.ReadAll(r); err != nil || string(text) != "through" {
		t.Errorf("got %q, %v", text, err)
	}
}

func TestReceiveTellsThatTheSenderIsGone(t *testing.T) {
	sock, theirs := pair(t)
	unix.Close(theirs)
	if _, err := Receive(sock, "root"); !errors.Is(err, ErrGone) {
		t.Errorf("got %v, want ErrGone", err)
	}
}

func TestReceiveWantsADescriptor(t *testing.T) {
	sock, theirs := pair(t)
	defer unix.Close(theirs)
	if err := unix.Sendmsg(theirs, []byte{1}, nil, nil, 0); err != nil {
		t.Fatal(err)
	}
	if f, err := Receive(sock, "root"); err == nil {
		t.Errorf("got %v, want an error", f)
	}
}
