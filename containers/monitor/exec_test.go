package monitor

import (
	"testing"
	"time"

	"nook/containers"
	"nook/containers/entry"
)

// A process that dies before it made its terminal is not waited for.
func TestNoTerminalOfTheDead(t *testing.T) {
	var e ends
	defer e.close()
	e.streams(&entry.Join{}, &containers.ExecRequest{TTY: true})
	if e.err != nil {
		t.Fatal(e.err)
	}
	e.closeInside()
	come := make(chan *stdio, 1)
	go func() { come <- newTerminal(e.terminal()) }()
	select {
	case io := <-come:
		if io.tty != nil {
			t.Error("a terminal came of nobody")
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("the end of the terminal's socket is never seen")
	}
}
