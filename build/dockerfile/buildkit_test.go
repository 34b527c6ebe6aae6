package dockerfile

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"golang.org/x/tools/txtar"
)

// The parser of moby/buildkit, which nook has not in its binary for the sake of
// its package init, is what ours is held against: on the Dockerfiles of the
// corpus, and on what the fuzzer makes of them.

// alike says where the two read a Dockerfile in different ways.
func alike(data string) error {
	want, theirErr := theirs(data)
	got, ourErr := ours(data)
	switch {
	case theirErr != nil && ourErr != nil:
		return nil //nolint:nilerr // both refuse it, in words of their own
	case theirErr != nil:
		return fmt.Errorf("only buildkit refuses it: %w", theirErr)
	case ourErr != nil:
		return fmt.Errorf("only nook refuses it: %w", ourErr)
	case len(got) != len(want):
		return errors.New("another number of instructions")
	}
	for i := range got {
		if got[i] != want[i] {
			return fmt.Errorf("nook     %s\nbuildkit %s", got[i], want[i])
		}
	}
	return nil
}

func TestReadsAsBuildkitDoes(t *testing.T) {
	for _, data := range append(corpus(t), "FROM a\nENTRYPOINT", "FROM a\nCMD") {
		if err := alike(data); err != nil {
			t.Errorf("%v\n%s", err, data)
		}
	}
}

// FuzzReadsAsBuildkitDoes looks at what both accept: ours refuses more, each
// with a reason in parse.go. Theirs reads flags byte by byte, so that only
// ASCII is compared.
func FuzzReadsAsBuildkitDoes(f *testing.F) {
	for _, data := range corpus(f) {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data string) {
		if strings.ContainsFunc(data, func(r rune) bool { return r >= 0x7f || r < ' ' && r != '\n' && r != '\t' }) {
			return
		}
		_, theirErr := theirs(data)
		_, ourErr := ours(data)
		if theirErr != nil || ourErr != nil {
			return
		}
		if err := alike(data); err != nil {
			t.Fatal(err)
		}
	})
}

// corpus is the Dockerfiles of the corpus, which nook and buildah build.
func corpus(t testing.TB) (all []string) {
	t.Helper()
	files, err := filepath.Glob("../../integration/testdata/corpus/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no corpus: %v", err)
	}
	for _, name := range files {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range archive.Files {
			if !strings.ContainsAny(file.Name, "./") {
				all = append(all, string(file.Data))
			}
		}
	}
	return all
}

// ours is what this package reads, a line an instruction.
func ours(data string) (lines []string, err error) {
	file, err := Parse("Dockerfile", []byte(data))
	if err != nil {
		return nil, err
	}
	for _, in := range file.Commands {
		lines = append(lines, ourLine(in.Command))
	}
	return lines, nil
}

// theirs is what buildkit reads, in the words of ours.
func theirs(data string) (lines []string, err error) {
	result, err := parser.Parse(strings.NewReader(data))
	if err != nil {
		return nil, err
	}
	for _, node := range result.AST.Children {
		one, err := instructions.ParseInstruction(node)
		if err != nil {
			return nil, err
		}
		lines = append(lines, theirLine(one))
	}
	return lines, nil
}

func ourLine(command Command) string {
	line := func(c CommandLine) string { return fmt.Sprintf("%t %q", c.Shell, c.Words) }
	pairs := func(all []Pair) (s string) {
		for _, p := range all {
			s += fmt.Sprintf(" %q=%q", p.Name, p.Value)
		}
		return s
	}
	switch c := command.(type) {
	case *From:
		return fmt.Sprintf("FROM %q %q %q", c.Base, c.Platform, c.Name)
	case *Run:
		s := "RUN " + line(c.CommandLine)
		for _, d := range c.Heredocs {
			s += fmt.Sprintf(" <<%q %q %t", d.Name, d.Content, d.Chomp)
		}
		return s
	case *Copy:
		s := fmt.Sprintf("%q", c.Sources)
		for _, d := range c.Heredocs {
			s += fmt.Sprintf(" <<%q %q %t", d.Name, d.Text(), d.Expand)
		}
		s += fmt.Sprintf(" %q %q %q %t %q", c.Dest, c.Chown, c.Chmod, c.Link, c.Exclude)
		if !c.Add {
			return "COPY " + s + fmt.Sprintf(" %q %t", c.From, c.Parents)
		}
		return "ADD " + s + fmt.Sprintf(" %t %q %s", c.KeepGitDir, c.Checksum, maybe(c.Unpack))
	case *Arg:
		s := "ARG"
		for _, a := range c.Args {
			s += fmt.Sprintf(" %q=%s", a.Name, maybe(a.Default))
		}
		return s
	case *Env:
		return "ENV" + pairs(c.Pairs)
	case *Label:
		return "LABEL" + pairs(c.Pairs)
	case *Workdir:
		return fmt.Sprintf("WORKDIR %q", c.Path)
	case *User:
		return fmt.Sprintf("USER %q", c.User)
	case *StopSignal:
		return fmt.Sprintf("STOPSIGNAL %q", c.Signal)
	case *Maintainer:
		return fmt.Sprintf("MAINTAINER %q", c.Name)
	case *Expose:
		return fmt.Sprintf("EXPOSE %q", slices.Sorted(slices.Values(c.Ports)))
	case *Volume:
		return fmt.Sprintf("VOLUME %q", c.Paths)
	case *Cmd:
		return "CMD " + line(c.CommandLine)
	case *Entrypoint:
		return "ENTRYPOINT " + line(c.CommandLine)
	case *Shell:
		return fmt.Sprintf("SHELL %q", c.Words)
	case *Onbuild:
		return fmt.Sprintf("ONBUILD %q", strings.TrimSpace(c.Instruction))
	case *Healthcheck:
		return fmt.Sprintf("HEALTHCHECK %q %v %v %v %v %d", c.Test, c.Interval, c.Timeout, c.StartPeriod, c.StartInterval, c.Retries)
	}
	return fmt.Sprintf("%T", command)
}

func theirLine(one any) string {
	line := func(c instructions.ShellDependantCmdLine) string {
		return fmt.Sprintf("%t %q", c.PrependShell, c.CmdLine)
	}
	pairs := func(all instructions.KeyValuePairs) (s string) {
		for _, p := range all {
			s += fmt.Sprintf(" %q=%q", p.Key, p.Value)
		}
		return s
	}
	sources := func(c instructions.SourcesAndDest) string {
		s := fmt.Sprintf("%q", c.SourcePaths)
		for _, f := range c.SourceContents {
			s += fmt.Sprintf(" <<%q %q %t", f.Path, f.Data, f.Expand)
		}
		return s + fmt.Sprintf(" %q", c.DestPath)
	}
	switch c := one.(type) {
	case *instructions.Stage:
		return fmt.Sprintf("FROM %q %q %q", c.BaseName, c.Platform, c.Name)
	case *instructions.RunCommand:
		s := "RUN " + line(c.ShellDependantCmdLine)
		for _, f := range c.Files {
			s += fmt.Sprintf(" <<%q %q %t", f.Name, f.Data, f.Chomp)
		}
		return s
	case *instructions.AddCommand:
		return fmt.Sprintf("ADD %s %q %q %t %q %t %q %s", sources(c.SourcesAndDest), c.Chown, c.Chmod, c.Link, c.ExcludePatterns,
			c.KeepGitDir != nil && *c.KeepGitDir, c.Checksum, maybe(c.Unpack))
	case *instructions.CopyCommand:
		return fmt.Sprintf("COPY %s %q %q %t %q %q %t", sources(c.SourcesAndDest), c.Chown, c.Chmod, c.Link, c.ExcludePatterns, c.From, c.Parents)
	case *instructions.ArgCommand:
		s := "ARG"
		for _, a := range c.Args {
			s += fmt.Sprintf(" %q=%s", a.Key, maybe(a.Value))
		}
		return s
	case *instructions.EnvCommand:
		return "ENV" + pairs(c.Env)
	case *instructions.LabelCommand:
		return "LABEL" + pairs(c.Labels)
	case *instructions.WorkdirCommand:
		return fmt.Sprintf("WORKDIR %q", c.Path)
	case *instructions.UserCommand:
		return fmt.Sprintf("USER %q", c.User)
	case *instructions.StopSignalCommand:
		return fmt.Sprintf("STOPSIGNAL %q", c.Signal)
	case *instructions.MaintainerCommand:
		return fmt.Sprintf("MAINTAINER %q", c.Maintainer)
	case *instructions.ExposeCommand:
		return fmt.Sprintf("EXPOSE %q", c.Ports)
	case *instructions.VolumeCommand:
		return fmt.Sprintf("VOLUME %q", c.Volumes)
	case *instructions.CmdCommand:
		return "CMD " + line(c.ShellDependantCmdLine)
	case *instructions.EntrypointCommand:
		return "ENTRYPOINT " + line(c.ShellDependantCmdLine)
	case *instructions.ShellCommand:
		return fmt.Sprintf("SHELL %q", c.Shell)
	case *instructions.OnbuildCommand:
		return fmt.Sprintf("ONBUILD %q", strings.TrimSpace(c.Expression))
	case *instructions.HealthCheckCommand:
		h := c.Health
		return fmt.Sprintf("HEALTHCHECK %q %v %v %v %v %d", h.Test, h.Interval, h.Timeout, h.StartPeriod, h.StartInterval, h.Retries)
	}
	return fmt.Sprintf("%T", one)
}

func maybe[T any](v *T) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%#v", *v)
}
