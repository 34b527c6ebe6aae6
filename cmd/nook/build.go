package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"nook/build"
	"nook/build/dockerfile"
	"nook/images"
	"nook/internal/hint"
)

// builder is the part of *engine.Engine that build calls.
type builder interface {
	Build(ctx context.Context, o build.Options) (build.Result, error)
}

func buildVerb() verb {
	return verb{
		name:    "build",
		long:    []string{"image build", "builder build"},
		about:   "Build an image from a Dockerfile",
		usage:   "[OPTIONS] PATH | URL | -",
		min:     1,
		max:     1,
		common:  true,
		options: buildOptions,
		examples: []string{
			"nook build -t app .",
			"nook build -t app:2 -f Dockerfile.release --build-arg VERSION=2 --target final .",
			"nook build --secret id=token,src=token.txt --ssh default .",
			"git archive HEAD | nook build -t app -",
			"nook build -o out --target files .   files of a stage, into a directory",
		},
		run: (*shell).build,
	}
}

func buildOptions() []option {
	return []option{
		{name: "add-host", value: "list", usage: `Add a custom host-to-IP mapping ("host:ip" or "host=ip")`},
		{name: "build-arg", value: "list", usage: "Set build-time variables"},
		{name: "cache-from", value: "list", usage: `Cache of other machines to use (format: "NAME" or "type=registry,ref=NAME")`},
		{name: "cache-to", value: "list", usage: `Where to write the cache to (format: "NAME" or "type=registry,ref=NAME[,mode=min|max]")`},
		{name: "file", short: "f", value: "string", usage: `Name of the Dockerfile, or "-" (default: "PATH/Dockerfile")`},
		{name: "force-rm", usage: "Leave no container behind when a step fails: always so"},
		{name: "iidfile", value: "string", usage: "Write the image ID to a file"},
		{name: "label", value: "list", usage: "Set metadata for an image"},
		{name: "load", usage: "Put the image among this host's images, also with --output: always so without it"},
		{name: "metadata-file", value: "string", usage: "Write digests and names of the image to a file, as JSON"},
		{name: "network", value: "string", usage: `Network of the "RUN" instructions: host (the default) or none`},
		{name: "no-cache", usage: "Do not use cache when building the image"},
		{name: "no-cache-filter", value: "list", usage: "Do not cache specified stages"},
		{name: "output", short: "o", value: "list", usage: `Output destinations (format: "type=local,dest=path"): docker or oci (an archive of the image), tar or local (its files), or image, the default`},
		{name: "platform", value: "list", usage: "Set target platform for build (one)"},
		{name: "progress", value: "string", usage: "Set type of progress output (auto, plain, tty, quiet; env BUILDKIT_PROGRESS)"},
		{name: "provenance", value: "string", usage: "false: nook makes no attestations"},
		{name: "pull", usage: "Always attempt to pull all referenced images"},
		{name: "push", usage: "Refused: nook push NAME sends an image"},
		{name: "quiet", short: "q", usage: "Suppress the build output and print image ID on success"},
		{name: "rm", usage: "Leave no container behind: always so"},
		{name: "sbom", value: "string", usage: "false: nook makes no attestations"},
		{name: "secret", value: "list", usage: `Secret to expose to the build (format: "id=mysecret[,src=/local/secret|,env=NAME]")`},
		{name: "shm-size", value: "bytes", usage: "Size of /dev/shm of the build's containers"},
		{name: "squash", usage: "Squash newly built layers into a single new layer"},
		{name: "ssh", value: "list", usage: `SSH agent socket to expose to the build (format: "default|<id>[=<socket>]")`},
		{name: "tag", short: "t", value: "list", usage: `Name and optionally a tag (format: "name:tag")`},
		{name: "target", value: "string", usage: "Set the target build stage to build"},
		{name: "timestamp", value: "string", usage: "Seconds since 1970 that no file's time is after, for reproducible images (env SOURCE_DATE_EPOCH)"},
	}
}

func (s *shell) build(c *cli.Context) error {
	o, err := s.readBuild(c)
	if err != nil {
		return err
	}
	view, err := s.buildView(c)
	if err != nil {
		return err
	}
	outs, err := readOutputs(c.StringSlice("output"), c.Bool("load"))
	if err == nil && c.IsSet("iidfile") && !slices.ContainsFunc(outs, output.isImage) {
		err = hint.Errorf("--iidfile goes with images and archives of them", "--output %s has no image ID", outs[0].kind)
	}
	if err != nil {
		return err
	}
	if err := alwaysSo(c); err != nil {
		return err
	}
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		var result build.Result
		err = s.toOutputs(ctx, outs, nil, func(to []build.Output) error {
			o.Outputs = to
			o.Event = view.event
			result, err = nook.Build(ctx, o)
			return err
		})
		view.end(err)
		if !view.quiet() {
			for _, text := range result.Warnings {
				fmt.Fprintf(s.stderr, "warning: %s\n", oneLine(abridged(text)))
			}
		}
		if err != nil {
			return s.buildFault(err)
		}
		if err := writeMetadata(c.String("metadata-file"), result.Image, o.Names); err != nil {
			return err
		}
		return s.tellImage(c, result.Image, outs)
	})
}

// alwaysSo refuses what docker's flags ask for and a build of nook doesn't do.
// Those it does anyway are true.
func alwaysSo(c *cli.Context) error {
	for _, name := range []string{"rm", "force-rm", "load"} {
		if c.IsSet(name) && !c.Bool(name) {
			return fmt.Errorf("--%s=false is refused: it is always so", name)
		}
	}
	if err := noAttestations(c); err != nil {
		return err
	}
	if c.Bool("push") {
		return hint.Errorf("nook push NAME sends it", "--push is refused: a build sends nothing")
	}
	return nil
}

// tellImage gives the id to those who asked for it.
func (s *shell) tellImage(c *cli.Context, img images.Image, outs []output) error {
	if img.ID == "" { // of tar and local
		return nil
	}
	if file := c.String("iidfile"); file != "" {
		if err := os.WriteFile(file, []byte(img.ID), 0o666); err != nil {
			return err
		}
	}
	if c.Bool("quiet") && !slices.ContainsFunc(outs, output.isStdout) {
		fmt.Fprintln(s.stdout, img.ID)
	}
	return nil
}

// buildFault shows the place in the Dockerfile, and for a command that failed
// what it said last. The code is the command's own.
func (s *shell) buildFault(err error) error {
	var step *build.StepError
	if errors.As(err, &step) {
		fmt.Fprintf(s.stderr, "------\n > %s:\n", oneLine(abridged(step.Step)))
		if text := printableText(step.Output); text != "" {
			fmt.Fprintln(s.stderr, text)
		}
		fmt.Fprintln(s.stderr, "------")
	}
	var fault *dockerfile.Error
	if errors.As(err, &fault) {
		fmt.Fprint(s.stderr, fault.Excerpt())
	}
	if step != nil && step.Enter != "" {
		advice := "nook run --rm -it " + shortID(step.Enter, false) + " sh enters the state before this step"
		if known := hint.Of(err); known != "" { // why it couldn't be executed
			advice = known + "; " + advice
		}
		err = hint.Wrap(err, advice)
	}
	err = abridge(err)
	var exit *build.ExitError
	if errors.As(err, &exit) && exit.Code > 0 {
		err = hint.WithCode(err, exit.Code)
	}
	return err
}

// readBuild turns the flags into options.
func (s *shell) readBuild(c *cli.Context) (build.Options, error) {
	o := build.Options{
		Source:  build.Source{Context: c.Args().First(), File: c.String("file"), Stdin: s.stdin},
		Target:  c.String("target"),
		Names:   c.StringSlice("tag"),
		NoCache: c.Bool("no-cache"), NoCacheStages: splitAll(c.StringSlice("no-cache-filter")),
		Platform: strings.Join(c.StringSlice("platform"), ","), Network: c.String("network"), Squash: c.Bool("squash"),
		ExtraHosts: c.StringSlice("add-host"),
	}
	if c.Bool("pull") {
		o.Pull = "always"
	}
	for i, name := range o.Names {
		ref, err := images.ParseReference(name)
		if err == nil && ref.Digest != "" {
			err = errors.New("a new image has no digest yet")
		}
		if err != nil {
			return o, fmt.Errorf("--tag %s: %w", name, err)
		}
		o.Names[i] = ref.String()
	}
	switch o.Network {
	case "", "default", "host", "none":
	default:
		return o, hint.Errorf("host and none are known", "invalid value %q for --network", o.Network)
	}
	for i, entry := range o.ExtraHosts {
		var ok bool
		if o.ExtraHosts[i], ok = readHost(entry); !ok {
			return o, hint.Errorf("write it like name:10.0.0.1 or name=::1", "invalid value %q for --add-host", entry)
		}
	}
	if size := c.String("shm-size"); size != "" {
		n, err := units.RAMInBytes(size)
		if err != nil || n <= 0 {
			return o, hint.Errorf("write it like 64m", "invalid value %q for --shm-size", size)
		}
		o.ShmSize = n
	}
	o.Args, o.Labels = map[string]string{}, map[string]string{}
	for _, entry := range c.StringSlice("build-arg") {
		name, value, given := strings.Cut(entry, "=")
		if name == "" {
			return o, fmt.Errorf("invalid value %q for --build-arg: it has no name", entry)
		}
		if !given {
			if value, given = s.lookup(name); !given {
				continue // docker leaves it out too
			}
		}
		o.Args[name] = value
	}
	for _, entry := range c.StringSlice("label") {
		name, value, _ := strings.Cut(entry, "=")
		if name == "" {
			return o, fmt.Errorf("invalid value %q for --label: it has no name", entry)
		}
		o.Labels[name] = value
	}
	var err error
	if o.Epoch, err = s.readEpoch(c, o.Args); err != nil {
		return o, err
	}
	if !o.Epoch.IsZero() {
		// ARG SOURCE_DATE_EPOCH finds it, as with docker.
		o.Args["SOURCE_DATE_EPOCH"] = strconv.FormatInt(o.Epoch.Unix(), 10)
	}
	if o.Secrets, err = readSecrets(c.StringSlice("secret"), s.lookup); err != nil {
		return o, err
	}
	if o.SSH, err = readSSH(c.StringSlice("ssh"), s.lookup); err != nil {
		return o, err
	}
	for _, text := range c.StringSlice("cache-from") {
		from, err := readCacheTarget("cache-from", text, "type", "ref")
		if err != nil {
			return o, err
		}
		o.CacheFrom = append(o.CacheFrom, from.Ref)
	}
	for _, text := range c.StringSlice("cache-to") {
		to, err := readCacheTarget("cache-to", text, "type", "ref", "mode")
		if err != nil {
			return o, err
		}
		o.CacheTo = append(o.CacheTo, to)
	}
	return o, nil
}

// splitAll splits each at its commas.
func splitAll(texts []string) (all []string) {
	for _, text := range texts {
		all = append(all, strings.Split(text, ",")...)
	}
	return all
}

// readHost reads name=ip or name:ip and gives name:ip. RUN has the host's
// network, where the host itself is the loopback address.
func readHost(entry string) (string, bool) {
	name, ip, ok := strings.Cut(entry, "=")
	if !ok {
		name, ip, ok = strings.Cut(entry, ":")
	}
	ip = strings.TrimSuffix(strings.TrimPrefix(ip, "["), "]")
	if ip == "host-gateway" {
		ip = "127.0.0.1"
	}
	return name + ":" + ip, ok && name != "" && net.ParseIP(ip) != nil
}

// readCacheTarget reads NAME, or type=registry,ref=NAME.
func readCacheTarget(flag, text string, keys ...string) (build.CacheTarget, error) {
	kv := map[string]string{"type": "registry", "ref": text}
	if strings.Contains(text, "=") {
		var err error
		if kv, err = keyValues(flag, text, keys...); err != nil {
			return build.CacheTarget{}, err
		}
	}
	to := build.CacheTarget{Ref: kv["ref"], Max: kv["mode"] == "max"}
	switch {
	case kv["type"] != "registry":
		return to, hint.Errorf("type=registry,ref=NAME is what there is", "invalid value %q for --%s: type %q", text, flag, kv["type"])
	case kv["mode"] != "" && kv["mode"] != "min" && !to.Max:
		return to, hint.Errorf("min and max are known", "invalid value %q for --%s: mode %q", text, flag, kv["mode"])
	case to.Ref == "":
		return to, hint.Errorf("write it like type=registry,ref=NAME", "invalid value %q for --%s: ref is missing", text, flag)
	}
	ref, err := images.ParseReference(to.Ref)
	if err == nil && flag == "cache-to" && ref.Digest != "" {
		err = errors.New("a new cache has no digest yet")
	}
	if err != nil {
		return to, fmt.Errorf("--%s %s: %w", flag, text, err)
	}
	return to, nil
}

// readEpoch reads SOURCE_DATE_EPOCH: the flag, the build argument, then the
// environment.
func (s *shell) readEpoch(c *cli.Context, args map[string]string) (time.Time, error) {
	value, from := c.String("timestamp"), "--timestamp"
	if !c.IsSet("timestamp") {
		value, from = args["SOURCE_DATE_EPOCH"], "SOURCE_DATE_EPOCH"
	}
	if value == "" && !c.IsSet("timestamp") {
		value, _ = s.lookup("SOURCE_DATE_EPOCH")
	}
	if value == "" && !c.IsSet("timestamp") {
		return time.Time{}, nil
	}
	seconds, err := strconv.ParseInt(value, 10, 64)
	if err != nil || seconds < 0 || seconds > 1<<35 {
		return time.Time{}, hint.Errorf("seconds since 1970 are meant, as date +%s prints them", "invalid value %q for %s", value, from)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// fields reads key=value,key=value.
func keyValues(flag, text string, known ...string) (map[string]string, error) {
	all := map[string]string{}
	for field := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(field, "=")
		if !ok || !slices.Contains(known, name) {
			return nil, hint.Errorf("the keys are "+strings.Join(known, ", "), "invalid value %q for --%s: %s", text, flag, field)
		}
		all[name] = value
	}
	return all, nil
}

// readSecrets reads id=NAME[,src=FILE][,env=VARIABLE][,type=file|env].
func readSecrets(texts []string, lookup func(string) (string, bool)) (map[string]build.Secret, error) {
	all := map[string]build.Secret{}
	for _, text := range texts {
		kv, err := keyValues("secret", text, "id", "src", "source", "env", "type")
		if err != nil {
			return nil, err
		}
		id, file, env := kv["id"], kv["src"], kv["env"]
		if file == "" {
			file = kv["source"]
		}
		if kv["type"] == "env" && env == "" {
			env, file = file, ""
		}
		if id == "" {
			return nil, fmt.Errorf("invalid value %q for --secret: it has no id", text)
		}
		if file == "" && env == "" {
			// Docker: the variable of this name, else the file.
			if _, ok := lookup(id); ok && kv["type"] != "file" {
				env = id
			} else {
				file = id
			}
		}
		if env != "" {
			if _, ok := lookup(env); !ok {
				return nil, fmt.Errorf("--secret %s: the variable %s is not set", id, env)
			}
		} else if info, err := os.Stat(file); err != nil {
			return nil, fmt.Errorf("--secret %s: %w", id, err)
		} else if info.IsDir() {
			return nil, fmt.Errorf("--secret %s: %s is a directory", id, file)
		}
		all[id] = build.Secret{Path: file, Env: env}
	}
	return all, nil
}

// readSSH reads ID[=SOCKET]; without a socket the caller's agent is meant.
func readSSH(texts []string, lookup func(string) (string, bool)) (map[string]string, error) {
	all := map[string]string{}
	for _, text := range texts {
		id, socket, given := strings.Cut(text, "=")
		if id == "" {
			id = "default"
		}
		if !given {
			if socket, _ = lookup("SSH_AUTH_SOCK"); socket == "" {
				return nil, hint.Errorf("start one: eval $(ssh-agent); ssh-add", "--ssh %s: SSH_AUTH_SOCK names no agent", id)
			}
		}
		info, err := os.Stat(socket)
		if err == nil && info.Mode()&os.ModeSocket == 0 {
			err = hint.Errorf("load keys into an agent: ssh-add "+socket, "%s is not an agent's socket", socket)
		}
		if err != nil {
			return nil, fmt.Errorf("--ssh %s: %w", id, err)
		}
		all[id] = socket
	}
	return all, nil
}
