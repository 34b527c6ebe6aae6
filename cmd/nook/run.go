package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/urfave/cli/v2"

	"nook/engine"
	"nook/internal/hint"
)

func runVerb() verb {
	return verb{
		name:     "run",
		long:     []string{"container run"},
		about:    "Create and run a new container from an image",
		usage:    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
		min:      1,
		max:      -1,
		verbatim: true,
		common:   true,
		options:  runOptions,
		run:      (*shell).run,
	}
}

func runOptions() []option {
	return []option{
		{name: "cidfile", value: "string", usage: "Write the container ID to the file"},
		{name: "entrypoint", value: "string", usage: "Overwrite the default ENTRYPOINT of the image"},
		{name: "env", short: "e", value: "list", usage: "Set environment variables"},
		{name: "env-file", value: "list", usage: "Read in a file of environment variables"},
		{name: "hostname", short: "h", value: "string", usage: "Container host name"},
		{name: "init", usage: "Run an init inside the container that reaps processes"},
		{name: "interactive", short: "i", usage: "Keep STDIN open"},
		{name: "label", short: "l", value: "list", usage: "Set meta data on a container"},
		{name: "label-file", value: "list", usage: "Read in a line delimited file of labels"},
		{name: "name", value: "string", usage: "Assign a name to the container"},
		{name: "network", also: "net", value: "string", usage: "Connect the container to a network: none or host"},
		{name: "read-only", usage: "Mount the container's root filesystem as read only"},
		{name: "rm", usage: "Automatically remove the container when it exits"},
		{name: "tmpfs", value: "list", usage: "Mount a tmpfs directory: DST[:options]"},
		{name: "tty", short: "t", usage: "Allocate a pseudo-TTY"},
		{name: "user", short: "u", value: "string", usage: "Username or UID (format: <name|uid>[:<group|gid>])"},
		{name: "volume", short: "v", value: "list", usage: "Bind mount a volume: SRC:DST[:ro]"},
		{name: "workdir", short: "w", value: "string", usage: "Working directory inside the container"},
	}
}

func (s *shell) run(c *cli.Context) error {
	// This command mostly waits for other processes. One thread for its
	// goroutines spares it waking others, a fifth of its time.
	runtime.GOMAXPROCS(1)
	o, err := s.readRunOptions(c)
	if err != nil {
		return err
	}
	streams := engine.Streams{Out: s.stdout, Err: s.stderr}
	if o.Interactive {
		streams.In = s.stdin
	}
	tty := openTerminal(s.stdin, s.stdout)
	if o.TTY && o.Interactive && !tty.input() {
		return hint.Errorf("leave out -t when standard input is no terminal", "the input device is not a TTY")
	}

	// No signal is caught here: they are the container's, and the engine passes
	// them on while it runs one.
	nook, err := s.engine(c.Context, c)
	if err != nil {
		return err
	}
	if o.TTY && tty != nil {
		streams.Terminal = tty
		// Without -i nobody reads what is typed, and ^C has to stay a signal.
		restore, err := tty.attach(o.Interactive)
		if err != nil {
			return fmt.Errorf("set terminal to raw mode: %w", err)
		}
		defer restore()
	}
	code, err := nook.Run(c.Context, o, streams)
	if err != nil {
		return err
	}
	if code != 0 {
		return exit(code)
	}
	return nil
}

// readRunOptions turns the flags into the engine's options. The files that flags name are
// read here, as they are the caller's and not the container's.
func (s *shell) readRunOptions(c *cli.Context) (engine.RunOptions, error) {
	var none engine.RunOptions
	if name := c.String("name"); name != "" {
		if err := checkName(name); err != nil {
			return none, err
		}
	}
	env, err := s.environment(c.StringSlice("env-file"), c.StringSlice("env"))
	if err != nil {
		return none, err
	}
	labels, err := readLabels(c.StringSlice("label-file"), c.StringSlice("label"))
	if err != nil {
		return none, err
	}
	network := c.String("network")
	switch network {
	case "", "none", "host":
	default:
		return none, hint.Errorf("none and host are known", "network %q not found", network)
	}
	if file := c.String("cidfile"); file != "" {
		if _, err := os.Lstat(file); err == nil {
			return none, hint.Errorf("delete it, or name another, if its container is no more",
				"container id file %s: already there", file)
		}
	}
	args := c.Args().Slice()
	if args[0] == "" {
		return none, hint.Errorf("see nook run --help", "image name is empty")
	}
	o := engine.RunOptions{
		Image:       args[0],
		Command:     args[1:],
		Name:        c.String("name"),
		Env:         env,
		WorkDir:     c.String("workdir"),
		User:        c.String("user"),
		Hostname:    c.String("hostname"),
		ReadOnly:    c.Bool("read-only"),
		Tmpfs:       c.StringSlice("tmpfs"),
		Volumes:     c.StringSlice("volume"),
		Network:     network,
		Labels:      labels,
		CIDFile:     c.String("cidfile"),
		Init:        c.Bool("init"),
		Remove:      c.Bool("rm"),
		Interactive: c.Bool("interactive"),
		TTY:         c.Bool("tty"),
	}
	if c.IsSet("entrypoint") {
		entrypoint := c.String("entrypoint")
		o.Entrypoint = &entrypoint
	}
	return o, nil
}

// checkName applies docker's rule, [a-zA-Z0-9][a-zA-Z0-9_.-]+.
func checkName(name string) error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	if len(name) < 2 || !strings.Contains(letters, name[:1]) || strings.Trim(name, letters+"_.-") != "" {
		return hint.Errorf("a name is two or more of a-z A-Z 0-9 _ . - and begins with a letter or digit",
			"invalid container name %q", name)
	}
	return nil
}
