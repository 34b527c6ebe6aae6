package build

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nook/build/dockerfile"
	"nook/images"
	"nook/internal/hint"
)

// chain does the instructions of one stage.
type chain struct {
	s     *solver
	st    *stage
	b     *built
	n     int // layers' instructions so far
	total int
	last  *step // what failed, if something did
	given int   // bytes of variables that its instructions put in
}

// name is how progress shows an instruction: [builder 2/5] RUN make.
func (c *chain) name(text string) string {
	c.n++
	label := ""
	if len(c.s.plan.stages) > 1 {
		label = c.st.label() + " "
	}
	width := len(strconv.Itoa(c.total))
	return fmt.Sprintf("[%s%*d/%d] %s", label, width, c.n, c.total, text)
}

// begun shows the first step, which begins() did.
func (c *chain) begun() {
	text := "FROM " + c.st.image
	if c.b.base != nil && c.st.base == nil {
		text = "FROM " + familiar(c.st.image)
		if d := c.b.base.Digest; d != "" && !strings.Contains(text, "@") {
			text += "@" + d
		}
	}
	c.s.begin(c.name(text)).tell(Event{Kind: Done})
}

func (c *chain) scope() *scope {
	return &scope{
		escape: c.s.plan.file.Escape, env: c.b.config.Config.Env, names: c.b.variables(), args: c.b.args,
		given: &c.given, work: &c.s.work,
	}
}

// do does one instruction. Its errors have no place yet.
func (c *chain) do(ctx context.Context, in *dockerfile.Instruction) error {
	cfg := &c.b.config.Config
	vars := c.scope()
	switch cmd := in.Command.(type) {
	case *dockerfile.Run:
		return c.run(ctx, in, cmd)
	case *dockerfile.Copy:
		return c.copy(ctx, in, cmd)
	case *dockerfile.Workdir:
		return c.workdir(ctx, cmd)
	case *dockerfile.Arg:
		return c.arg(in, cmd)
	case *dockerfile.Env:
		pairs, err := vars.pairs(cmd.Pairs)
		if err != nil {
			return err
		}
		for _, p := range pairs {
			c.b.setEnv(p.Name, p.Value)
		}
		c.meta(in)
	case *dockerfile.Label:
		pairs, err := vars.pairs(cmd.Pairs)
		if err != nil {
			return err
		}
		labels := owned(c.b, &cfg.Labels, &c.b.own.labels)
		for _, p := range pairs {
			labels[p.Name] = p.Value
		}
		c.meta(in)
	default:
		return c.configure(in, cfg, vars)
	}
	return nil
}

// configure does the instructions that only change the image's config.
func (c *chain) configure(in *dockerfile.Instruction, cfg *images.ContainerConfig, vars *scope) (err error) {
	switch cmd := in.Command.(type) {
	case *dockerfile.User:
		if cfg.User, err = vars.word(cmd.User); err == nil && cfg.User == "" {
			err = fmt.Errorf("USER %s is empty", cmd.User)
		}
	case *dockerfile.Expose:
		err = c.expose(vars, cmd.Ports)
	case *dockerfile.Volume:
		volumes := owned(c.b, &cfg.Volumes, &c.b.own.volumes)
		for _, text := range cmd.Paths {
			volume, err := vars.word(text)
			if err == nil && volume == "" {
				err = fmt.Errorf("VOLUME %s is empty", text)
			}
			if err != nil {
				return err
			}
			volumes[volume] = struct{}{}
		}
	case *dockerfile.Cmd:
		cfg.Cmd, c.b.cmdSet = withShell(cfg, cmd.CommandLine), true
	case *dockerfile.Entrypoint:
		cfg.Entrypoint = withShell(cfg, cmd.CommandLine)
		if !c.b.cmdSet {
			cfg.Cmd = nil // it belonged to the base's entrypoint
		}
	case *dockerfile.Shell:
		cfg.Shell = cmd.Words
	case *dockerfile.StopSignal:
		if cfg.StopSignal, err = vars.word(cmd.Signal); err == nil {
			err = checkSignal(cfg.StopSignal)
		}
	case *dockerfile.Maintainer:
		c.b.config.Author = cmd.Name
	case *dockerfile.Onbuild:
		cfg.OnBuild = append(cfg.OnBuild, cmd.Instruction) // each stage begins with none
	case *dockerfile.Healthcheck:
		cfg.Healthcheck = &images.Healthcheck{
			Test: cmd.Test, Interval: cmd.Interval, Timeout: cmd.Timeout,
			StartPeriod: cmd.StartPeriod, StartInterval: cmd.StartInterval, Retries: cmd.Retries,
		}
	default:
		err = fmt.Errorf("%s is not known to the solver", in.Keyword)
	}
	if err == nil {
		c.meta(in)
	}
	return err
}

// meta notes an instruction that made no layer.
func (c *chain) meta(in *dockerfile.Instruction) {
	c.b.history = append(c.b.history, images.History{CreatedBy: in.Text, EmptyLayer: true})
}

// pairs expands all before any is set: ENV a=1 b=$a means the a of before.
func (s *scope) pairs(pairs []dockerfile.Pair) ([]dockerfile.Pair, error) {
	var out []dockerfile.Pair
	for _, p := range pairs {
		name, err := s.word(p.Name)
		if err != nil {
			return nil, err
		}
		value, err := s.word(p.Value)
		if err != nil {
			return nil, err
		}
		if name == "" {
			return nil, fmt.Errorf("the name %s is empty", p.Name)
		}
		out = append(out, dockerfile.Pair{Name: name, Value: value})
	}
	return out, nil
}

// arg declares arguments: --build-arg's value, the default, or that of the ARG
// before the first FROM.
func (c *chain) arg(in *dockerfile.Instruction, cmd *dockerfile.Arg) error {
	p := c.s.plan
	for _, arg := range cmd.Args {
		value, ok := p.o.Args[arg.Name]
		switch {
		case ok:
		case arg.Default != nil:
			var err error
			if value, err = c.scope().word(*arg.Default); err != nil {
				return err
			}
			ok = true
		default:
			value, ok = p.global.args[arg.Name]
		}
		if ok {
			owned(c.b, &c.b.args, &c.b.own.args)[arg.Name] = value
		}
	}
	c.meta(in)
	return nil
}

// withShell is the command as the config keeps it.
func withShell(cfg *images.ContainerConfig, line dockerfile.CommandLine) []string {
	if !line.Shell || len(line.Words) == 0 {
		return line.Words
	}
	shell := cfg.Shell
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(shell), line.Words...)
}

// mostPorts bounds the ports that all EXPOSE of a build name: all there are, five
// times.
const mostPorts = 1 << 20

var errPorts = fmt.Errorf("EXPOSE names more than %d ports in all", mostPorts)

// expose reads ports: 80, 80/udp, 8000-8005.
func (c *chain) expose(vars *scope, texts []string) error {
	ports, err := vars.words(texts)
	if err != nil {
		return err
	}
	exposed := owned(c.b, &c.b.config.Config.ExposedPorts, &c.b.own.ports)
	for _, port := range ports {
		numbers, protocol, given := strings.Cut(port, "/")
		if !given {
			protocol = "tcp"
		}
		protocol = strings.ToLower(protocol)
		first, last, isRange := strings.Cut(numbers, "-")
		from, err1 := strconv.ParseUint(first, 10, 16)
		to := from
		var err2 error
		if isRange {
			to, err2 = strconv.ParseUint(last, 10, 16)
		}
		if err1 != nil || err2 != nil || to < from || !slices.Contains([]string{"tcp", "udp", "sctp"}, protocol) {
			return hint.Errorf("write it like 80, 53/udp or 8000-8010", "invalid port: %s", port)
		}
		if c.s.ports.Add(int64(to-from+1)) > mostPorts {
			return errPorts
		}
		for n := from; n <= to; n++ {
			exposed[fmt.Sprintf("%d/%s", n, protocol)] = struct{}{}
		}
	}
	return nil
}

// checkSignal refuses what is no signal's name or number.
func checkSignal(s string) error {
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if n, err := strconv.Atoi(name); err == nil && n > 0 && n <= 64 {
		return nil
	}
	if unix.SignalNum("SIG"+name) != 0 || strings.HasPrefix(name, "RTMIN") || strings.HasPrefix(name, "RTMAX") {
		return nil
	}
	return hint.Errorf("write it like SIGTERM, 15 or SIGRTMIN+3", "unknown signal: %q", s)
}

// workdir sets the working directory, and makes it: as the user, with docker.
func (c *chain) workdir(ctx context.Context, cmd *dockerfile.Workdir) error {
	dir, err := c.scope().word(cmd.Path)
	if err != nil {
		return err
	}
	if dir == "" {
		return fmt.Errorf("WORKDIR %s is empty", cmd.Path)
	}
	cfg := &c.b.config.Config
	dir = c.absolute(dir)
	spec := DirSpec{Path: dir, Owner: cfg.User, Epoch: Epoch{c.s.o.Epoch}}
	below := c.b.state
	k := stepKey{below, "workdir", dir, spec.Owner, epochPart(c.s.o.Epoch)}
	state, err := c.cached(ctx, c.name("WORKDIR "+dir), k, "regular", below, func(ctx context.Context, _ *step) (State, error) {
		return c.s.w.MakeDir(ctx, below, spec)
	})
	if err != nil {
		return err
	}
	cfg.WorkingDir = dir
	c.advance(state, "WORKDIR "+dir)
	return nil
}

// absolute joins a path to the working directory.
func (c *chain) absolute(p string) string {
	if path.IsAbs(p) {
		return path.Clean(p)
	}
	return path.Join("/", c.b.config.Config.WorkingDir, p)
}

// advance makes a step's state the stage's.
func (c *chain) advance(state State, createdBy string) {
	c.b.history = append(c.b.history, images.History{
		CreatedBy: createdBy, EmptyLayer: len(state.Layers) == len(c.b.state.Layers),
	})
	c.b.state = state
}

// cached returns the state under a key, or does the step and remembers it. Two
// stages with the same step do it once.
func (c *chain) cached(ctx context.Context, name string, k stepKey, kind string, below State,
	do func(context.Context, *step) (State, error),
) (State, error) {
	s := c.s
	step := s.begin(name)
	c.last = step
	did := false
	local := k.local()
	info := CacheInfo{Step: name, Kind: kind}
	doing := local
	if c.noCache() {
		doing += " again" // what another stage found isn't meant
	}
	state, err := once(ctx, &s.mu, s.keys, doing, func() (State, error) {
		if !c.noCache() {
			if state, ok := s.lookup(k, below); ok {
				return state, nil
			}
		}
		did = true
		state, err := do(ctx, step)
		if err != nil {
			return State{}, err
		}
		if settled, ok := k.with(s.w.Fetched); ok {
			return state, s.w.Remember(settled, state, info)
		}
		return state, s.w.Remember(local, state, info)
	})
	if err == nil {
		s.solved(solvedStep{k, below, state, info})
	}
	if err == nil && !did {
		step.tell(Event{Kind: Cached})
		return state, nil
	}
	step.end(ctx, err)
	return state, err
}

func (c *chain) noCache() bool {
	return c.s.o.NoCache || c.st.noCache
}

// failure gives an error its place in the Dockerfile, and a way into the state
// that the failed step began with.
func (c *chain) failure(ctx context.Context, in *dockerfile.Instruction, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return err
	}
	var other *otherStageError
	if errors.As(err, &other) {
		return other.err
	}
	fault := in.Fault("", err)
	var placed *dockerfile.Error
	if errors.As(err, &placed) {
		fault = placed
	}
	var exit *ExitError
	if !errors.As(err, &exit) || c.last == nil {
		return fault
	}
	failed := &StepError{Step: c.last.name, Output: c.last.tail.text(), Err: fault}
	if exit.Err != nil && exit.Args[0] == "/bin/sh" {
		return failed // without a shell there is no way in
	}
	before := c.s.commitSpec(c.b, nil)
	before.Config.Config.Entrypoint = nil // run ID sh is to be a shell
	failed.before = &before
	return failed
}
