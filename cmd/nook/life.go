package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"nook/containers"
	"nook/engine"
	"nook/internal/hint"
)

// lifecycle is the part of *engine.Engine over the life of containers.
type lifecycle interface {
	Run(context.Context, engine.RunOptions, engine.Streams) (int, error)
	RunDetached(context.Context, engine.RunOptions) (id string, err error)
	Create(context.Context, engine.RunOptions) (id string, err error)
	Start(ctx context.Context, nameOrID string) error
	StartAttached(ctx context.Context, nameOrID string, streams engine.Streams) (int, error)
	Attach(ctx context.Context, nameOrID string, streams engine.Streams) (int, error)
	Exec(ctx context.Context, nameOrID string, o engine.ExecOptions, streams engine.Streams) (int, error)
	Stop(ctx context.Context, nameOrID string, o engine.StopOptions) error
	Restart(ctx context.Context, nameOrID string, o engine.StopOptions) error
	Kill(ctx context.Context, nameOrID, signal string) error
	Pause(ctx context.Context, nameOrID string) error
	Unpause(ctx context.Context, nameOrID string) error
	Wait(ctx context.Context, nameOrID string) (int, error)
	RemoveContainers(ctx context.Context, names []string, o engine.RemoveOptions) iter.Seq2[string, error]
	ContainerTTY(nameOrID string) (tty, stdin bool, err error)
}

// overContainers is a verb that does one thing to each container named.
func overContainers(name, about string, options func() []option,
	do func(context.Context, *shell, lifecycle, *cli.Context, string) error,
) verb {
	if options == nil {
		options = func() []option { return nil }
	}
	usage := "CONTAINER [CONTAINER...]"
	if len(options()) > 0 {
		usage = "[OPTIONS] " + usage
	}
	return verb{
		name: name, long: []string{"container " + name}, about: about,
		usage: usage, min: 1, max: -1, options: options,
		run: func(s *shell, c *cli.Context) error {
			return work(c.Context, func(ctx context.Context) error {
				nook, err := s.engine(ctx, c)
				if err != nil {
					return err
				}
				return s.each(ctx, c.Args().Slice(), func(name string) error {
					return do(ctx, s, nook, c, name)
				})
			})
		},
	}
}

// echo prints the name that was given when all went well, as docker does.
func echo(s *shell, name string, err error) error {
	if err == nil {
		_, err = fmt.Fprintln(s.stdout, name)
	}
	return err
}

func stopOptions() []option {
	return []option{
		{name: "signal", short: "s", value: "string", usage: "Signal to send to the container"},
		{name: "timeout", short: "t", also: "time", value: "int", usage: "Seconds to wait before killing the container; -1: for ever"},
	}
}

func readStopOptions(c *cli.Context) (engine.StopOptions, error) {
	o := engine.StopOptions{Signal: c.String("signal")}
	if c.IsSet("timeout") {
		n, err := readInt("--timeout", c.String("timeout"))
		if err != nil {
			return o, err
		}
		o.Timeout = &n
	}
	return o, nil
}

func readInt(flag, text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, hint.Errorf("it takes a whole number", "invalid value %q for %s", text, flag)
	}
	return n, nil
}

func stopVerb() verb {
	return overContainers("stop", "Stop one or more running containers", stopOptions,
		func(ctx context.Context, s *shell, nook lifecycle, c *cli.Context, name string) error {
			o, err := readStopOptions(c)
			if err != nil {
				return err
			}
			return echo(s, name, nook.Stop(ctx, name, o))
		})
}

func restartVerb() verb {
	return overContainers("restart", "Restart one or more containers", stopOptions,
		func(ctx context.Context, s *shell, nook lifecycle, c *cli.Context, name string) error {
			o, err := readStopOptions(c)
			if err != nil {
				return err
			}
			return echo(s, name, nook.Restart(ctx, name, o))
		})
}

func killVerb() verb {
	options := func() []option {
		return []option{{name: "signal", short: "s", value: "string", usage: "Signal to send to the container"}}
	}
	return overContainers("kill", "Kill one or more running containers", options,
		func(ctx context.Context, s *shell, nook lifecycle, c *cli.Context, name string) error {
			return echo(s, name, nook.Kill(ctx, name, c.String("signal")))
		})
}

func pauseVerb() verb {
	return overContainers("pause", "Pause all processes within one or more containers", nil,
		func(ctx context.Context, s *shell, nook lifecycle, _ *cli.Context, name string) error {
			return echo(s, name, nook.Pause(ctx, name))
		})
}

func unpauseVerb() verb {
	return overContainers("unpause", "Unpause all processes within one or more containers", nil,
		func(ctx context.Context, s *shell, nook lifecycle, _ *cli.Context, name string) error {
			return echo(s, name, nook.Unpause(ctx, name))
		})
}

func waitVerb() verb {
	return overContainers("wait", "Block until one or more containers stop, then print their exit codes", nil,
		func(ctx context.Context, s *shell, nook lifecycle, _ *cli.Context, name string) error {
			code, err := nook.Wait(ctx, name)
			return echo(s, strconv.Itoa(code), err)
		})
}

func rmVerb() verb {
	options := func() []option {
		return []option{
			{name: "force", short: "f", usage: "Force the removal of a running container (uses SIGKILL)"},
			{name: "volumes", short: "v", usage: "Remove anonymous volumes associated with the container"},
		}
	}
	return verb{
		name: "rm", long: []string{"container rm", "container remove"}, about: "Remove one or more containers",
		usage: "[OPTIONS] CONTAINER [CONTAINER...]", min: 1, max: -1, options: options, run: (*shell).rm,
	}
}

func (s *shell) rm(c *cli.Context) error {
	o := engine.RemoveOptions{Force: c.Bool("force"), Volumes: c.Bool("volumes")}
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		return s.all(ctx, c.NArg(), func(next func(error) bool) {
			for name, err := range nook.RemoveContainers(ctx, c.Args().Slice(), o) {
				if o.Force && errors.Is(err, containers.ErrNotFound) {
					s.complain(err) // docker: said, and no failure
				} else if !next(echo(s, name, err)) {
					return
				}
			}
		})
	})
}

func createVerb() verb {
	return verb{
		name:     "create",
		long:     []string{"container create"},
		about:    "Create a new container",
		usage:    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
		min:      1,
		max:      -1,
		verbatim: true,
		options:  createOptions,
		run: func(s *shell, c *cli.Context) error {
			return work(c.Context, func(ctx context.Context) error {
				o, err := s.readRunOptions(c)
				if err != nil {
					return err
				}
				nook, err := s.engine(ctx, c)
				if err != nil {
					return err
				}
				id, err := nook.Create(ctx, s.tellsOfPull(o))
				return echo(s, id, err)
			})
		},
	}
}

func startVerb() verb {
	return verb{
		name:  "start",
		long:  []string{"container start"},
		about: "Start one or more stopped containers",
		usage: "[OPTIONS] CONTAINER [CONTAINER...]",
		min:   1,
		max:   -1,
		options: func() []option {
			return []option{
				{name: "attach", short: "a", usage: "Attach STDOUT/STDERR and forward signals"},
				detachKeysOption(),
				{name: "interactive", short: "i", usage: "Attach container's STDIN"},
			}
		},
		run: (*shell).start,
	}
}

func (s *shell) start(c *cli.Context) error {
	mostlyWaits()
	if !c.Bool("attach") && !c.Bool("interactive") {
		return work(c.Context, func(ctx context.Context) error {
			nook, err := s.engine(ctx, c)
			if err != nil {
				return err
			}
			return s.each(ctx, c.Args().Slice(), func(name string) error {
				return echo(s, name, nook.Start(ctx, name))
			})
		})
	}
	if c.NArg() > 1 {
		return hint.Errorf("name one, or leave out -a and -i", "you cannot start and attach multiple containers at once")
	}
	return unlessDetached(s.foreground(c, c.Args().First(), c.Bool("interactive"), true,
		func(ctx context.Context, nook backend, streams engine.Streams) (int, error) {
			return nook.StartAttached(ctx, c.Args().First(), streams)
		}))
}

func execVerb() verb {
	return verb{
		name:     "exec",
		long:     []string{"container exec"},
		about:    "Execute a command in a running container",
		usage:    "[OPTIONS] CONTAINER COMMAND [ARG...]",
		min:      2,
		max:      -1,
		verbatim: true,
		common:   true,
		flagHint: "see nook exec --help; docker's --privileged isn't there: nobody in a container gets more than its capabilities",
		options: func() []option {
			return []option{
				{name: "detach", short: "d", usage: "Detached mode: run command in the background"},
				detachKeysOption(),
				{name: "env", short: "e", value: "list", usage: "Set environment variables"},
				{name: "env-file", value: "list", usage: "Read in a file of environment variables"},
				{name: "interactive", short: "i", usage: "Keep STDIN open even if not attached"},
				{name: "tty", short: "t", usage: "Allocate a pseudo-TTY"},
				{name: "user", short: "u", value: "string", usage: "Username or UID (format: <name|uid>[:<group|gid>])"},
				{name: "workdir", short: "w", value: "string", usage: "Working directory inside the container"},
			}
		},
		run: (*shell).exec,
	}
}

func (s *shell) exec(c *cli.Context) error {
	mostlyWaits()
	keys, err := detachKeys(c)
	if err != nil {
		return err
	}
	env, err := s.environment(c.StringSlice("env-file"), c.StringSlice("env"))
	if err != nil {
		return err
	}
	args := c.Args().Slice()
	o := engine.ExecOptions{
		Command: args[1:], Env: env, User: c.String("user"), WorkDir: c.String("workdir"),
		Interactive: c.Bool("interactive"), TTY: c.Bool("tty"), Detach: c.Bool("detach"),
	}
	if o.TTY && o.Interactive && !o.Detach && !openTerminal(s.stdin, s.stdout).input() {
		return hint.Errorf("leave out -t when standard input is no terminal", "the input device is not a TTY")
	}
	nook, err := s.engine(c.Context, c)
	if err != nil {
		return err
	}
	streams := engine.Streams{Out: s.stdout, Err: s.stderr, DetachKeys: keys}
	if o.Interactive {
		streams.In = s.stdin
	}
	return s.escaped(s.attached(o.TTY && !o.Detach, streams, func(streams engine.Streams) (int, error) {
		return nook.Exec(c.Context, args[0], o, streams)
	}))
}

// healthOptions are those of run and create.
func healthOptions() []option {
	return []option{
		{name: "health-cmd", value: "string", usage: "Command to run to check health"},
		{name: "health-interval", value: "duration", usage: "Time between running the check (ms|s|m|h)"},
		{name: "health-retries", value: "int", usage: "Consecutive failures needed to report unhealthy"},
		{name: "health-start-interval", value: "duration", usage: "Time between running the check during the start period"},
		{name: "health-start-period", value: "duration", usage: "Start period for the container to initialize before starting the health-retries countdown"},
		{name: "health-timeout", value: "duration", usage: "Maximum time to allow one check to run"},
		{name: "no-healthcheck", usage: "Disable any container-specified HEALTHCHECK"},
	}
}

func readHealth(c *cli.Context) (*containers.HealthCheck, error) {
	var h containers.HealthCheck
	asked := false
	for _, d := range []struct {
		flag string
		to   *time.Duration
	}{
		{"health-interval", &h.Interval}, {"health-timeout", &h.Timeout},
		{"health-start-period", &h.StartPeriod}, {"health-start-interval", &h.StartInterval},
	} {
		if !c.IsSet(d.flag) {
			continue
		}
		asked = true
		var err error
		if *d.to, err = time.ParseDuration(c.String(d.flag)); err != nil || *d.to < 0 || *d.to > 0 && *d.to < time.Millisecond {
			return nil, hint.Errorf("a duration as 500ms, 30s or 1m30s, of 1ms or more", "invalid value %q for --%s", c.String(d.flag), d.flag)
		}
	}
	if c.IsSet("health-retries") {
		asked = true
		var err error
		if h.Retries, err = readInt("--health-retries", c.String("health-retries")); err != nil || h.Retries < 0 {
			return nil, hint.Errorf("a whole number of 0 or more", "invalid value %q for --health-retries", c.String("health-retries"))
		}
	}
	if c.IsSet("health-cmd") {
		asked = true
		h.Test = []string{"CMD-SHELL", c.String("health-cmd")}
	}
	if c.Bool("no-healthcheck") {
		if asked {
			return nil, hint.Errorf("leave one out", "--no-healthcheck conflicts with the other --health-* options")
		}
		return &containers.HealthCheck{Test: []string{"NONE"}}, nil
	}
	if !asked {
		return nil, nil //nolint:nilnil // nothing was asked for
	}
	return &h, nil
}
