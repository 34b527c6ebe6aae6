package main

import (
	"slices"
	"strings"
	"testing"
)

func TestRewrite(t *testing.T) {
	run := grammar{options: runOptions(), verbatim: true}
	rmi := grammar{options: rmiOptions()}
	for _, test := range []struct {
		name  string
		g     grammar
		args  []string
		flags []string
		rest  []string
	}{
		{"nothing", run, nil, nil, nil},
		{"long with space", run, []string{"--name", "a", "img"}, []string{"--name=a"}, []string{"img"}},
		{"long joined", run, []string{"--name=a=b", "img"}, []string{"--name=a=b"}, []string{"img"}},
		{"long empty", run, []string{"--entrypoint=", "img"}, []string{"--entrypoint="}, []string{"img"}},
		{"long takes a dashed value", run, []string{"--name", "--rm", "img"}, []string{"--name=--rm"}, []string{"img"}},
		{"alias", run, []string{"--net", "host", "img"}, []string{"--network=host"}, []string{"img"}},
		{"switch", run, []string{"--rm", "img"}, []string{"--rm=true"}, []string{"img"}},
		{"switch off", run, []string{"--rm=0", "img"}, []string{"--rm=false"}, []string{"img"}},
		{"switch takes no next word", run, []string{"--rm", "false"}, []string{"--rm=true"}, []string{"false"}},
		{"short", run, []string{"-u", "root", "img"}, []string{"--user=root"}, []string{"img"}},
		{"short joined", run, []string{"-uroot", "img"}, []string{"--user=root"}, []string{"img"}},
		{"short with =", run, []string{"-u=root", "img"}, []string{"--user=root"}, []string{"img"}},
		{"short switch off", run, []string{"-t=false", "img"}, []string{"--tty=false"}, []string{"img"}},
		{"value with comma and =", run, []string{"-eA=1,2", "img"}, []string{"--env=A=1,2"}, []string{"img"}},
		{"value with colon", run, []string{"-v/a b:/c:ro", "img"}, []string{"--volume=/a b:/c:ro"}, []string{"img"}},
		{"short takes a dashed value", run, []string{"-e", "-i", "x"}, []string{"--env=-i"}, []string{"x"}},
		{"cluster", run, []string{"-it", "img"}, []string{"--interactive=true", "--tty=true"}, []string{"img"}},
		{"cluster, value next", run, []string{"-itu", "root", "img"}, []string{"--interactive=true", "--tty=true", "--user=root"}, []string{"img"}},
		{"cluster, value joined", run, []string{"-ituroot", "img"}, []string{"--interactive=true", "--tty=true", "--user=root"}, []string{"img"}},
		{"cluster, value with =", run, []string{"-itu=root", "img"}, []string{"--interactive=true", "--tty=true", "--user=root"}, []string{"img"}},
		{"joined value swallows letters", run, []string{"-ueA=1", "img"}, []string{"--user=eA=1"}, []string{"img"}},
		{"-h is run's hostname", run, []string{"-h", "box", "img"}, []string{"--hostname=box"}, []string{"img"}},
		{"lists keep their order", run, []string{"-e", "A=1", "-eB=2", "--env=A=3", "x"}, []string{"--env=A=1", "--env=B=2", "--env=A=3"}, []string{"x"}},
		{"the command's flags are its own", run, []string{"img", "sh", "-c", "--rm", "--", "-x"}, nil, []string{"img", "sh", "-c", "--rm", "--", "-x"}},
		{"-- ends flags", run, []string{"--rm", "--", "-img", "--", "a"}, []string{"--rm=true"}, []string{"-img", "--", "a"}},
		{"one dash is a name", run, []string{"-", "--rm"}, nil, []string{"-", "--rm"}},
		{"flags behind names", rmi, []string{"a", "-f", "b"}, []string{"--force=true"}, []string{"a", "b"}},
		{"-- behind names", rmi, []string{"a", "--", "-f"}, nil, []string{"a", "-f"}},
		{"bytes stay bytes", run, []string{"-e", "A=\xff\x00 ", "x"}, []string{"--env=A=\xff\x00 "}, []string{"x"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := test.g.rewrite(test.args)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got.flags, test.flags) || !slices.Equal(got.args, test.rest) || got.help {
				t.Errorf("got flags %q args %q help %v, want flags %q args %q", got.flags, got.args, got.help, test.flags, test.rest)
			}
		})
	}
}

func TestRewriteRefuses(t *testing.T) {
	run := grammar{options: runOptions(), verbatim: true}
	for _, test := range []struct {
		args string
		want string
	}{
		{"--nosuch img", "unknown flag: --nosuch"},
		{"--nosuch=1 img", "unknown flag: --nosuch"},
		{"--nam x img", "unknown flag: --nam"},
		{"--= img", "unknown flag: --"},
		{"--env-fil", "unknown flag: --env-fil"},
		{"-x img", `unknown shorthand flag: "x" in -x`},
		{"-ix img", `unknown shorthand flag: "x" in -ix`},
		{"-é img", `unknown shorthand flag: "é" in -é`},
		{"--name", "flag needs an argument: --name"},
		{"-e", `flag needs an argument: "e" in -e`},
		{"-ite", `flag needs an argument: "e" in -ite`},
		{"-h", `flag needs an argument: "h" in -h`},
		{"--rm=maybe img", `invalid value "maybe" for --rm: want true or false`},
		{"-t=2 img", `invalid value "2" for -t: want true or false`},
	} {
		t.Run(test.args, func(t *testing.T) {
			got, err := run.rewrite(strings.Fields(test.args))
			if err == nil || err.Error() != test.want {
				t.Errorf("got %+v, %v; want error %q", got, err, test.want)
			}
		})
	}
}

func TestRewriteMeetsHelp(t *testing.T) {
	for _, test := range []struct {
		g    grammar
		args string
		want bool
	}{
		{grammar{options: runOptions(), verbatim: true}, "--rm --help --nosuch", true},
		{grammar{options: runOptions(), verbatim: true}, "img --help", false},
		{grammar{options: runOptions(), verbatim: true}, "-- --help", false},
		{grammar{options: runOptions(), verbatim: true}, "--name --help img", false},
		{grammar{options: rmiOptions()}, "img --help", true},
		{grammar{options: rmiOptions()}, "-h", true},
		{grammar{options: rmiOptions()}, "-fh", true},
	} {
		got, err := test.g.rewrite(strings.Fields(test.args))
		if err != nil || got.help != test.want {
			t.Errorf("%s: help %v, %v; want %v", test.args, got.help, err, test.want)
		}
	}
}

// FuzzRewrite holds what every command line must hold: nothing is lost, nothing
// is invented, and the result means the same when it is read again.
func FuzzRewrite(f *testing.F) {
	for _, seed := range []string{"-it\nimg", "-ituroot\nimg\n-c", "--name\nx\n--\n-y", "-eA=1,2\nx", "--rm=0\n-", "--=", "-\xff", "x\n--help"} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, line string, verbatim bool) {
		g := grammar{options: runOptions(), verbatim: verbatim}
		args := strings.Split(line, "\n")
		got, err := g.rewrite(args)
		if err != nil || got.help {
			return
		}
		for _, flag := range got.flags {
			name, _, joined := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
			if o, ok := g.find(name); !joined || !ok || o.name != name {
				t.Fatalf("%q became the flag %q", args, flag)
			}
		}
		rest := args
		for _, arg := range got.args {
			i := slices.Index(rest, arg)
			if i < 0 {
				t.Fatalf("%q became the positionals %q", args, got.args)
			}
			rest = rest[i+1:]
		}
		if verbatim && len(got.args) > 0 && !slices.Equal(args[len(args)-len(got.args):], got.args) {
			t.Fatalf("%q: the command became %q", args, got.args)
		}
		again, err := g.rewrite(slices.Concat(got.flags, []string{"--"}, got.args))
		if err != nil || !slices.Equal(again.flags, got.flags) || !slices.Equal(again.args, got.args) {
			t.Fatalf("%q: read again as %+v, %v; first as %+v", args, again, err, got)
		}
	})
}
