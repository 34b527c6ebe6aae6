package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"nook/engine"
	"nook/images"
	"nook/internal/hint"
)

// backend is the part of *engine.Engine that the verbs call.
type backend interface {
	filesystem
	lifecycle
	shower
	watcher
	builder
	cachePruner
	Load(context.Context, engine.LoadOptions) ([]images.Image, error)
	Import(context.Context, engine.ImportOptions) (images.Image, error)
	Pull(ctx context.Context, name string, o engine.PullOptions) ([]engine.Pulled, error)
	Push(ctx context.Context, name string, o engine.PushOptions) ([]engine.Pushed, error)
	Login(ctx context.Context, server string, c engine.Credential) (file string, err error)
	Logout(ctx context.Context, server string) (name string, found bool, err error)
	Credentials(ctx context.Context, server string) (engine.Credential, error)
	Images(context.Context) ([]images.Image, error)
	keeper
	storekeeper
	InspectImage(ctx context.Context, name string) (any, error)
	RemoveImage(ctx context.Context, name string, force bool) ([]string, error)
	Tag(ctx context.Context, src, dst string) error
	Logs(ctx context.Context, nameOrID string, o engine.LogsOptions) error
	Info(context.Context) (*engine.Info, error)
}

// shell is what a command has of the process it runs in. Tests put their own in
// its place.
type shell struct {
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	lookup func(env string) (string, bool)
	now    func() time.Time
	open   func(context.Context, engine.Options) (backend, error)
	// bars is the terminal that progress is drawn on; nil: none.
	bars *progress
}

func newShell() *shell {
	s := &shell{
		stdin:  os.Stdin,
		stdout: os.Stdout,
		stderr: os.Stderr,
		lookup: os.LookupEnv,
		now:    time.Now,
		open: func(ctx context.Context, o engine.Options) (backend, error) {
			return engine.Open(ctx, o)
		},
	}
	if fd := int(os.Stderr.Fd()); term.IsTerminal(fd) {
		s.bars = newProgress(os.Stderr, func() (int, int) {
			cols, rows, err := term.GetSize(fd)
			if err != nil {
				return 80, 24
			}
			return cols, rows
		})
	}
	return s
}

// exit ends a command with a code and no message of nook's: the message, if
// there was one to give, came from inside the container or stands already.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// main runs one command line, without the program's name, and returns the exit
// code.
func (s *shell) main(args []string) int {
	err := s.command(args)
	if err == nil {
		return 0
	}
	var code exit
	if errors.As(err, &code) {
		return int(code)
	}
	s.complain(err)
	return hint.Code(err)
}

// complain prints the fact and the hint, each on one line whatever is in them:
// names in them may come from an image.
func (s *shell) complain(err error) {
	fmt.Fprintf(s.stderr, "nook: %s\n", oneLine(err.Error()))
	advice := hint.Of(err)
	var file *fs.PathError
	if advice == "" && errors.As(err, &file) && errors.Is(file, fs.ErrNotExist) {
		advice = "is the name right, and as seen from this directory?"
	}
	if advice != "" {
		fmt.Fprintf(s.stderr, "hint: %s\n", oneLine(advice))
	}
}

// note prints what the engine wants known and no error is.
func (s *shell) note(text string) {
	if s.bars != nil {
		s.bars.Print(oneLine(text))
		return
	}
	fmt.Fprintln(s.stderr, oneLine(text))
}

// globals are the flags before the verb.
func globals() []option {
	return []option{
		{name: "ids", value: "string", usage: "User and group ids of containers: auto, mapped or single (env NOOK_IDS)"},
		{name: "root", value: "string", usage: "Directory of images and containers (env NOOK_ROOT)"},
		{name: "version", short: "v", usage: "Print version information and quit"},
	}
}

// command finds the verb of a command line and hands it to urfave/cli.
func (s *shell) command(args []string) error {
	global, err := grammar{options: globals(), verbatim: true}.rewrite(args)
	if err != nil {
		return hint.Wrap(err, cmp.Or(hint.Of(err), "see nook --help"))
	}
	words := global.args
	if global.help || len(words) == 0 && len(global.flags) == 0 {
		return s.helpAll()
	}
	if words, asked := helpWords(words); asked {
		return s.helpFor(words)
	}
	if wantsVersion(global.flags) {
		fmt.Fprintln(s.stdout, shortVersion())
		return nil
	}
	v, n := findVerb(words)
	if n == 0 {
		return s.noVerb(words)
	}
	name := strings.Join(words[:n], " ")
	line, err := grammar{options: v.options(), verbatim: v.verbatim}.rewrite(words[n:])
	if err != nil {
		return hint.Wrap(err, advice(err, name, v.flagHint))
	}
	if line.help {
		return s.helpVerb(v)
	}
	if err := v.count(name, len(line.args)); err != nil {
		return err
	}
	argv := append([]string{"nook"}, global.flags...)
	argv = append(append(argv, v.name), line.flags...)
	argv = append(append(argv, "--"), line.args...)
	return s.app(v).Run(argv)
}

// advice is the hint for a flag that was refused.
func advice(err error, name, flagHint string) string {
	for _, o := range globals() {
		if strings.HasSuffix(err.Error(), "unknown flag: --"+o.name) {
			return fmt.Sprintf("--%s stands before the command: nook --%s … %s", o.name, o.name, name)
		}
	}
	return cmp.Or(hint.Of(err), flagHint, "see nook "+name+" --help")
}

// app is urfave/cli's application with the one command v: the set-up of each
// further command would be paid for by every start.
func (s *shell) app(v verb) *cli.App {
	return &cli.App{
		Name:                      "nook",
		HideHelp:                  true,
		HideVersion:               true,
		DisableSliceFlagSeparator: true,
		Compiled:                  time.Unix(0, 0), // or it asks the disk
		Flags:                     cliFlags(globals()),
		ExitErrHandler:            func(*cli.Context, error) {},
		OnUsageError:              func(_ *cli.Context, err error, _ bool) error { return err },
		Commands: []*cli.Command{{
			Name:         v.name,
			HideHelp:     true,
			Flags:        cliFlags(v.options()),
			OnUsageError: func(_ *cli.Context, err error, _ bool) error { return err },
			Action:       func(c *cli.Context) error { return v.run(s, c) },
		}},
	}
}

func wantsVersion(flags []string) bool {
	for _, f := range flags {
		if f == "--version=true" {
			return true
		}
	}
	return false
}

// noVerb is the answer to words that name no verb.
func (s *shell) noVerb(words []string) error {
	if len(words) == 0 {
		return hint.Errorf("see nook --help", "no command was named")
	}
	g, ok := findGroup(words[0])
	switch {
	case !ok:
		return hint.Errorf("see nook --help", "unknown command: nook %s", words[0])
	case len(words) == 1:
		return s.helpGroup(g)
	}
	return hint.Errorf("see nook "+g.name+" --help", "unknown command: nook %s %s", g.name, words[1])
}

// count refuses a wrong number of positionals, in docker's words.
func (v verb) count(name string, n int) error {
	var want string
	switch {
	case n >= v.min && (v.max < 0 || n <= v.max):
		return nil
	case v.max == 0:
		return hint.Errorf("see nook "+name+" --help", "'nook %s' accepts no arguments", name)
	case v.max < 0:
		want = "at least " + arguments(v.min)
	case v.min == v.max:
		want = arguments(v.min)
	case n < v.min:
		want = "at least " + arguments(v.min)
	default:
		want = "at most " + arguments(v.max)
	}
	return hint.Errorf("see nook "+name+" --help", "'nook %s' requires %s", name, want)
}

func arguments(n int) string {
	if n == 1 {
		return "1 argument"
	}
	return fmt.Sprintf("%d arguments", n)
}

// engine opens the engine that the global flags ask for.
func (s *shell) engine(ctx context.Context, c *cli.Context) (backend, error) {
	o := engine.Options{Root: c.String("root"), IDs: c.String("ids"), Note: s.note}
	from := "--ids"
	if !c.IsSet("ids") {
		o.IDs, _ = s.lookup("NOOK_IDS")
		from = "NOOK_IDS"
	}
	switch o.IDs {
	case "", "auto", "mapped", "single":
	default:
		return nil, hint.Errorf("auto, mapped and single are known", "invalid value %q for %s", o.IDs, from)
	}
	if s.bars != nil {
		o.Progress = s.bars
	}
	return s.open(ctx, o)
}
