package build

import (
	"bytes"
	"context"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nook/images"
)

// env is the environment of the last command, without that of the base.
func (f *fake) env(t *testing.T) string {
	t.Helper()
	if len(f.specs) == 0 {
		t.Fatal("nothing ran")
	}
	env := slices.DeleteFunc(slices.Clone(f.specs[len(f.specs)-1].Env), func(s string) bool {
		return s == "PATH=/bin" || s == "LANG=C"
	})
	return strings.Join(env, " ")
}

func TestConfig(t *testing.T) {
	for name, tc := range map[string]struct {
		in   string
		want func(c images.ContainerConfig) bool
	}{
		"env": {"ENV A=1 B=\"x y\" C=$A\nENV A=2 D=$A", func(c images.ContainerConfig) bool {
			return slices.Equal(c.Env, []string{"PATH=/bin", "LANG=C", "A=2", "B=x y", "C=", "D=1"})
		}},
		"env of the base": {"ENV LANG=de", func(c images.ContainerConfig) bool { return c.Env[1] == "LANG=de" && len(c.Env) == 2 }},
		"env escaped": {`ENV A=\$LANG B='$LANG' C="$LANG" D=${LANG}x E=${NO:-f} F=${LANG:+g}`, func(c images.ContainerConfig) bool {
			return strings.Join(c.Env[2:], " ") == "A=$LANG B=$LANG C=C D=Cx E=f F=g"
		}},
		"label":     {"LABEL a=1 \"b c\"=\"d e\"", func(c images.ContainerConfig) bool { return c.Labels["b c"] == "d e" && c.Labels["from"] == "base" }},
		"cmd shell": {"CMD a b", func(c images.ContainerConfig) bool { return slices.Equal(c.Cmd, []string{"/bin/sh", "-c", "a b"}) }},
		"cmd own shell": {"SHELL [\"x\", \"-y\"]\nCMD a b", func(c images.ContainerConfig) bool {
			return slices.Equal(c.Cmd, []string{"x", "-y", "a b"}) && c.Shell[0] == "x"
		}},
		"cmd empty":             {"CMD []", func(c images.ContainerConfig) bool { return len(c.Cmd) == 0 }},
		"entrypoint":            {"ENTRYPOINT [\"e\"]", func(c images.ContainerConfig) bool { return c.Entrypoint[0] == "e" && c.Cmd == nil }},
		"entrypoint empty":      {"ENTRYPOINT", func(c images.ContainerConfig) bool { return len(c.Entrypoint) == 0 && c.Cmd == nil }},
		"cmd before entrypoint": {"CMD [\"c\"]\nENTRYPOINT [\"e\"]", func(c images.ContainerConfig) bool { return c.Cmd[0] == "c" }},
		"workdir":               {"WORKDIR /a\nWORKDIR b/../c", func(c images.ContainerConfig) bool { return c.WorkingDir == "/a/c" }},
		"workdir variable":      {"ARG D=/x\nWORKDIR $D/y", func(c images.ContainerConfig) bool { return c.WorkingDir == "/x/y" }},
		"user":                  {"ENV U=joe\nUSER $U:1", func(c images.ContainerConfig) bool { return c.User == "joe:1" }},
		"expose": {"ARG P=\"1 2/udp\"\nEXPOSE 80 $P 10-12/TCP", func(c images.ContainerConfig) bool {
			return strings.Join(slices.Sorted(maps.Keys(c.ExposedPorts)), " ") == "1/tcp 10/tcp 11/tcp 12/tcp 2/udp 80/tcp"
		}},
		"volume":     {"VOLUME /a \"/b\"", func(c images.ContainerConfig) bool { _, ok := c.Volumes["/b"]; return ok && len(c.Volumes) == 2 }},
		"stopsignal": {"STOPSIGNAL SIGRTMIN+3", func(c images.ContainerConfig) bool { return c.StopSignal == "SIGRTMIN+3" }},
		"healthcheck": {"HEALTHCHECK --interval=5s CMD x", func(c images.ContainerConfig) bool {
			return c.Healthcheck.Test[1] == "x" && c.Healthcheck.Interval == 5*time.Second
		}},
		"onbuild": {"ONBUILD RUN x", func(c images.ContainerConfig) bool { return c.OnBuild[0] == "RUN x" }},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			if _, err := f.try(t, "FROM base\n"+tc.in, nil, nil); err != nil {
				t.Fatal(err)
			}
			if !tc.want(f.made.Config.Config) {
				t.Errorf("%+v", f.made.Config.Config)
			}
		})
	}
}

func TestScratch(t *testing.T) {
	f := newFake()
	if _, err := f.try(t, "FROM scratch\nCOPY a /\n", map[string]string{"a": "A"}, nil); err != nil {
		t.Fatal(err)
	}
	if c := f.made.Config; f.made.Base != nil || c.OS != "linux" || c.Config.WorkingDir != "/" || len(f.made.State.Layers) != 1 {
		t.Errorf("%+v", f.made)
	}
}

func TestArgScopes(t *testing.T) {
	for name, tc := range map[string]struct {
		in   string
		args map[string]string
		want string
	}{
		"default":              {"FROM base\nARG A=1\nRUN x", nil, "A=1"},
		"given":                {"FROM base\nARG A=1\nRUN x", map[string]string{"A": "2"}, "A=2"},
		"given empty":          {"FROM base\nARG A=1\nRUN x", map[string]string{"A": ""}, "A="},
		"no value":             {"FROM base\nARG A\nRUN x", nil, ""},
		"not declared":         {"FROM base\nRUN x", map[string]string{"A": "2"}, ""},
		"declared too late":    {"FROM base\nRUN x\nARG A", map[string]string{"A": "2"}, ""},
		"global is not seen":   {"ARG A=1\nFROM base\nRUN x", nil, ""},
		"global is taken":      {"ARG A=1\nFROM base\nARG A\nRUN x", nil, "A=1"},
		"stage has its own":    {"ARG A=1\nFROM base\nARG A=3\nRUN x", nil, "A=3"},
		"of another stage":     {"FROM base AS a\nARG A=1\nFROM base\nRUN x", nil, ""},
		"of the stage below":   {"FROM base AS a\nARG A=1\nFROM a\nRUN x", nil, "A=1"},
		"redeclared above":     {"FROM base AS a\nARG A=1\nFROM a\nARG A\nRUN x", nil, "A=1"},
		"changed above":        {"FROM base AS a\nARG A=1\nFROM a AS b\nARG A=2\nRUN y\nFROM a\nCOPY --from=b /ran /\nRUN x", nil, "A=1"},
		"env wins":             {"FROM base\nARG A=1\nENV A=2\nRUN x", map[string]string{"A": "3"}, "A=2"},
		"env from arg":         {"FROM base\nARG A=1\nENV B=$A\nRUN x", nil, "B=1 A=1"},
		"default from default": {"FROM base\nARG A=1\nARG B=$A\nRUN x", nil, "A=1 B=1"},
		"proxy":                {"FROM base\nRUN x", map[string]string{"HTTP_PROXY": "p", "no_proxy": "q"}, "HTTP_PROXY=p no_proxy=q"},
		"platform":             {"FROM base\nARG TARGETOS\nARG BUILDOS\nRUN x", nil, "BUILDOS=linux TARGETOS=linux"},
		"from in base":         {"ARG B=ba\nARG C=se\nFROM ${B}$C\nRUN x", nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			if _, err := f.try(t, tc.in, nil, func(o *Options) { o.Args = tc.args }); err != nil {
				t.Fatal(err)
			}
			if got := f.env(t); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestHeredocs(t *testing.T) {
	f := newFake()
	df := "FROM base\nARG A=1\nENV B=two\nRUN <<EOF\na\nb\nEOF\nRUN <<-\"X\"\n\t#!/bin/x\n\tb\n\tX\nRUN cat <<E >/f\n$A\nE\n" +
		"COPY <<y <<\"z\" /d/\n$A ${B} \"q\" \\$A\ny\n$A\nz\n"
	if _, err := f.try(t, df, nil, nil); err != nil {
		t.Fatal(err)
	}
	if got := f.specs[0].Args; !slices.Equal(got, []string{"/bin/sh", "-c", "a\nb\n"}) {
		t.Errorf("the script of the shell: %q", got)
	}
	if got := f.specs[1]; got.Args[0] != "/dev/pipes/X" || string(got.Mounts[0].Data) != "#!/bin/x\nb\n" || *got.Mounts[0].Mode != 0o755 {
		t.Errorf("the script with an interpreter: %+v", got)
	}
	if got := f.specs[2].Args[2]; got != "cat <<E >/f\n$A\nE" {
		t.Errorf("the shell's own heredoc: %q", got)
	}
	files := f.files(f.made.State)
	if files["/d/y"] != "1 two \"q\" $A\n" || files["/d/z"] != "$A\n" {
		t.Errorf("files: %q", files)
	}
}

func TestCacheKeys(t *testing.T) {
	const df = "FROM base\nARG A=1\nLABEL l=1\nRUN first\nARG B\nCOPY a /\nRUN second\n"
	for name, tc := range map[string]struct {
		df   string
		args map[string]string
		text string
		edit func(*Options)
		want string
	}{
		"nothing changed":   {df, nil, "A", nil, ""},
		"a label":           {strings.Replace(df, "l=1", "l=2", 1), nil, "A", nil, ""},
		"a comment":         {"# x\n" + df, nil, "A", nil, ""},
		"an argument":       {df, map[string]string{"A": "2"}, "A", nil, "run first; run second"},
		"its own default":   {df, map[string]string{"A": "1"}, "A", nil, ""},
		"a later argument":  {df, map[string]string{"B": "2"}, "A", nil, "run second"},
		"an unknown one":    {df, map[string]string{"C": "2"}, "A", nil, ""},
		"a proxy":           {df, map[string]string{"http_proxy": "2"}, "A", nil, ""},
		"a file":            {df, nil, "B", nil, "copy /a; run second"},
		"a command":         {strings.Replace(df, "first", "other", 1), nil, "A", nil, "run other; copy /a; run second"},
		"no cache":          {df, nil, "A", func(o *Options) { o.NoCache = true }, "run first; copy /a; run second"},
		"an epoch":          {df, nil, "A", func(o *Options) { o.Epoch = time.Unix(9, 0) }, "run first; copy /a; run second"},
		"user":              {strings.Replace(df, "LABEL l=1", "USER x", 1), nil, "A", nil, "run first; run second"},
		"a stage not used":  {"FROM base AS x\nRUN unused\n" + df, nil, "A", nil, ""},
		"owner of the copy": {strings.Replace(df, "COPY", "COPY --chown=1", 1), nil, "A", nil, "copy /a; run second"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			if _, err := f.try(t, df, map[string]string{"a": "A"}, nil); err != nil {
				t.Fatal(err)
			}
			_, err := f.try(t, tc.df, map[string]string{"a": tc.text}, func(o *Options) {
				o.Args = tc.args
				if tc.edit != nil {
					tc.edit(o)
				}
			})
			if got := strings.Join(f.did, "; "); err != nil || got != tc.want {
				t.Errorf("did %q, want %q (%v)", got, tc.want, err)
			}
		})
	}
}

// What a secret is called where the command finds it counts, what it holds not.
func TestCacheKeyOfSecrets(t *testing.T) {
	f := newFake()
	value := "one"
	try := func(mount string) string {
		t.Helper()
		t.Setenv("SECRET", value)
		df := "FROM base\nRUN --mount=type=secret,id=s" + mount + " made\n"
		if _, err := f.try(t, df, nil, func(o *Options) { o.Secrets = map[string]Secret{"s": {Env: "SECRET"}} }); err != nil {
			t.Fatal(err)
		}
		return strings.Join(f.did, "; ")
	}
	for i, tc := range []struct{ mount, value, want string }{
		{",env=A", "one", "run made"},
		{",env=A", "two", ""},
		{",env=B", "two", "run made"},
		{"", "two", "run made"},
		{",target=/s", "two", "run made"},
		{",target=/s,mode=0444", "two", "run made"},
		{",target=/s", "three", ""},
	} {
		value = tc.value
		if got := try(tc.mount); got != tc.want {
			t.Errorf("%d: %q with %s: did %q, want %q", i, tc.mount, tc.value, got, tc.want)
		}
	}
}

// A stage that is done again and makes the same leads to what was built on it.
func TestCacheOfSameResult(t *testing.T) {
	f := newFake()
	df := "FROM base AS b\nRUN write /out same\nFROM base\nCOPY --from=b /out /\nRUN last\n"
	if _, err := f.try(t, df, nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := f.try(t, strings.Replace(df, "RUN write", "RUN write  ", 1), nil, nil); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(f.did, "; "); got != "run write   /out same" {
		t.Errorf("did %q", got)
	}
}

func TestStages(t *testing.T) {
	f := newFake()
	df := "FROM base AS unused\nRUN never\nFROM base AS one\nRUN write /a A\nFROM one AS two\nRUN write /b B\n" +
		"FROM scratch\nCOPY --from=one /a /\nCOPY --from=2 /b /c\n"
	if _, err := f.try(t, df, nil, nil); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(f.did, "run never") {
		t.Error("a stage that isn't needed was built")
	}
	if files := f.files(f.made.State); files["/a"] != "A" || files["/c"] != "B" {
		t.Errorf("%q", files)
	}
	if _, err := f.try(t, df, nil, func(o *Options) { o.Target = "ONE"; o.NoCache = true }); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(f.did, "; "); got != "run write /a A" {
		t.Errorf("the target one: %q", got)
	}
}

// Three stages run at once: each waits until all have begun.
func TestSideBySide(t *testing.T) {
	f := newFake()
	var all sync.WaitGroup
	all.Add(3)
	f.run = func(context.Context, RunSpec, io.Writer) error {
		all.Done()
		all.Wait()
		return nil
	}
	df := "FROM base AS a\nRUN write /a 1\nFROM base AS b\nRUN write /b 2\nFROM base AS c\nRUN write /c 3\n" +
		"FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\nCOPY --from=c /c /\n"
	if _, err := f.try(t, df, nil, nil); err != nil {
		t.Fatal(err)
	}
}

// A stage that is to be built again doesn't take what another one found.
func TestNoCacheOfOneStage(t *testing.T) {
	f := newFake()
	df := "FROM base AS a\nRUN same\nFROM base AS b\nRUN same\nFROM scratch\nCOPY --from=a /ran /a\nCOPY --from=b /ran /b\n"
	for _, name := range []string{"a", "a", "A", "0", "1"} {
		if _, err := f.try(t, df, nil, func(o *Options) { o.NoCacheStages = []string{name} }); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(f.did, "run same") {
			t.Fatalf("%s: did %q", name, f.did)
		}
	}
}

func TestAgentsOwnVariable(t *testing.T) {
	for df, want := range map[string]string{
		"FROM base\nRUN --mount=type=ssh --mount=type=ssh,id=default,target=/b x": "SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0",
		"FROM base\nENV SSH_AUTH_SOCK=/mine\nRUN --mount=type=ssh x":              "SSH_AUTH_SOCK=/mine",
		"FROM base\nARG SSH_AUTH_SOCK=/mine\nRUN --mount=type=ssh x":              "SSH_AUTH_SOCK=/mine",
	} {
		f := newFake()
		if _, err := f.try(t, df, nil, func(o *Options) { o.SSH = map[string]string{"default": "/agent"} }); err != nil {
			t.Fatal(err)
		}
		if got := f.env(t); got != want {
			t.Errorf("%s: %q, want %q", df, got, want)
		}
	}
}

func TestSameStepOnce(t *testing.T) {
	f := newFake()
	df := "FROM base AS a\nRUN same\nFROM base AS b\nRUN same\nFROM scratch\nCOPY --from=a /ran /a\nCOPY --from=b /ran /b\n"
	if _, err := f.try(t, df, nil, nil); err != nil {
		t.Fatal(err)
	}
	if n := len(f.specs); n != 1 {
		t.Errorf("it ran %d times", n)
	}
}

func TestOnbuild(t *testing.T) {
	f := newFake()
	base := f.images["docker.io/library/base:latest"]
	config := *base.Config
	config.Config.OnBuild = []string{"COPY a /src/", "RUN made"}
	base.Config = &config
	f.images["docker.io/library/base:latest"] = base
	if _, err := f.try(t, "FROM base\nRUN own\n", map[string]string{"a": "A"}, nil); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(f.did, "; "); got != "copy /src/a; run made; run own" {
		t.Errorf("did %q", got)
	}
	if f.made.Config.Config.OnBuild != nil {
		t.Error("the triggers are handed on")
	}
	config.Config.OnBuild = []string{"COPY --from=x /a /"}
	_, err := f.try(t, "FROM base AS x\nRUN own\n", nil, nil)
	if err == nil || !strings.Contains(err.Error(), "stages need each other") {
		t.Errorf("a trigger that copies from its own stage: %v", err)
	}
}

// Two stages whose bases' triggers copy from the other would wait for ever.
func TestOnbuildCycle(t *testing.T) {
	f := newFake()
	for name, from := range map[string]string{"one": "y", "two": "x"} {
		base := f.images["docker.io/library/base:latest"]
		config := *base.Config
		config.Config.OnBuild = []string{"COPY --from=" + from + " /ran /"}
		base.Config = &config
		f.images["docker.io/library/"+name+":latest"] = base
	}
	_, err := f.try(t, "FROM one AS x\nRUN a\nFROM two AS y\nRUN b\nFROM base\nCOPY --from=x /ran /\nCOPY --from=y /ran /", nil, nil)
	if err == nil || !strings.Contains(err.Error(), "stages need each other") {
		t.Errorf("got %v", err)
	}
}

func TestMounts(t *testing.T) {
	f := newFake()
	secret := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(secret, []byte("hush"), 0o600); err != nil {
		t.Fatal(err)
	}
	df := "FROM base AS other\nRUN write /o O\nFROM base\nWORKDIR /w\nARG C=cache\n" +
		"RUN --mount=type=bind,target=in,source=a --mount=from=other,source=o,target=/o,rw " +
		"--mount=type=cache,target=/root/.$C,sharing=locked,uid=5 --mount=type=tmpfs,target=/t,size=1m " +
		"--mount=type=secret,id=key --mount=type=secret,id=key,env=KEY --mount=type=secret,id=absent " +
		"--mount=type=ssh go\n"
	edit := func(o *Options) {
		o.Secrets = map[string]Secret{"key": {Path: secret}}
		o.SSH = map[string]string{"default": "/agent"}
	}
	if _, err := f.try(t, df, map[string]string{"a": "A"}, edit); err != nil {
		t.Fatal(err)
	}
	spec := f.specs[len(f.specs)-1]
	got := map[string]Mount{}
	for _, m := range spec.Mounts {
		got[m.Target] = m
	}
	bind := got["/w/in"]
	if bind.Kind != MountBind || !bind.ReadOnly || f.files(*bind.From)[bind.Source] != "A" {
		t.Errorf("bind of the context: %+v", bind)
	}
	if m := got["/o"]; m.ReadOnly || f.files(*m.From)[m.Source] != "O" {
		t.Errorf("bind of a stage: %+v", m)
	}
	if m := got["/root/.cache"]; m.Kind != MountCache || m.ID != "/root/.cache" || m.Sharing != "locked" || m.UID != 5 || m.ReadOnly {
		t.Errorf("cache: %+v", m)
	}
	if m := got["/t"]; m.Kind != MountTmpfs || m.Size != 1<<20 {
		t.Errorf("tmpfs: %+v", m)
	}
	if m := got["/run/secrets/key"]; string(m.Data) != "hush" || !m.ReadOnly {
		t.Errorf("secret: %+v", m)
	}
	if m := got["/run/buildkit/ssh_agent.0"]; m.Socket != "/agent" {
		t.Errorf("agent: %+v", m)
	}
	if len(got) != 6 || !strings.Contains(f.env(t), "KEY=hush SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0") {
		t.Errorf("%d mounts, env %s", len(got), f.env(t))
	}
	if err := os.WriteFile(secret, []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.try(t, df, map[string]string{"a": "A"}, edit); err != nil || len(f.did) != 0 {
		t.Errorf("another value of the secret: did %q, %v", f.did, err)
	}
	if _, err := f.try(t, df, map[string]string{"a": "B"}, edit); err != nil || !slices.Contains(f.did, "run go") {
		t.Errorf("another file in the mount: did %q, %v", f.did, err)
	}
}

func TestLink(t *testing.T) {
	f := newFake()
	df := "FROM base\nRUN write /a %\nCOPY --link a /l\n"
	if _, err := f.try(t, df, map[string]string{"a": "A"}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := f.try(t, strings.Replace(df, "%", "other", 1), map[string]string{"a": "A"}, nil); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(f.did, "; "); got != "run write /a other" {
		t.Errorf("did %q", got)
	}
	if files := f.files(f.made.State); files["/l"] != "A" || files["/a"] != "other" {
		t.Errorf("%q", files)
	}
}

func TestHistory(t *testing.T) {
	f := newFake()
	f.layers["base"] = map[string]string{"/there": ""}
	if _, err := f.try(t, "FROM base\nARG A=1\nENV B=2\nWORKDIR /there\nWORKDIR /new\nRUN x\nCMD y", nil, nil); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, h := range f.made.History {
		text := h.CreatedBy
		if h.EmptyLayer {
			text += " (empty)"
		}
		got = append(got, text)
	}
	want := "ARG A=1 (empty); ENV B=2 (empty); WORKDIR /there (empty); WORKDIR /new; RUN |1 A=1 /bin/sh -c x; CMD y (empty)"
	if strings.Join(got, "; ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, "; "), want)
	}
}

func TestOutputs(t *testing.T) {
	f := newFake()
	var out bytes.Buffer
	for kind, want := range map[string]string{"tar": "[/a]", "docker": "docker of [docker.io/library/x:1]", "oci": "oci of [docker.io/library/x:1]"} {
		out.Reset()
		result, err := f.try(t, "FROM scratch\nCOPY a /", map[string]string{"a": "A"}, func(o *Options) {
			o.Names = []string{"docker.io/library/x:1"}
			o.Outputs = []Output{{Type: kind, W: &out}}
		})
		if err != nil || out.String() != want || (result.Image.ID == "") != (kind == "tar") {
			t.Errorf("%s: %q, %q, %v", kind, out.String(), result.Image.ID, err)
		}
	}
	if f.commits != 0 {
		t.Error("an image came into the store")
	}
	var tar, oci bytes.Buffer
	result, err := f.try(t, "FROM scratch\nCOPY a /", map[string]string{"a": "A"}, func(o *Options) {
		o.Outputs = []Output{{Type: "tar", W: &tar}, {Type: "image"}, {Type: "oci", W: &oci}}
	})
	if err != nil || result.Image.ID == "" || tar.String() != "[/a]" || oci.String() != "oci of []" || f.commits != 1 {
		t.Errorf("several: %+v, %q, %q, %d commits, %v", result, tar.String(), oci.String(), f.commits, err)
	}
	if _, err := f.try(t, "FROM base\nLABEL a=1 b=1", nil, func(o *Options) {
		o.Labels = map[string]string{"b": "2"}
		o.Names = []string{"docker.io/library/x:1"}
	}); err != nil || f.made.Config.Config.Labels["b"] != "2" || f.made.Config.Config.Labels["a"] != "1" || f.made.Names[0] != "docker.io/library/x:1" {
		t.Errorf("%+v, %v", f.made, err)
	}
}
