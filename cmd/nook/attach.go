package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"nook/engine"
	"nook/internal/hint"
)

func attachVerb() verb {
	return verb{
		name:  "attach",
		long:  []string{"container attach"},
		about: "Attach local standard input, output, and error streams to a running container",
		usage: "[OPTIONS] CONTAINER",
		min:   1,
		max:   1,
		options: func() []option {
			return []option{
				detachKeysOption(),
				{name: "no-stdin", usage: "Do not attach STDIN"},
				{name: "sig-proxy", usage: "Proxy all received signals to the process (default true)"},
			}
		},
		run: func(s *shell, c *cli.Context) error {
			name := c.Args().First()
			return s.escaped(s.foreground(c, name, !c.Bool("no-stdin"), !c.IsSet("sig-proxy") || c.Bool("sig-proxy"),
				func(ctx context.Context, nook backend, streams engine.Streams) (int, error) {
					return nook.Attach(ctx, name, streams)
				}))
		},
	}
}

// attachments are the values of run -a; none: all.
type attachments []string

// attachedOnly reads run -a as docker does. Its -a stdin alone, which goes when
// the input ends, is run -d -i and attach.
func attachedOnly(c *cli.Context) (attachments, error) {
	var list attachments
	for _, value := range c.StringSlice("attach") {
		stream := strings.ToLower(value)
		if !slices.Contains([]string{"stdin", "stdout", "stderr"}, stream) {
			return nil, hint.Errorf("stdin, stdout and stderr are the streams", "invalid value %q for --attach", value)
		}
		list = append(list, stream)
	}
	switch {
	case len(list) > 0 && c.Bool("detach"):
		return nil, hint.Errorf("leave one out", "conflicting options: -a and -d")
	case len(list) > 0 && !slices.Contains(list, "stdout") && !slices.Contains(list, "stderr"):
		return nil, hint.Errorf("use run -d -i, and nook attach", "-a stdin needs -a stdout or -a stderr with it")
	}
	return list, nil
}

// of leaves of the output what was asked for; the container's log has it all.
func (a attachments) of(streams engine.Streams) engine.Streams {
	if len(a) > 0 && !slices.Contains(a, "stdout") {
		streams.Out = nil
	}
	if len(a) > 0 && !slices.Contains(a, "stderr") {
		streams.Err = nil
	}
	return streams
}

// foreground is a command attached to a container that is there: its terminal,
// if it has one, is the container's for as long.
func (s *shell) foreground(c *cli.Context, name string, stdin, signals bool,
	do func(context.Context, backend, engine.Streams) (int, error),
) error {
	mostlyWaits()
	keys, err := detachKeys(c)
	if err != nil {
		return err
	}
	nook, err := s.engine(c.Context, c)
	if err != nil {
		return err
	}
	tty, open, err := nook.ContainerTTY(name)
	if err != nil {
		return err
	}
	streams := engine.Streams{Out: s.stdout, Err: s.stderr, DetachKeys: keys, KeepSignals: !signals}
	if stdin && open {
		streams.In = s.stdin
	}
	return s.attached(tty, streams, func(streams engine.Streams) (int, error) {
		return do(c.Context, nook, streams)
	})
}

// attached lends the terminal, for a process that has one, and turns the
// process's end into the command's.
func (s *shell) attached(tty bool, streams engine.Streams, do func(engine.Streams) (int, error)) error {
	if t := openTerminal(s.stdin, s.stdout); tty && t != nil {
		streams.Terminal = t
		// Without -i nobody reads what is typed, and ^C has to stay a signal.
		restore, err := t.attach(streams.In != nil)
		if err != nil {
			return fmt.Errorf("set terminal to raw mode: %w", err)
		}
		defer restore()
	}
	if !tty {
		streams.DetachKeys = nil // no terminal types them
	}
	code, err := do(streams)
	if err == nil && code != 0 {
		return exit(code)
	}
	return err
}

// escaped is how attach and exec end by the detach keys: with these words and
// code 1, as docker's (run and start end well).
func (s *shell) escaped(err error) error {
	if errors.Is(err, engine.ErrDetached) {
		fmt.Fprintln(s.stderr, "read escape sequence")
		return exit(1)
	}
	return err
}

// unlessDetached is how run and start end by the detach keys.
func unlessDetached(err error) error {
	if errors.Is(err, engine.ErrDetached) {
		return nil
	}
	return err
}

func detachKeysOption() option {
	return option{name: "detach-keys", value: "string", usage: "Override the key sequence for detaching a container (default ctrl-p,ctrl-q)"}
}

// detachKeys reads docker's grammar: single letters and ctrl-X, by commas.
func detachKeys(c *cli.Context) ([]byte, error) {
	if !c.IsSet("detach-keys") {
		return []byte{16, 17}, nil // ctrl-p, ctrl-q
	}
	var keys []byte
	text := c.String("detach-keys")
	for key := range strings.SplitSeq(text, ",") {
		ctrl, isCtrl := strings.CutPrefix(key, "ctrl-")
		const controls = "@abcdefghijklmnopqrstuvwxyz[\\]^_"
		switch {
		case text == "": // none
		case isCtrl && len(ctrl) == 1 && strings.Contains(controls, strings.ToLower(ctrl)):
			keys = append(keys, byte(strings.Index(controls, strings.ToLower(ctrl))))
		case len(key) == 1:
			keys = append(keys, key[0])
		default:
			return nil, hint.Errorf("letters and ctrl-X with X of a-z @ [ \\ ] ^ _, by commas", "invalid detach keys %q", text)
		}
	}
	return keys, nil
}
