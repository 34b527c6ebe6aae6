package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"nook/internal/hint"
)

// untilSignal returns a context that ends with the first signal that asks the
// command to end; endedBy tells which. The second one ends the process, should
// the work not stop. release gives the signals back to the process.
func untilSignal(parent context.Context) (ctx context.Context, release func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	var watch sync.WaitGroup
	watch.Go(func() {
		if got, ok := <-signals; ok {
			signal.Stop(signals)
			cancel(&interrupted{got})
		}
	})
	return ctx, func() {
		signal.Stop(signals) // nothing is sent to the channel any more
		close(signals)
		watch.Wait() // a signal that did arrive is not lost
		cancel(nil)
	}
}

// endedBy returns the signal that ended ctx, with the exit code that shells use
// for it, or nil.
func endedBy(ctx context.Context) error {
	var by *interrupted
	if !errors.As(context.Cause(ctx), &by) {
		return nil
	}
	code := hint.ExitSignal
	if number, ok := by.Signal.(syscall.Signal); ok {
		code += int(number)
	}
	return hint.WithCode(by, code)
}

// work runs do until it is done or a signal ends it.
func work(parent context.Context, do func(context.Context) error) error {
	ctx, release := untilSignal(parent)
	defer release()
	err := do(ctx)
	if err == nil {
		return nil // done; a signal that came too late changes nothing
	}
	return firstOf(endedBy(ctx), err)
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

type interrupted struct{ os.Signal }

func (i *interrupted) Error() string { return fmt.Sprintf("ended by signal: %v", i.Signal) }
