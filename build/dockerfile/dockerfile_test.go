package dockerfile

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"nook/internal/hint"
)

func text(s string) *string { return &s }

func TestCommands(t *testing.T) {
	shell := func(s string) CommandLine { return CommandLine{Words: []string{s}, Shell: true} }
	on := true
	for name, tc := range map[string]struct {
		in   string
		want Command
	}{
		"from":                 {"FROM debian", &From{Base: "debian"}},
		"from named":           {"from --platform=linux/arm64 debian:13 as Base", &From{"debian:13", "linux/arm64", "base"}},
		"run shell":            {"RUN echo  a  b ", &Run{CommandLine: shell("echo  a  b")}},
		"run exec":             {`RUN ["a", "b c"]`, &Run{CommandLine: CommandLine{Words: []string{"a", "b c"}}}},
		"run no json":          {`RUN [ -f x ]`, &Run{CommandLine: shell("[ -f x ]")}},
		"run mounts":           {"RUN --mount=type=tmpfs,target=/t --mount=type=cache,target=/c --network=none make", &Run{CommandLine: shell("make"), Mounts: []string{"type=tmpfs,target=/t", "type=cache,target=/c"}, Network: "none"}},
		"run dashes later":     {"RUN ls --all", &Run{CommandLine: shell("ls --all")}},
		"run end of flags":     {"RUN -- --x", &Run{CommandLine: shell("--x")}},
		"continued":            {"RUN a \\\n  # no part of it\n  && b", &Run{CommandLine: shell("a   && b")}},
		"continued with space": {"RUN a \\  \n b", &Run{CommandLine: shell("a  b")}},
		"two escapes at end":   {"RUN a \\\\\nENV x=1", &Run{CommandLine: shell(`a \\`)}},
		"backtick":             {"# escape=`\nRUN dir C:\\ `\n /x", &Run{CommandLine: shell(`dir C:\  /x`)}},
		"comment in a line":    {"RUN echo # b", &Run{CommandLine: shell("echo # b")}},
		"copy":                 {"COPY a b /c/", &Copy{Sources: []string{"a", "b"}, Dest: "/c/"}},
		"copy json":            {`COPY ["a b", "/c d"]`, &Copy{Sources: []string{"a b"}, Dest: "/c d"}},
		"copy flags": {"COPY --from=0 --chown=1:2 --chmod=u=rw --link --parents --exclude=*.o --exclude=x a b",
			&Copy{Sources: []string{"a"}, Dest: "b", From: "0", Chown: "1:2", Chmod: "u=rw", Link: true, Parents: true, Exclude: []string{"*.o", "x"}}},
		"add": {"ADD --checksum=sha256:aa --keep-git-dir=true --unpack http://h/x /x",
			&Copy{Add: true, Sources: []string{"http://h/x"}, Dest: "/x", Checksum: "sha256:aa", KeepGitDir: true, Unpack: &on}},
		"env":         {`ENV a=1 b="x y" c=\ d e=$a`, &Env{[]Pair{{"a", "1"}, {"b", `"x y"`}, {"c", `\ d`}, {"e", "$a"}}}},
		"env old":     {"ENV a  b c=d", &Env{[]Pair{{"a", "b c=d"}}}},
		"label":       {`LABEL "a b"="c" d=e`, &Label{[]Pair{{`"a b"`, `"c"`}, {"d", "e"}}}},
		"arg":         {"ARG a b=1 c=", &Arg{[]ArgName{{"a", nil}, {"b", text("1")}, {"c", text("")}}}},
		"workdir":     {"WORKDIR /a b", &Workdir{"/a b"}},
		"user":        {"USER a:b", &User{"a:b"}},
		"expose":      {"EXPOSE 80 443/udp", &Expose{[]string{"80", "443/udp"}}},
		"volume":      {"VOLUME /a /b", &Volume{[]string{"/a", "/b"}}},
		"volume json": {`VOLUME ["/a b"]`, &Volume{[]string{"/a b"}}},
		"cmd":         {"CMD a b", &Cmd{shell("a b")}},
		"cmd empty":   {"CMD []", &Cmd{CommandLine{Words: []string{}}}},
		"entrypoint":  {`ENTRYPOINT ["a"]`, &Entrypoint{CommandLine{Words: []string{"a"}}}},
		"shell":       {`SHELL ["/bin/bash", "-c"]`, &Shell{[]string{"/bin/bash", "-c"}}},
		"stopsignal":  {"STOPSIGNAL SIGQUIT", &StopSignal{"SIGQUIT"}},
		"maintainer":  {"MAINTAINER A <a@b>", &Maintainer{"A <a@b>"}},
		"onbuild":     {"ONBUILD RUN make", &Onbuild{"RUN make"}},
		"healthcheck": {"HEALTHCHECK --interval=5s --timeout=1m --start-period=2s --start-interval=1s --retries=3 CMD curl x",
			&Healthcheck{[]string{"CMD-SHELL", "curl x"}, 5 * time.Second, time.Minute, 2 * time.Second, time.Second, 3}},
		"healthcheck exec": {`HEALTHCHECK CMD ["a"]`, &Healthcheck{Test: []string{"CMD", "a"}}},
		"healthcheck none": {"HEALTHCHECK NONE", &Healthcheck{Test: []string{"NONE"}}},
		"run heredoc":      {"RUN <<EOF\na\n  b\nEOF", &Run{CommandLine: shell("<<EOF"), Heredocs: []Heredoc{{"EOF", "a\n  b\n", true, false}}}},
		"two heredocs":     {"COPY <<a <<-\"b\" /d/\nA\na\n\tB\n\tb", &Copy{Heredocs: []Heredoc{{"a", "A\n", true, false}, {"b", "\tB\n", false, true}}, Dest: "/d/"}},
		"heredoc of shell": {"RUN cat <<EOF > /x\na # b\n\\\nEOF", &Run{CommandLine: shell("cat <<EOF > /x"), Heredocs: []Heredoc{{"EOF", "a # b\n\\\n", true, false}}}},
		"no heredoc":       {`RUN ["sh", "-c", "cat <<EOF"]`, &Run{CommandLine: CommandLine{Words: []string{"sh", "-c", "cat <<EOF"}}}},
		"shift":            {"RUN echo $((1<<2))", &Run{CommandLine: shell("echo $((1<<2))")}},
		"onbuild heredoc":  {"ONBUILD RUN <<E\nx\nE", &Onbuild{"RUN <<E\nx\nE"}},
		"byte order mark":  {"\ufeffFROM a", &From{Base: "a"}},
		"windows lines":    {"FROM a\r\n", &From{Base: "a"}},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := Parse("Dockerfile", []byte(tc.in))
			if err != nil {
				t.Fatal(err)
			}
			if got := f.Commands[0].Command; !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got  %#v\nwant %#v", got, tc.want)
			}
		})
	}
}

func TestHeredocText(t *testing.T) {
	if got := (Heredoc{Content: "\t\ta\n\tb\tc\n", Chomp: true}).Text(); got != "a\nb\tc\n" {
		t.Errorf("got %q", got)
	}
	if got := (Heredoc{Content: "\ta\n"}).Text(); got != "\ta\n" {
		t.Errorf("got %q", got)
	}
}

func TestDirectives(t *testing.T) {
	f, err := Parse("Dockerfile", []byte("# syntax=docker/dockerfile:1\n#  Escape = `\n# a=b\n# escape=x\nFROM a"))
	if err != nil || f.Syntax != "docker/dockerfile:1" || f.Escape != '`' {
		t.Errorf("got %+v, %v", f, err)
	}
}

func TestEmptyContinuationWarns(t *testing.T) {
	f, err := Parse("Dockerfile", []byte("FROM a\nRUN a \\\n\n  b"))
	if err != nil || len(f.Warnings) != 1 || f.Warnings[0] != "Dockerfile:2: empty continuation line" {
		t.Errorf("got %+v, %v", f, err)
	}
}

// TestFaults checks the message and that the caret stands below what is wrong.
func TestFaults(t *testing.T) {
	for name, tc := range map[string]struct{ in, err, at, hint string }{
		"empty":               {"", "Dockerfile: file with no instructions", "", ""},
		"only comments":       {"# a\n\n", "Dockerfile: file with no instructions", "", ""},
		"unknown instruction": {"FROM a\n  RUNN x", "Dockerfile:2: unknown instruction: RUNN", "RUNN", "did you mean RUN?"},
		"unknown flag":        {"FROM a\nCOPY --chow=1 a b", "Dockerfile:2: unknown flag of COPY: --chow", "--chow", "did you mean --chown?"},
		"flag of another":     {"FROM a\nADD --from=x a b", "Dockerfile:2: unknown flag of ADD: --from", "--from", ""},
		"flag twice":          {"COPY --from=x --from=y a b", "Dockerfile:1: flag --from stands twice", "--from=y", ""},
		"flag without value":  {"COPY --from a b", "Dockerfile:1: flag --from has no value", "--from", ""},
		"in the second line":  {"FROM a\nRUN --mount=type=tmpfs,target=/a \\\n  --mont=x \\\n  true", "Dockerfile:3: unknown flag of RUN: --mont", "--mont=x", "did you mean --mount?"},
		"from":                {"FROM a b", "Dockerfile:1: FROM takes IMAGE or IMAGE AS NAME", "b", ""},
		"from nothing":        {"FROM", "Dockerfile:1: FROM takes IMAGE or IMAGE AS NAME", "", ""},
		"stage name":          {"FROM a AS 1x", `Dockerfile:1: invalid name for a build stage: "1x"`, "1x", ""},
		"env":                 {"ENV a=1 b", `Dockerfile:1: "b" has no =: ENV takes NAME=VALUE`, "b", ""},
		"env alone":           {"ENV a", "Dockerfile:1: ENV takes NAME=VALUE", "", ""},
		"env no name":         {"ENV =1", "Dockerfile:1: ENV has no name", "=1", ""},
		"copy alone":          {"COPY a", "Dockerfile:1: COPY takes at least one source and a destination", "", ""},
		"copy from variable":  {"COPY --from=$x a b", "Dockerfile:1: from takes no variables", "--from", "name a stage instead: FROM $IMAGE AS name"},
		"mount from variable": {"RUN --mount=from=${x},target=/a b", "Dockerfile:1: from takes no variables", "from=", "name a stage instead: FROM $IMAGE AS name"},
		"heredoc to heredoc":  {"COPY a <<E\nE", "Dockerfile:1: a heredoc is no destination", "<<E", ""},
		"unterminated":        {"RUN <<E\na", "Dockerfile:1: unterminated heredoc", "<<E", ""},
		"json":                {"CMD [1]", "Dockerfile:1: a JSON array of an instruction has strings only", "[1]", ""},
		"shell":               {"SHELL /bin/bash -c", `Dockerfile:1: SHELL takes the JSON form: ["/bin/sh", "-c"]`, "/bin", ""},
		"onbuild":             {"ONBUILD FROM x", "Dockerfile:1: FROM: not allowed as an ONBUILD trigger", "FROM", ""},
		"onbuild inside":      {"ONBUILD \\\n RUNN x", "Dockerfile:2: unknown instruction: RUNN", "RUNN", "did you mean RUN?"},
		"onbuild chained":     {"ONBUILD ONBUILD RUN x", "Dockerfile:1: ONBUILD: not allowed as an ONBUILD trigger", "ONBUILD RUN", ""},
		"interval":            {"HEALTHCHECK --interval=5 CMD a", "Dockerfile:1: --interval=5: a time such as 30s is meant", "--interval", ""},
		"short interval":      {"HEALTHCHECK --interval=1us CMD a", "Dockerfile:1: --interval=1us: the shortest is 1ms", "--interval", ""},
		"retries":             {"HEALTHCHECK --retries=-1 CMD a", "Dockerfile:1: --retries=-1: a number from 0 up is meant", "--retries", ""},
		"healthcheck":         {"HEALTHCHECK curl", "Dockerfile:1: HEALTHCHECK curl: CMD or NONE is meant", "curl", ""},
		"volume":              {`VOLUME [""]`, "Dockerfile:1: a volume has an empty path", "[", ""},
		"network":             {"RUN --network=x a", "Dockerfile:1: --network=x: default, none and host are known", "--network", ""},
		"insecure":            {"RUN --security=insecure a", "Dockerfile:1: --security=insecure is refused", "--security", "a build of nook never has more rights than its user"},
		"escape":              {"#escape=x\nFROM a", "Dockerfile:1: escape=x: a backslash or a backtick is meant", "#", ""},
		"directive twice":     {"#syntax=x\n#syntax=y\nFROM a", "Dockerfile:2: only one syntax parser directive can be used", "#syntax=y", ""},
		"nul":                 {"FROM a\nENV b=c\x00d", "Dockerfile:2: a NUL byte is in it", "?", ""},
		"nul in json":         {`CMD ["a\u0000b"]`, "Dockerfile:1: a NUL byte is in it", "[", ""},
		"binary":              {"FROM a\n\xff\xfe", "Dockerfile:2: not UTF-8 text", "?", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("Dockerfile", []byte(tc.in))
			if err == nil || err.Error() != tc.err {
				t.Fatalf("got %v, want %s", err, tc.err)
			}
			if got := hint.Of(err); tc.hint != "" && got != tc.hint {
				t.Errorf("hint %q, want %q", got, tc.hint)
			}
			var fault *Error
			if !errors.As(err, &fault) {
				t.Fatalf("%T", err)
			}
			excerpt := fault.Excerpt()
			before, _, found := strings.Cut(excerpt, "^")
			if !found {
				if fault.Line != 0 {
					t.Fatalf("no caret in:\n%s", excerpt)
				}
				return
			}
			lines := strings.Split(before, "\n")
			column := len([]rune(lines[len(lines)-1]))
			above := []rune(lines[len(lines)-2])
			if column > len(above) {
				above = append(above, []rune(strings.Repeat(" ", column-len(above)))...)
			}
			if got := string(above[column:]); tc.at != "" && !strings.HasPrefix(got, tc.at) && tc.at != "?" {
				t.Errorf("the caret stands at %q, want %q:\n%s", got, tc.at, excerpt)
			}
		})
	}
}

func TestExcerpt(t *testing.T) {
	_, err := Parse("dir/Dockerfile", []byte("FROM a\n# two\n# three\nRUN a && \\\n\tb\nCOPY \tx\n\nRUN c\nRUN d\n"))
	var fault *Error
	if !errors.As(err, &fault) {
		t.Fatal(err)
	}
	want := "dir/Dockerfile:6\n" +
		"   4 |     RUN a && \\\n" +
		"   5 |      b\n" +
		"   6 | >>> COPY  x\n" +
		"     |            ^\n" +
		"   7 |\n" +
		"   8 |     RUN c\n"
	if got := fault.Excerpt(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A line of megabytes isn't shown whole.
func TestExcerptOfALongLine(t *testing.T) {
	for name, tc := range map[string]struct {
		in    string
		caret bool
	}{
		"fault at the begin": {"RUNN " + strings.Repeat("ä", 5000), true},
		"fault at the end":   {"COPY " + strings.Repeat("ä", 5000) + " <<E\nE", false},
	} {
		_, err := Parse("Dockerfile", []byte(tc.in))
		var fault *Error
		if !errors.As(err, &fault) {
			t.Fatalf("%s: %v", name, err)
		}
		excerpt := fault.Excerpt()
		first, _, _ := strings.Cut(excerpt, "…\n")
		if n := utf8.RuneCountInString(first); n < 500 || n > 550 || strings.Contains(excerpt, "^") != tc.caret {
			t.Errorf("%s: %d characters:\n%s", name, n, excerpt)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"FROM a\nRUN <<E\nx\nE", "# escape=`\nFROM a\nRUN a `\nb", "ONBUILD RUN <<-'E' cat\n\tE",
		"COPY --from=x [\"a\"] b", "ENV a=\"b c\\\" d\" e", "HEALTHCHECK --interval=1s CMD [\"a\"]", "FROM \\\n# x\n a",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		file, err := Parse("Dockerfile", []byte(in))
		if err != nil {
			var fault *Error
			if !errors.As(err, &fault) {
				t.Fatalf("%T: %v", err, err)
			}
			if fault.Line < 0 || fault.Line > len(fault.lines) {
				t.Fatalf("line %d of %d", fault.Line, len(fault.lines))
			}
			_ = fault.Excerpt()
			return
		}
		for _, c := range file.Commands {
			if c.Command == nil || c.Start < 1 || c.End < c.Start || c.End > len(file.lines) {
				t.Fatalf("%+v", c)
			}
		}
	})
}
