package build

import "time"

// Event is one thing that happened in a build. Steps are numbered in the order
// in which they first show something; 0 is none.
type Event struct {
	Step int
	Kind EventKind
	Time time.Time
	// Text is the step's name for Started, a line about it for Told, output of
	// its command for Wrote.
	Text string
	Err  error // of Failed
}

// EventKind is what happened.
type EventKind int

// What can happen.
const (
	Started EventKind = iota
	Told              // something to say about the step
	Wrote             // its command did; not always whole lines
	Cached            // it was not done, the cache had it
	Done
	Failed
	Canceled // another step failed first
	Warned   // about the Dockerfile; Step is 0
)

// step is one started step.
type step struct {
	s    *solver
	n    int
	name string
	tail tail
}

// begin numbers a step and tells of it.
func (s *solver) begin(name string) *step {
	s.mu.Lock()
	s.steps++
	st := &step{s: s, n: s.steps, name: name}
	s.mu.Unlock()
	st.tell(Event{Kind: Started, Text: name})
	return st
}

func (st *step) tell(e Event) {
	if st.s.o.Event == nil {
		return
	}
	e.Step, e.Time = st.n, time.Now()
	st.s.o.Event(e)
}

// Write is the output of the step's command.
func (st *step) Write(p []byte) (int, error) {
	_, _ = st.tail.Write(p)
	st.tell(Event{Kind: Wrote, Text: string(p)})
	return len(p), nil
}

// tailSize is how many bytes of a command's output are kept for its error.
const tailSize = 8 << 10

// tail is the end of an output.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if over := len(t.b) - tailSize; over > tailSize {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}
