package build

import (
	"strings"

	"nook/internal/hint"
)

// StepError is a RUN whose command failed.
type StepError struct {
	Step   string // as progress shows it
	Output string // the end of what it wrote
	// Enter is the id of an image of the state before the step, "" where none
	// could be made.
	Enter string
	Err   error // a *dockerfile.Error around an *ExitError

	before *CommitSpec // of that state
}

func (e *StepError) Error() string { return e.Err.Error() }
func (e *StepError) Unwrap() error { return e.Err }

// otherStageError is what another stage failed of. It has a place of its own, and
// who waits for the stage may hear of it before the build does.
type otherStageError struct{ err error }

func (e *otherStageError) Error() string { return e.err.Error() }
func (e *otherStageError) Unwrap() error { return e.err }

// tailLines is how many lines of output an error shows.
const tailLines = 20

// text is the last lines, the first of them whole.
func (t *tail) text() string {
	lines := strings.Split(strings.TrimRight(string(t.b), "\r\n"), "\n")
	if over := len(lines) - tailLines; over > 0 {
		lines = lines[over:]
	}
	for i, line := range lines {
		// What a progress bar has overwritten isn't shown.
		line = strings.TrimRight(line, "\r")
		lines[i] = line[strings.LastIndex(line, "\r")+1:]
	}
	return strings.Join(lines, "\n")
}

var errContext = hint.Errorf("give a directory, a git URL, or - for a tar archive on standard input", "no build context")
