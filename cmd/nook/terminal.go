package main

import (
	"errors"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
)

// terminal is the caller's terminal, an engine.Terminal.
type terminal struct {
	in, out *os.File // nil: that side is no terminal
	resized chan struct{}
}

// openTerminal returns nil when neither side is a terminal.
func openTerminal(in, out any) *terminal {
	t := &terminal{in: asTerminal(in), out: asTerminal(out), resized: make(chan struct{}, 1)}
	if t.in == nil && t.out == nil {
		return nil
	}
	return t
}

func asTerminal(stream any) *os.File {
	if f, ok := stream.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return f
	}
	return nil
}

// input says whether standard input is a terminal.
func (t *terminal) input() bool { return t != nil && t.in != nil }

// Size asks the side that shows what the container prints, then the other.
func (t *terminal) Size() (rows, cols uint16, err error) {
	err = errors.New("no terminal")
	for _, f := range []*os.File{t.out, t.in} {
		if f == nil {
			continue
		}
		var w, h int
		if w, h, err = term.GetSize(int(f.Fd())); err == nil {
			return uint16(h), uint16(w), nil
		}
	}
	return 0, 0, err
}

// Resized gets a value whenever the size changed; values that nobody took yet
// count as one.
func (t *terminal) Resized() <-chan struct{} { return t.resized }

// attach begins to watch the size and, if raw, puts the input side into raw
// mode. restore undoes both and has to run on every way out.
//
// SIGTSTP is left alone: in raw mode ^Z is a byte for the container, and a
// signal from elsewhere stops nook as the sender wants.
func (t *terminal) attach(raw bool) (restore func(), err error) {
	undo := func() {}
	if raw && t.in != nil {
		fd := int(t.in.Fd())
		before, err := term.MakeRaw(fd)
		if err != nil {
			return nil, err
		}
		undo = func() { _ = term.Restore(fd, before) }
	}
	winch := make(chan os.Signal, 1)
	done := make(chan struct{})
	signal.Notify(winch, syscall.SIGWINCH)
	go func() {
		for {
			select {
			case <-winch:
				select {
				case t.resized <- struct{}{}:
				default: // one is waiting already
				}
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(winch)
		close(done)
		undo()
	}, nil
}
