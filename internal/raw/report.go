package raw

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"nook/internal/raw/walk"
)

// ErrInterpreter in a Report's Errno: see walk.
const ErrInterpreter = walk.ErrInterpreter

// Report says which step of a program met which error.
type Report struct {
	Step  uint32
	Errno unix.Errno // or ErrInterpreter
}

// ReadReport reads what a child wrote before it ended. The end of the file
// without a byte means that every process that held the writing end has
// executed something else: ok is false and err nil.
func ReadReport(r io.Reader) (rep Report, ok bool, err error) {
	var b [walk.ReportSize]byte
	switch _, err := io.ReadFull(r, b[:]); {
	case errors.Is(err, io.EOF):
		return Report{}, false, nil
	case err != nil:
		return Report{}, false, fmt.Errorf("read a child's report: %w", err)
	}
	return Report{binary.LittleEndian.Uint32(b[:]), unix.Errno(binary.LittleEndian.Uint32(b[4:]))}, true, nil
}

// Error is a report with the step's name.
type Error struct {
	Step  string
	Errno unix.Errno
}

func (e *Error) Error() string {
	if e.Errno == ErrInterpreter {
		return e.Step + ": its interpreter is missing"
	}
	return e.Step + ": " + e.Errno.Error()
}

func (e *Error) Unwrap() error {
	if e.Errno == ErrInterpreter {
		return unix.ENOENT
	}
	return e.Errno
}

// Error gives the report the step's name.
func (p *Program) Error(r Report) *Error { return &Error{p.Name(r.Step), r.Errno} }
