// Package hint attaches to an error what the person who reads it can do about
// it, and the exit code the command should end with.
//
//	return hint.Wrap(err, "run nook info to see what this host allows")
//
// An error is one line of fact; a hint is at most one more line. The hint is
// attached where the cause is known and printed only by cmd/nook. The package
// does not print and does not exit.
package hint

import (
	"errors"
	"fmt"
)

// Exit codes of nook itself, as docker and podman document them
// (docker run, "Exit status").
const (
	// ExitNook says that nook itself, not the container, did not succeed.
	ExitNook = 125
	// ExitCannotRun says that the entrypoint is there and can't be executed.
	ExitCannotRun = 126
	// ExitNotFound says that the entrypoint isn't there.
	ExitNotFound = 127
	// ExitSignal plus n says that the entrypoint was ended by signal n.
	ExitSignal = 128
)

type hinted struct {
	error
	advice string
}

func (h *hinted) Unwrap() error { return h.error }

// Wrap returns err with one line of advice for its reader. A nil err stays
// nil. The text of err does not change.
func Wrap(err error, advice string) error {
	if err == nil {
		return nil
	}
	return &hinted{err, advice}
}

// Errorf is Wrap around fmt.Errorf.
func Errorf(advice, format string, args ...any) error {
	return Wrap(fmt.Errorf(format, args...), advice)
}

// Of returns the advice that stands nearest to the outside of err, or "".
func Of(err error) string {
	var h *hinted
	if errors.As(err, &h) {
		return h.advice
	}
	return ""
}

type coded struct {
	error
	code int
}

func (c *coded) Unwrap() error { return c.error }

// WithCode returns err with the exit code that a command that meets it ends
// with. A nil err stays nil.
func WithCode(err error, code int) error {
	if err == nil {
		return nil
	}
	return &coded{err, code}
}

// Code returns the exit code attached to err: ExitNook when there is none, 0
// for nil.
func Code(err error) int {
	if err == nil {
		return 0
	}
	var c *coded
	if errors.As(err, &c) {
		return c.code
	}
	return ExitNook
}
