package monitor

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/containers/events"
	"nook/internal/frame"
	"nook/internal/hint"
)

// What a monitor does for those who connect. A connection begins with Hello
// and one Request; the first one, which the command that started the container
// holds, is attached at once.

func hello() []byte { return encode(map[string]int{"version": frame.Version}) }

// greetFirst attaches the command that started us.
func (m *monitor) greetFirst() {
	conn := os.NewFile(fdControl, "control")
	here := frame.Write(conn, frame.Hello, hello()) == nil
	if !here && !m.state.Starting {
		_ = conn.Close()
		return
	}
	m.first = &client{conn: conn, first: true}
	if m.state.Starting { // then its word is there, be it gone
		m.first.begun = make(chan struct{})
	}
	if here {
		m.hub.join(m.first)
	}
	gone := make(chan struct{})
	m.firstGone = gone
	go func() {
		defer close(gone)
		m.hub.serve(m.first, frame.NewReader(conn))
	}()
}

// accept serves a connection of the control socket.
func (m *monitor) accept(conn *net.UnixConn) {
	if frame.Write(conn, frame.Hello, hello()) != nil {
		_ = conn.Close()
		return
	}
	// Whoever connects speaks at once; who doesn't is no client of ours.
	_ = conn.SetReadDeadline(time.Now().Add(requestTime))
	frames := frame.NewReader(conn)
	kind, payload, err := frames.Next()
	var req containers.Request
	if err != nil || kind != frame.Request || json.Unmarshal(payload, &req) != nil {
		_ = conn.Close()
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	m.answering.Add(1)
	defer m.answering.Done()
	switch req.Verb {
	case containers.VerbAttach:
		m.attach(conn, frames)
	case containers.VerbExec:
		m.exec(conn, frames, req.Exec)
	case containers.VerbDial:
		m.dial(conn, frames, req)
	default:
		gone := untilGone(frames)
		result, err := m.obey(gone, req)
		if err != nil {
			result = containers.Failed(err)
		}
		m.reply(conn, result)
		if err == nil && req.Verb == containers.VerbPause && req.Bound {
			select {
			case <-gone.Done():
				_ = m.unpause() // if nobody else did
			case <-m.done:
			}
		}
		_ = conn.Close()
	}
}

const (
	requestTime = 10 * time.Second
	// replyTime is how long an answer may take to be read: it fits into every
	// socket's buffer.
	replyTime = time.Second
)

func (m *monitor) reply(conn net.Conn, r containers.Result) bool {
	_ = conn.SetWriteDeadline(time.Now().Add(replyTime))
	err := frame.Write(conn, frame.Result, encode(r))
	_ = conn.SetWriteDeadline(time.Time{})
	return err == nil
}

// obey does what is answered with a single result.
func (m *monitor) obey(gone context.Context, req containers.Request) (containers.Result, error) {
	switch req.Verb {
	case containers.VerbSignal:
		return containers.Result{}, m.kill(gone, unix.Signal(req.Signal))
	case containers.VerbStop:
		return m.stop(gone, req)
	case containers.VerbPause:
		return containers.Result{}, m.pause()
	case containers.VerbUnpause:
		return containers.Result{}, m.unpause()
	case containers.VerbWait:
		return m.wait(gone), nil
	}
	return containers.Result{}, hint.Errorf("the container was started by an older nook: stop and start it", "request %q is not known", req.Verb)
}

// untilGone ends when the client goes away: it has nothing more to say.
func untilGone(frames *frame.Reader) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		for {
			if _, _, err := frames.Next(); err != nil {
				return
			}
		}
	}()
	return ctx
}

func (m *monitor) attach(conn *net.UnixConn, frames *frame.Reader) {
	c := &client{conn: conn}
	if !m.reply(conn, containers.Result{}) {
		_ = conn.Close()
		return
	}
	m.hub.join(c)
	select {
	case <-m.done: // too late: nobody will end it
		m.hub.leave(c)
	default:
	}
	go m.hub.serve(c, frames)
}

// answered waits until those who wait for our end were told.
func (m *monitor) answered() { m.answering.Wait() }

func (m *monitor) wait(gone context.Context) containers.Result {
	select {
	case <-m.done:
	case <-gone.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return containers.Result{ExitCode: m.state.ExitCode}
}

// running is the life that goes on now.
func (m *monitor) running() (*life, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.life == nil {
		return nil, m.notRunning()
	}
	return m.life, nil
}

// notRunning answers who wants something of a container between two runs.
func (m *monitor) notRunning() error {
	return hint.Errorf("see nook ps -a", "container %s: %w", m.config.Name, containers.ErrNotRunning)
}

// awake is running for what a paused container can't do.
func (m *monitor) awake() (*life, error) {
	l, err := m.running()
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if l.paused {
		return nil, hint.Errorf("nook unpause "+m.config.Name, "container %s %w", m.config.Name, containers.ErrPaused)
	}
	return l, nil
}

// watchLeash ends the container when the process that holds the other end of
// a pipe does: a test that was killed leaves nothing behind.
func (m *monitor) watchLeash() {
	if len(os.Args) <= argLeash { // its number is another's by now
		return
	}
	leash := os.NewFile(fdLeash, "leash")
	go func() {
		buf := make([]byte, 1)
		for {
			if n, err := leash.Read(buf); n == 0 || err != nil {
				m.end()
				return
			}
		}
	}()
}

// event tells what happened to whoever reads nook events, in the order of the
// calls, and lets nobody wait for it.
func (m *monitor) event(action string, more ...string) {
	ev := events.Container(action, m.config.ID, m.config.Name, m.config.Image, m.config.Labels, more...)
	select {
	case m.events <- ev:
	default: // a disk that hangs is no reason to hang
	}
}

// eventNow is event for one that others follow. It is the first of its run.
func (m *monitor) eventNow(action string) {
	_ = events.Append(m.root, events.Container(action, m.config.ID, m.name(), m.config.Image, m.config.Labels))
}

// begunTold tells whether the command that started the container told that it
// runs. That is the first event, and no other is told before.
func (m *monitor) begunTold() bool {
	if m.first == nil {
		return false
	}
	select {
	case <-m.first.begun:
		return true
	case <-m.firstGone:
	case <-time.After(replyTime): // it was stopped
	}
	select {
	case <-m.first.begun:
		return true
	default:
		return false
	}
}

// eventQueue is how many events may wait to be written.
const eventQueue = 64

// record writes the events. That they can't be written is no reason for
// anything.
func (m *monitor) record(starting bool) {
	defer close(m.recorded)
	if starting && !m.begunTold() {
		// Whoever was to tell it is gone.
		m.eventNow("start")
	}
	for ev := range m.events {
		if ev.Action == "" { // there are no more
			return
		}
		ev.Actor.Attributes["name"] = m.name()
		_ = events.Append(m.root, ev)
	}
}

// lastEvents waits until all of them are written.
func (m *monitor) lastEvents() {
	m.events <- events.Event{}
	<-m.recorded
}

// failure writes to the log what no client is there to be told.
func (m *monitor) failure(err error) {
	if err != nil {
		_ = m.log.Write("stderr", fmt.Appendf(nil, "nook: %v\n", err))
	}
}
