package main

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"

	"nook/internal/hint"
)

func TestASignalEndsTheWorkWithItsCode(t *testing.T) {
	err := work(t.Context(), func(ctx context.Context) error {
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		<-ctx.Done()
		return ctx.Err()
	})
	if hint.Code(err) != 128+15 || err.Error() != "ended by signal: terminated" {
		t.Errorf("got %v, code %d; want the signal, code 143", err, hint.Code(err))
	}
}

func TestWorkWithoutASignal(t *testing.T) {
	own := errors.New("its own")
	if err := work(t.Context(), func(context.Context) error { return own }); !errors.Is(err, own) || hint.Code(err) != 125 {
		t.Errorf("got %v, code %d", err, hint.Code(err))
	}
	// Done is done, whatever came in the last moment.
	if err := work(t.Context(), func(ctx context.Context) error {
		_ = syscall.Kill(os.Getpid(), syscall.SIGINT)
		<-ctx.Done()
		return nil
	}); err != nil {
		t.Errorf("work that was done: %v", err)
	}
}
