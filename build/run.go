package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"nook/build/dockerfile"
	"nook/internal/hint"
)

// run does RUN.
func (c *chain) run(ctx context.Context, in *dockerfile.Instruction, cmd *dockerfile.Run) error {
	cfg := &c.b.config.Config
	spec := RunSpec{
		User: cfg.User, WorkingDir: c.absolute("."), Network: c.s.o.Network,
		Hostname: c.s.o.Args[argHostname], ExtraHosts: c.s.o.ExtraHosts, ShmSize: c.s.o.ShmSize, Epoch: Epoch{c.s.o.Epoch},
	}
	if cmd.Network != "" && cmd.Network != "default" {
		spec.Network = cmd.Network
	}
	if spec.Network == "" || spec.Network == "default" {
		spec.Network = "host"
	}
	var script *Mount
	spec.Args, script = c.command(cmd)
	mounts, parts, env, err := c.mounts(ctx, in, cmd)
	if err != nil {
		return err
	}
	spec.Mounts = mounts
	if script != nil {
		spec.Mounts = append(spec.Mounts, *script)
		parts = append(parts, "script", string(script.Data))
	}
	var seen []string
	spec.Env, seen = c.environment(env)
	parts = append(stepKey{c.b.state, "run"}, parts...)
	parts = append(append(parts, "env"), texts(seen...)...)
	parts = append(append(parts, "args"), texts(spec.Args...)...)
	rest, err := json.Marshal([]any{spec.User, spec.WorkingDir, spec.Network, spec.ExtraHosts, spec.ShmSize, epochPart(spec.Epoch.Epoch)})
	if err != nil {
		return err
	}
	k := append(parts, string(rest))
	if spec.Hostname != "" {
		k = append(k, "hostname", spec.Hostname)
	}
	kind := "regular"
	if slices.ContainsFunc(mounts, func(m Mount) bool { return m.Kind == MountCache }) {
		kind = "exec.cachemount"
	}
	below := c.b.state
	state, err := c.cached(ctx, c.name(runText(in, cmd)), k, kind, below, func(ctx context.Context, st *step) (State, error) {
		select {
		case c.s.runs <- struct{}{}:
			defer func() { <-c.s.runs }()
		case <-ctx.Done():
			return State{}, ctx.Err()
		}
		return c.s.w.Run(ctx, below, spec, st)
	})
	if err != nil {
		return err
	}
	c.advance(state, c.runHistory(spec.Args))
	return nil
}

// runText is the instruction as progress shows it: of a heredoc its first line.
func runText(in *dockerfile.Instruction, cmd *dockerfile.Run) string {
	if len(cmd.Heredocs) == 0 {
		return in.Text
	}
	first, rest, _ := strings.Cut(strings.TrimSpace(cmd.Heredocs[0].Text()), "\n")
	if rest != "" {
		first += "..."
	}
	return in.Text + " (" + first + ")"
}

// scriptDir is where a heredoc that begins with #! is mounted, as buildkit does.
const scriptDir = "/dev/pipes/"

// command is what RUN executes. A heredoc alone is the script itself: run by
// the shell, or by what its first line names; any other stands in the shell's
// own grammar, and is given to the shell again.
func (c *chain) command(cmd *dockerfile.Run) (args []string, script *Mount) {
	if len(cmd.Heredocs) == 0 {
		return withShell(&c.b.config.Config, cmd.CommandLine), nil
	}
	first := cmd.Heredocs[0]
	line := cmd.Words[0]
	if dockerfile.IsHeredoc(line) {
		if strings.HasPrefix(first.Text(), "#!") {
			mode := fs.FileMode(0o755)
			script = &Mount{
				Kind: MountSecret, Target: scriptDir + path.Base(first.Name), Data: []byte(first.Text()),
				Mode: &mode, ReadOnly: true,
			}
			return []string{script.Target}, script
		}
		line = first.Text()
	} else {
		var all strings.Builder
		all.WriteString(line)
		for _, doc := range cmd.Heredocs {
			all.WriteString("\n" + doc.Content + doc.Name)
		}
		line = all.String()
	}
	return withShell(&c.b.config.Config, dockerfile.CommandLine{Words: []string{line}, Shell: true}), nil
}

// environment is what the command sees: ENV, then those ARGs that ENV doesn't
// have, then secrets and proxies, which aren't among seen: they don't count for
// the key.
func (c *chain) environment(extra []string) (env, seen []string) {
	env = slices.Clone(c.b.config.Config.Env)
	for _, name := range slices.Sorted(maps.Keys(c.b.args)) {
		if _, ok := c.b.variables()[name]; !ok {
			env = append(env, name+"="+c.b.args[name])
		}
	}
	seen = slices.Clone(env)
	env = append(env, extra...)
	for _, name := range slices.Sorted(maps.Keys(c.s.o.Args)) {
		if _, declared := c.b.args[name]; isProxy(name) && !declared {
			env = append(env, name+"="+c.s.o.Args[name])
		}
	}
	return env, seen
}

// runHistory is docker's form: the arguments that were set stand before the
// command.
func (c *chain) runHistory(args []string) string {
	var set []string
	for _, name := range slices.Sorted(maps.Keys(c.b.args)) {
		set = append(set, name+"="+c.b.args[name])
	}
	text := "RUN "
	if len(set) > 0 {
		text += fmt.Sprintf("|%d %s ", len(set), strings.Join(set, " "))
	}
	return text + strings.Join(args, " ")
}

// The command would see the image's files anyway: its root is open already.
var errMountOverAll = errors.New("a mount's target is /")

// mounts reads the --mounts and finds what they show. parts are for the key,
// env is what secrets put into the environment.
func (c *chain) mounts(ctx context.Context, in *dockerfile.Instruction, cmd *dockerfile.Run) (all []Mount, parts stepKey, env []string, err error) {
	agents := 0
	for _, text := range cmd.Mounts {
		m, err := dockerfile.ParseMount(text, c.scope().word)
		if err != nil {
			return nil, nil, nil, in.Fault("--mount="+text, err)
		}
		out := Mount{
			Kind: MountKind(m.Type), Target: m.Target, ReadOnly: m.ReadOnly, Source: m.Source,
			ID: m.ID, Sharing: m.Sharing, Size: m.Size,
		}
		if m.Mode != nil {
			mode := fs.FileMode(*m.Mode)
			out.Mode = &mode
		}
		if m.UID != nil {
			out.UID = uint32(*m.UID)
		}
		if m.GID != nil {
			out.GID = uint32(*m.GID)
		}
		if out.Target != "" {
			out.Target = c.absolute(out.Target)
		}
		if out.Target == "/" {
			return nil, nil, nil, in.Fault("--mount="+text, errMountOverAll)
		}
		var shown stepKey
		switch out.Kind {
		case MountBind:
			shown, err = c.bind(ctx, &out, m)
		case MountCache:
			shown, err = c.cache(ctx, &out, m)
		case MountSecret:
			out, env, err = c.secret(ctx, out, m, env)
		case MountSSH:
			out, env, err = c.agent(out, m, env, agents)
			agents++
		}
		if err != nil {
			return nil, nil, nil, in.Fault("--mount="+text, err)
		}
		// The names in it count, of binds the contents too.
		parts = append(append(parts, "mount"), shown...)
		parts = append(parts, m.Type, out.Target, out.ID, out.Sharing, maybe(m.Env), maybe(m.Mode),
			fmt.Sprintf("%t %d %d %d %t", out.ReadOnly, out.Size, out.UID, out.GID, m.Required))
		if out.Target != "" {
			all = append(all, out)
		}
	}
	return all, parts, env, nil
}

// maybe is a part of a key for what needn't be given.
func maybe[T any](v *T) string {
	if v == nil {
		return ""
	}
	return fmt.Sprint("=", *v)
}

// bind finds the files of a bind mount. The context isn't mounted itself: what
// .dockerignore leaves out isn't shown, and what RUN does doesn't get there.
func (c *chain) bind(ctx context.Context, out *Mount, m dockerfile.Mount) (key stepKey, err error) {
	source := m.Source
	if source == "" {
		source = "/"
	}
	if m.From == "" {
		state, key, err := c.contextState(ctx, source)
		if err != nil {
			return nil, err
		}
		out.From, out.Source = &state, contextMount
		return key, nil
	}
	return c.shown(ctx, out, m.From, source)
}

// shown is a path in a stage or an image.
func (c *chain) shown(ctx context.Context, out *Mount, from, source string) (key stepKey, err error) {
	state, err := c.from(ctx, from)
	if err != nil {
		return nil, err
	}
	out.From, out.Source = &state, path.Join("/", source)
	return stepKey{state, out.Source}, nil
}

// contextMount is where what a mount shows of the context stands in its state.
const contextMount = "/context"

// contextState makes a state of a part of the context, known by its contents.
func (c *chain) contextState(ctx context.Context, source string) (State, stepKey, error) {
	sel, err := c.s.w.Select(ctx, c.s.src.tree(), SelectSpec{Sources: []string{source}, Literal: true})
	if err != nil {
		return State{}, nil, selectFault(err, source)
	}
	what := stepKey{"context", sel.Digest, epochPart(c.s.o.Epoch)}
	k := what.local()
	state, err := once(ctx, &c.s.mu, c.s.keys, k, func() (State, error) {
		if state, ok := c.s.w.Lookup(k); ok {
			return state, nil
		}
		state, err := c.s.w.Copy(ctx, State{}, CopySpec{From: sel, Dest: contextMount, Epoch: Epoch{c.s.o.Epoch}})
		if err != nil {
			return State{}, err
		}
		return state, c.s.w.Remember(k, state, CacheInfo{Step: "context " + source, Kind: "source.local"})
	})
	if err != nil {
		return State{}, nil, err
	}
	if _, kept := c.s.w.Lookup(k); !kept {
		// It changed while it was copied: these files are not what was read.
		what = stepKey{state}
	}
	return state, what, nil
}

// from is the state of a stage or an image.
func (c *chain) from(ctx context.Context, from string) (State, error) {
	if from == "scratch" {
		return State{}, nil
	}
	other, err := c.s.plan.lookup(from)
	if err != nil {
		return State{}, err
	}
	if other != nil {
		b, err := c.s.stage(ctx, other)
		if err != nil {
			return State{}, &otherStageError{err}
		}
		return b.state, nil
	}
	base, err := c.s.image(ctx, from, c.s.platformOf(c.st))
	if err != nil {
		return State{}, hint.Errorf(c.s.plan.knownStages(),
			"%s is neither a stage nor an image that is there: %w", from, err)
	}
	return base.State, nil
}

func (c *chain) cache(ctx context.Context, out *Mount, m dockerfile.Mount) (key stepKey, err error) {
	if out.ID == "" {
		out.ID = out.Target
	}
	if out.Sharing == "" {
		out.Sharing = "shared"
	}
	if m.From == "" {
		return nil, nil
	}
	return c.shown(ctx, out, m.From, m.Source)
}

// secret finds a secret by its id. One that isn't given is no error unless it
// is required.
func (c *chain) secret(ctx context.Context, out Mount, m dockerfile.Mount, env []string) (Mount, []string, error) {
	id := m.ID
	if id == "" {
		id = m.Source
	}
	if id == "" {
		id = path.Base(m.Target)
	}
	out.ID, out.Source = id, ""
	given, ok := c.s.o.Secrets[id]
	switch {
	case !ok && m.Required:
		return out, env, hint.Errorf("give it by --secret id="+id+",src=FILE", "the secret %s is required and was not given", id)
	case !ok:
		out.Target = ""
		return out, env, nil
	}
	data, err := given.read(ctx)
	if err != nil {
		return out, env, fmt.Errorf("secret %s: %w", id, err)
	}
	if m.Env != nil {
		name := *m.Env
		if name == "" {
			name = id
		}
		env = append(env, name+"="+string(data))
		if out.Target == "" {
			return out, env, nil
		}
	}
	if out.Target == "" {
		out.Target = "/run/secrets/" + path.Base(id)
	}
	out.Data = data
	return out, env, nil
}

// agent finds the socket of an agent by its id.
func (c *chain) agent(out Mount, m dockerfile.Mount, env []string, n int) (Mount, []string, error) {
	if out.ID == "" {
		out.ID = "default"
	}
	socket, ok := c.s.o.SSH[out.ID]
	switch {
	case !ok && m.Required:
		return out, env, hint.Errorf("give it by --ssh "+out.ID, "the agent %s is required and was not given", out.ID)
	case !ok:
		out.Target = ""
		return out, env, nil
	}
	if out.Target == "" {
		out.Target = fmt.Sprintf("/run/buildkit/ssh_agent.%d", n)
	}
	out.Socket = socket
	const name = "SSH_AUTH_SOCK"
	_, own := c.scope().value(name)
	another := slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
	if !own && !another { // the first agent's, where the stage has none of its own
		env = append(env, name+"="+out.Target)
	}
	return out, env, nil
}

// selectFault says what a source that means nothing is.
func selectFault(err error, source string) error {
	switch {
	case errors.Is(err, ErrNoSource):
		return hint.Wrap(err, "sources are names in the build context, without what .dockerignore leaves out")
	case errors.Is(err, ErrOutside):
		return hint.Wrap(err, "copy it into the context, or give a directory above as the context")
	}
	return fmt.Errorf("%s: %w", source, err)
}
