package main

import (
	"context"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"nook/containers"
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
	return sorted(append(createOptions(),
		option{name: "attach", short: "a", value: "list", usage: "Attach to STDIN, STDOUT or STDERR alone"},
		option{name: "detach", short: "d", usage: "Run container in background and print container ID"},
		detachKeysOption(),
		option{name: "sig-proxy", usage: "Proxy received signals to the process (default true)"},
	))
}

func sorted(options []option) []option {
	slices.SortFunc(options, func(a, b option) int { return strings.Compare(a.name, b.name) })
	return options
}

func createOptions() []option {
	return sorted(append(healthOptions(),
		option{name: "cidfile", value: "string", usage: "Write the container ID to the file"},
		option{name: "entrypoint", value: "string", usage: "Overwrite the default ENTRYPOINT of the image"},
		option{name: "env", short: "e", value: "list", usage: "Set environment variables"},
		option{name: "env-file", value: "list", usage: "Read in a file of environment variables"},
		option{name: "hostname", short: "h", value: "string", usage: "Container host name"},
		option{name: "init", usage: "Run an init inside the container that reaps processes"},
		option{name: "interactive", short: "i", usage: "Keep STDIN open"},
		option{name: "label", short: "l", value: "list", usage: "Set meta data on a container"},
		option{name: "label-file", value: "list", usage: "Read in a line delimited file of labels"},
		option{name: "mount", value: "list", usage: "Attach a filesystem mount to the container: type=...,source=...,target=...,..."},
		option{name: "name", value: "string", usage: "Assign a name to the container"},
		option{name: "network", also: "net", value: "string", usage: "Connect the container to a network: none or host"},
		option{name: "platform", value: "string", usage: `Choose the platform of an image of several, as "os/arch[/variant]"`},
		option{name: "pull", value: "string", usage: "Pull image before running: always, missing or never (default missing)"},
		option{name: "read-only", usage: "Mount the container's root filesystem as read only"},
		option{name: "restart", value: "string", usage: "Restart policy to apply when a container exits: no, on-failure[:N], always, unless-stopped"},
		option{name: "rm", usage: "Automatically remove the container when it exits"},
		option{name: "secret", value: "list", usage: "File in /run/secrets that is kept nowhere else: id=NAME,src=FILE or id=NAME,env=VARIABLE"},
		option{name: "shm-size", value: "bytes", usage: "Size of /dev/shm (default 64m)"},
		option{name: "stop-signal", value: "string", usage: "Signal to stop the container"},
		option{name: "stop-timeout", value: "int", usage: "Timeout (in seconds) to stop a container"},
		option{name: "storage-opt", value: "list", usage: "Storage driver options for the container: size=N limits the writable layer, with --rm"},
		option{name: "tmpfs", value: "list", usage: "Mount a tmpfs directory: DST[:options]"},
		option{name: "tty", short: "t", usage: "Allocate a pseudo-TTY"},
		option{name: "user", short: "u", value: "string", usage: "Username or UID (format: <name|uid>[:<group|gid>])"},
		option{name: "volume", short: "v", value: "list", usage: "Bind mount a volume: [SRC:]DST[:OPTIONS]"},
		option{name: "volumes-from", value: "list", usage: "Mount volumes from the specified container(s): CONTAINER[:ro|rw]"},
		option{name: "workdir", short: "w", value: "string", usage: "Working directory inside the container"},
	))
}

func (s *shell) run(c *cli.Context) error {
	mostlyWaits()
	o, err := s.readRunOptions(c)
	if err != nil {
		return err
	}
	only, err := attachedOnly(c)
	if err != nil {
		return err
	}
	if c.Bool("detach") {
		return s.runDetached(c, o)
	}
	keys, err := detachKeys(c)
	if err != nil {
		return err
	}
	streams := only.of(engine.Streams{Out: s.stdout, Err: s.stderr, DetachKeys: keys})
	streams.KeepSignals = c.IsSet("sig-proxy") && !c.Bool("sig-proxy")
	if o.Interactive {
		streams.In = s.stdin
	}
	if o.TTY && o.Interactive && !openTerminal(s.stdin, s.stdout).input() {
		return hint.Errorf("leave out -t when standard input is no terminal", "the input device is not a TTY")
	}
	// No signal is caught here: they are the container's, and the engine passes
	// them on while it runs one.
	nook, err := s.engine(c.Context, c)
	if err != nil {
		return err
	}
	return unlessDetached(s.attached(o.TTY, streams, func(streams engine.Streams) (int, error) {
		return nook.Run(c.Context, s.tellsOfPull(o), streams)
	}))
}

// mostlyWaits is for a command that waits for other processes: one thread for
// its goroutines spares it waking others, a fifth of its time.
func mostlyWaits() {
	if runtime.GOMAXPROCS(0) > 1 { // internal/early set it for the usual command lines
		runtime.GOMAXPROCS(1)
	}
}

func (s *shell) runDetached(c *cli.Context, o engine.RunOptions) error {
	mostlyWaits()
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		id, err := nook.RunDetached(ctx, s.tellsOfPull(o))
		return echo(s, id, err)
	})
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
	health, err := readHealth(c)
	if err != nil {
		return none, err
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
		Mounts:      c.StringSlice("mount"),
		VolumesFrom: c.StringSlice("volumes-from"),
		Network:     network,
		Labels:      labels,
		CIDFile:     c.String("cidfile"),
		Init:        c.Bool("init"),
		Remove:      c.Bool("rm"),
		Interactive: c.Bool("interactive"),
		TTY:         c.Bool("tty"),
		Health:      health,
		StopSignal:  c.String("stop-signal"),
	}
	if err := readEnd(c, &o); err != nil {
		return none, err
	}
	if err := readSizes(c, &o); err != nil {
		return none, err
	}
	if o.Secrets, err = s.readSecrets(c); err != nil {
		return none, err
	}
	if o.Pull, err = readPull(c.String("pull")); err != nil {
		return none, err
	}
	o.PullOptions.Platform = c.String("platform")
	if c.IsSet("entrypoint") {
		entrypoint := c.String("entrypoint")
		o.Entrypoint = &entrypoint
	}
	return o, nil
}

// readEnd reads what says how a container ends, and what follows.
func readEnd(c *cli.Context, o *engine.RunOptions) error {
	if o.StopSignal != "" {
		if _, err := containers.ParseSignal(o.StopSignal); err != nil {
			return err
		}
	}
	if c.IsSet("stop-timeout") {
		n, err := readInt("--stop-timeout", c.String("stop-timeout"))
		if err != nil {
			return err
		}
		o.StopTimeout = &n
	}
	if !c.IsSet("restart") {
		return nil
	}
	var err error
	if o.Restart, err = engine.ParseRestartPolicy(c.String("restart")); err != nil {
		return err
	}
	if o.Remove && o.Restart.Wanted() {
		return hint.Errorf("leave one out", "conflicting options: cannot specify both --restart and --rm")
	}
	return nil
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
