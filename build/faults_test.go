package build

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"nook/build/dockerfile"
	"nook/internal/hint"
)

func TestFaults(t *testing.T) {
	for name, tc := range map[string]struct {
		in, err, hint string
		edit          func(*Options)
	}{
		"no from":         {"RUN x", "Dockerfile:1: no FROM stands before RUN", "ARG alone may stand before it", nil},
		"only arg":        {"ARG A", "Dockerfile: no FROM in it", "", nil},
		"empty base":      {"ARG B\nFROM $B", "Dockerfile:2: the base name $B is empty", "", nil},
		"bad base":        {"FROM UPPER", "Dockerfile:1: ", "", nil},
		"missing base":    {"FROM missing", "Dockerfile:1: missing: ", "", nil},
		"missing number":  {"FROM base\nCOPY --from=3 a b", "Dockerfile:2: there is no stage 3", "the only stage is 0", nil},
		"missing stage":   {"FROM base AS x\nFROM base\nCOPY --from=y a b", "Dockerfile:3: y is neither a stage nor an image that is there: ", "the stages are x, 1", nil},
		"no stage's name": {"FROM base\nCOPY --from=Y_ a b", "Dockerfile:2: Y_ is neither a stage nor an image: ", "the only stage is 0", nil},
		"itself":          {"FROM base AS x\nCOPY --from=x a b", "Dockerfile:2: stage x copies from itself", "", nil},
		"cycle":           {"FROM base AS x\nCOPY --from=y a b\nFROM base AS y\nCOPY --from=x a b", "Dockerfile:3: stages need each other: y -> x -> y", "", nil},
		"cycle by a mount": {
			"FROM base AS a\nRUN --mount=from=base,from=b,target=/m x\nFROM base AS b\nCOPY --from=a /ran /", "Dockerfile:3: stages need each other: b -> a -> b", "", nil,
		},
		"target":            {"FROM base AS x", "--target y: Dockerfile has no such stage", "the only stage is x", func(o *Options) { o.Target = "y" }},
		"target number":     {"FROM base AS x", "--target: there is no stage 7", "", func(o *Options) { o.Target = "7" }},
		"from platform":     {"FROM --platform=x base", "Dockerfile:1: platform \"x\" is not os/arch[/variant]", "", nil},
		"empty platform":    {"FROM --platform=$P base", "Dockerfile:1: the platform $P is empty", "", nil},
		"doubling":          {"FROM base\nENV A=0123456789abcdef\n" + strings.Repeat("ENV A=$A$A\n", 60), "Dockerfile:22: the stage's variables expand to more than 16 MiB", "do some of them repeat each other, as ARG A=$B$B does?", nil},
		"doubling before":   {"ARG A=0123456789abcdef\n" + strings.Repeat("ARG A=$A$A\n", 60) + "FROM base", "Dockerfile:21: the stage's variables expand", "", nil},
		"mount over all":    {"FROM base\nWORKDIR /a\nRUN --mount=type=cache,target=.. y", "Dockerfile:3: a mount's target is /", "", nil},
		"foreign run":       {"FROM --platform=linux/mips64 base\nCOPY a /\nRUN x", "Dockerfile:3: ", "", nil},
		"bad variable":      {"FROM base\nENV A=${B:?is missing}", "Dockerfile:2: ", "", nil},
		"many to a file":    {"FROM base\nCOPY a b c", "Dockerfile:2: several sources go to c, which is no directory's name", "end it in a slash", nil},
		"glob to a file":    {"FROM base\nCOPY ? /c", "Dockerfile:2: ? are 2 files, and go to /c, which is no directory's name", "end it in a slash", nil},
		"no source":         {"FROM base\nCOPY nothing /c", "Dockerfile:2: nothing: not found", "", nil},
		"port":              {"FROM base\nEXPOSE http", "Dockerfile:2: invalid port: http", "write it like 80, 53/udp or 8000-8010", nil},
		"port range":        {"FROM base\nEXPOSE 9-8", "Dockerfile:2: invalid port: 9-8", "", nil},
		"signal":            {"FROM base\nSTOPSIGNAL SIGFOO", `Dockerfile:2: unknown signal: "SIGFOO"`, "write it like SIGTERM, 15 or SIGRTMIN+3", nil},
		"secret":            {"FROM base\nRUN --mount=type=secret,id=k,required x", "Dockerfile:2: the secret k is required and was not given", "give it by --secret id=k,src=FILE", nil},
		"agent":             {"FROM base\nRUN --mount=type=ssh,required x", "Dockerfile:2: the agent default is required and was not given", "give it by --ssh default", nil},
		"mount":             {"FROM base\nRUN --mount=type=tmpfs x", "Dockerfile:2: --mount=type=tmpfs: it has no target", "", nil},
		"mount key":         {"FROM base\nRUN --mount=type=tmpfs,target=/a,id=x y", "Dockerfile:2: --mount=type=tmpfs,target=/a,id=x: a mount of type tmpfs has no id", "", nil},
		"mount type":        {"FROM base\nRUN --mount=type=x,target=/a y", `Dockerfile:2: --mount=type=x,target=/a: unknown type "x"`, "the types are bind, cache, tmpfs, secret, ssh", nil},
		"checksum":          {"FROM base\nADD --checksum=sha256:a a /", "Dockerfile:2: --checksum is for sources that are URLs", "", nil},
		"failing step":      {"FROM base\nRUN fail it", "Dockerfile:2: process \"/bin/sh -c fail it\" did not complete successfully: exit code: 3", "", nil},
		"platform":          {"FROM base", "platform \"x\" is not os/arch[/variant]", "", func(o *Options) { o.Platform = "x" }},
		"context":           {"FROM base", "build context: stat /nowhere/there: no such file or directory", "", func(o *Options) { o.Source.Context = "/nowhere/there" }},
		"several platforms": {"FROM scratch", `platform "linux/amd64,linux/arm64" is several`, "one image is for one platform: do it once for each", func(o *Options) { o.Platform = "linux/amd64,linux/arm64" }},
		"a stage to redo":   {"FROM base AS x", "--no-cache-filter y: Dockerfile has no such stage", "the only stage is x", func(o *Options) { o.NoCacheStages = []string{"y"} }},
		"a number to redo":  {"FROM base AS x", "--no-cache-filter: there is no stage 1", "the only stage is x", func(o *Options) { o.NoCacheStages = []string{"1"} }},
		"open brace":        {"FROM base\nENV A=${B", "Dockerfile:2: a ${ in ${B has no }", "", nil},
		"both from stdin":   {"FROM base", "both the context and the Dockerfile are to come from standard input", "", func(o *Options) { o.Source.Context = "-" }},
		"http context":      {"FROM base", "get http://127.0.0.1:1/x.tar: dial tcp 127.0.0.1:1: connect: connection refused", "", func(o *Options) { o.Source.Context = "http://127.0.0.1:1/x.tar" }},
		"URL to COPY":       {"FROM base\nARG H=h\nCOPY https://a:b@$H/f /x", "Dockerfile:3: the source https://a:xxxxx@h/f is a URL, and COPY takes files alone", "ADD fetches them", nil},
		"empty file":        {"", "standard input is empty", "a Dockerfile begins with FROM; did the command fail that writes it?", nil},
		"empty context":     {"", "standard input is empty", "a Dockerfile begins with FROM; did the command fail that writes it?", func(o *Options) { o.Source.Context, o.Source.File = "-", "" }},
		"only a comment":    {"# a", "Dockerfile: file with no instructions", "a Dockerfile begins with FROM", nil},
		"empty user":        {"FROM base\nUSER $NO", "Dockerfile:2: USER $NO is empty", "", nil},
		"empty source":      {"FROM base\nCOPY $NO /x", "Dockerfile:2: the source $NO is empty", "", nil},
		"empty destination": {"FROM base\nCOPY a $NO", "Dockerfile:2: the destination $NO is empty", "", nil},
		"heredoc's name":    {"FROM base\nCOPY <<../x /d/\n../x", `Dockerfile:2: a heredoc's name is one file's, not "../x"`, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			_, err := f.try(t, tc.in, map[string]string{"a": "A", "b": "B"}, tc.edit)
			if err == nil || !strings.HasPrefix(err.Error(), tc.err) {
				t.Fatalf("got  %v\nwant %s", err, tc.err)
			}
			if got := hint.Of(err); tc.hint != "" && got != tc.hint {
				t.Errorf("hint %q, want %q", got, tc.hint)
			}
			if len(f.specs) > 0 && name != "failing step" {
				t.Error("something ran")
			}
		})
	}
}

func TestFailedStep(t *testing.T) {
	f := newFake()
	_, err := f.try(t, "FROM base\nRUN write /a b\nENV A=1\nENTRYPOINT [\"e\"]\nRUN fail it", nil, nil)
	var failed *StepError
	var fault *dockerfile.Error
	if !errors.As(err, &failed) || !errors.As(err, &fault) {
		t.Fatalf("%T: %v", err, err)
	}
	if failed.Step != "[3/3] RUN fail it" || failed.Output != "one\ntwo\nfail it" || failed.Enter != "sha256:image" || fault.Line != 5 {
		t.Errorf("%+v at line %d", failed, fault.Line)
	}
	if len(f.made.Config.Config.Entrypoint) > 0 {
		t.Errorf("its entrypoint would get the shell as an argument: %q", f.made.Config.Config.Entrypoint)
	}
	if got := f.files(f.made.State); got["/a"] != "b" || !slices.Contains(f.made.Config.Config.Env, "A=1") || f.made.Names != nil {
		t.Errorf("the state to enter: %+v", f.made)
	}
}

// A command that couldn't be executed failed too. Where it was the shell, the
// state has none to be entered with.
func TestStepWithoutItsProgram(t *testing.T) {
	for df, enter := range map[string]string{
		"FROM base\nRUN [\"none\"]":                          "sha256:image",
		"FROM base\nSHELL [\"/bin/bash\", \"-c\"]\nRUN echo": "sha256:image",
		"FROM base\nRUN echo":                                "",
	} {
		f := newFake()
		f.run = func(_ context.Context, spec RunSpec, _ io.Writer) error {
			return &ExitError{Args: spec.Args, Code: 127, Err: hint.Errorf("look for it", "exec %q: not found", spec.Args[0])}
		}
		_, err := f.try(t, df, nil, nil)
		var failed *StepError
		var exit *ExitError
		if !errors.As(err, &failed) || !errors.As(err, &exit) || exit.Code != 127 || failed.Enter != enter {
			t.Errorf("%s: %v, %+v", df, err, failed)
			continue
		}
		if !strings.Contains(err.Error(), "exec ") || hint.Of(err) != "look for it" {
			t.Errorf("%s: %v, hint %q", df, err, hint.Of(err))
		}
	}
}

// The first failure ends what goes on beside it, and is the one that is told.
func TestFailureCancels(t *testing.T) {
	f := newFake()
	begun := make(chan struct{})
	f.run = func(ctx context.Context, spec RunSpec, _ io.Writer) error {
		if strings.HasPrefix(spec.Args[2], "fail") {
			<-begun
			return nil
		}
		close(begun)
		<-ctx.Done()
		return ctx.Err()
	}
	var mu sync.Mutex
	kinds := map[EventKind]int{}
	_, err := f.try(t, "FROM base AS a\nRUN long\nFROM base AS b\nRUN fail\nFROM scratch\nCOPY --from=a /x /\nCOPY --from=b /x /", nil, func(o *Options) {
		o.Event = func(e Event) {
			mu.Lock()
			kinds[e.Kind]++
			mu.Unlock()
		}
	})
	var exit *ExitError
	if !errors.As(err, &exit) || kinds[Failed] != 1 || kinds[Canceled] != 1 {
		t.Errorf("%v, events %v", err, kinds)
	}
}

// Who waits for a stage that fails tells the stage's error and place, whoever is
// heard first.
func TestFailureOfAnotherStage(t *testing.T) {
	for _, in := range []string{
		"FROM base AS a\nRUN fail\nFROM base\nRUN before\nCOPY --from=a /x /x",
		"FROM base AS a\nRUN fail\nFROM base\nRUN before\nRUN --mount=from=a,target=/x true",
		"FROM base AS a\nCOPY none /\nFROM base\nRUN before\nCOPY --from=a /x /x",
		"FROM none AS a\n\nFROM base\nRUN before\nCOPY --from=a /x /x",
		"FROM base AS a\nRUN fail\nFROM base AS b\nCOPY --from=a /x /x\nFROM base\nCOPY --from=b /x /x",
	} {
		s := newFake().solver(t, in)
		_, want := s.stage(t.Context(), s.plan.named("a"))
		// The last one's error comes first here.
		if _, got := s.stage(t.Context(), s.plan.target); want == nil || got != want { //nolint:errorlint // the very same
			t.Errorf("%s\ngot  %v\nwant %v", in, got, want)
		}
	}
}
