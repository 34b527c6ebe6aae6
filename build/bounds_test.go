package build

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"

	"nook/build/dockerfile"
	"nook/images"
)

// lines is format for each number from 1 to n.
func lines(n int, format string) string {
	var b strings.Builder
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&b, format+"\n", i)
	}
	return b.String()
}

// What costs far more than it is long is refused where it stands, before it is
// begun.
func TestBounds(t *testing.T) {
	deep := strings.Repeat("${x:-", 1_000_000) + "y" + strings.Repeat("}", 1_000_000)
	chain := func(n int, format string) string {
		var b strings.Builder
		b.WriteString("FROM base AS s0\nEXPOSE 1-65535\n")
		for i := range n {
			fmt.Fprintf(&b, "FROM s%d AS s%d\n"+format, i, i+1, i+1)
		}
		return b.String()
	}
	const nested = ": more than 100 ${ inside of each other"
	const work = ": expanding the variables is too much work"
	for name, tc := range map[string]struct{ in, err string }{
		"nested env":       {"FROM base\nENV a=" + deep, "Dockerfile:2" + nested},
		"nested in quotes": {"FROM base\nENV a=" + strings.Repeat(`"${x:-'}'`, 1_000_000), "Dockerfile:2" + nested},
		"nested from":      {"ARG A\nFROM " + deep, "Dockerfile:2" + nested},
		"nested arg":       {"ARG A=" + deep + "\nFROM base", "Dockerfile:1" + nested},
		"nested expose":    {"FROM base\nEXPOSE " + deep, "Dockerfile:2" + nested},
		"nested mount":     {"FROM base\nRUN --mount=type=tmpfs,target=" + deep + " x", "Dockerfile:2: --mount=type="},
		"nested document":  {"FROM base\nCOPY <<E /a/\n" + deep + "\nE", "Dockerfile:2" + nested},
		"nested trigger":   {"FROM trigger", "ONBUILD of trigger:1" + nested},
		"long pattern":     {"FROM base\nENV y=" + strings.Repeat("q", 1<<20) + "\nENV z=${y//" + strings.Repeat("?*", 20_000) + "q/b}", "Dockerfile:3" + work},
		"varying pattern":  {"FROM base\nENV y=" + strings.Repeat("?*", 1<<19) + "\nENV z=${y#$y}", "Dockerfile:3" + work},
		"long replacement": {"FROM base\nENV y=" + strings.Repeat("q", 1<<20) + "\nENV z=${y//?/$y}", "Dockerfile:3" + work},
		"many patterns":    {"FROM base\nENV z=" + strings.Repeat("${y#a}", 2_000_000), "Dockerfile:2" + work},
		"long and nested":  {"FROM base\nENV a=" + strings.Repeat("${x:-", 90) + strings.Repeat("y", 10<<20) + strings.Repeat("}", 90), "Dockerfile:2" + work},
		"pattern no text":  {"FROM base\nARG bytes\nENV z=${LANG#$bytes}", "Dockerfile:3: a variable in a pattern has bytes that are not text"},
		"ports":            {"FROM base\n" + lines(20, "EXPOSE 1-65535 %d"), "Dockerfile:18: EXPOSE names more than 1048576 ports in all"},
		"instructions":     {"FROM base\n" + lines(100_000, "LABEL A=%d"), "Dockerfile:100001: more than 100000 instructions"},
		"stages":           {lines(10_001, "FROM base AS s%d"), "Dockerfile:10001: more than 10000 stages"},
		"copied":           {chain(100, "EXPOSE %d/udp\n"), "Dockerfile:130: the stages have more than 4194304 variables, labels and ports of what they are based on"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			f.images["docker.io/library/trigger:latest"] = Base{
				Config: &images.ImageConfig{OS: "linux", Config: images.ContainerConfig{OnBuild: []string{"ENV a=" + deep}}},
			}
			_, err := f.try(t, tc.in, map[string]string{"a": "A"}, func(o *Options) { o.Args = map[string]string{"bytes": "\xff"} })
			if err == nil || !strings.HasPrefix(err.Error(), tc.err) {
				t.Fatalf("got  %.300v\nwant %s", err, tc.err)
			}
			var fault *dockerfile.Error
			if !errors.As(err, &fault) {
				t.Error("it has no place")
			}
		})
	}
}

// What people write is far from the bounds.
func TestWithinBounds(t *testing.T) {
	f := newFake()
	_, err := f.try(t, "FROM base\nENV P=a* V="+strings.Repeat("ab/", 500)+"\n"+
		lines(100, "ENV A%d=${V//b/c} B=${V#$P} C=${V:-${V:+${V%%/*}}}")+"EXPOSE 1-65535 1-65535/udp", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	env := f.made.Config.Config.Env
	if want := "A100=" + strings.Repeat("ac/", 500); !slices.Contains(env, want) || len(f.made.Config.Config.ExposedPorts) != 2*65535 {
		t.Errorf("%d ports, %.200q", len(f.made.Config.Config.ExposedPorts), env)
	}
}

// What an instruction costs doesn't grow with those before it.
func TestManyInstructions(t *testing.T) {
	const n = 20_000
	for name, in := range map[string]string{
		"env":     lines(n, "ENV A%d=$LANG"),
		"label":   lines(n, "LABEL A%d=1"),
		"arg":     lines(n, "ARG A%d=1"),
		"volume":  lines(n, "VOLUME /%d"),
		"expose":  "EXPOSE 1-65535\n" + lines(n, "EXPOSE %d"),
		"onbuild": lines(n, "ONBUILD RUN %d"),
		"stages":  lines(9_000, "FROM base AS s%d\nENV A=1"),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if _, err := newFake().try(t, "FROM base\n"+in, nil, nil); err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			// A copy of all for each would be gigabytes.
			if mib := (after.TotalAlloc - before.TotalAlloc) >> 20; mib > 200 {
				t.Errorf("%d lines took %d MiB", n, mib)
			}
		})
	}
}

// Stages that begin with the same one, or with the same image, don't see what
// the others change, and neither does what they begin with.
func TestStagesShareNothingThatChanges(t *testing.T) {
	const change = "ENV E=%[1]s LANG=%[1]s\nARG A=%[1]s\nLABEL l=%[1]s from=%[1]s\nEXPOSE 1%[1]s\nVOLUME /%[1]s\nONBUILD RUN %[1]s\n"
	in := "FROM base AS below\nENV E=0\nARG A=0\nLABEL l=0\nEXPOSE 10\nVOLUME /0\n" +
		"FROM below AS one\n" + fmt.Sprintf(change, "1") + "FROM below AS two\n" + fmt.Sprintf(change, "2") +
		"FROM below AS same\nFROM base AS three\n" + fmt.Sprintf(change, "3") + "FROM base AS plain\n" +
		// All of them are needed, by what each of them has.
		"FROM scratch\n" + lines(6, "COPY --from=%d /a /") + "COPY --from=0 /a /\n"
	in = strings.Replace(in, "--from=6", "--from=plain", 1)
	f := newFake()
	f.layers["base"] = map[string]string{"/a": "A"}
	s := f.solver(t, in)
	if _, err := s.solve(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"below": "[PATH=/bin LANG=C E=0] 0 map[from:base l:0] [10/tcp] [/0] []",
		"one":   "[PATH=/bin LANG=1 E=1] 1 map[from:1 l:1] [10/tcp 11/tcp] [/0 /1] [RUN 1]",
		"two":   "[PATH=/bin LANG=2 E=2] 2 map[from:2 l:2] [10/tcp 12/tcp] [/0 /2] [RUN 2]",
		"same":  "[PATH=/bin LANG=C E=0] 0 map[from:base l:0] [10/tcp] [/0] []",
		"three": "[PATH=/bin LANG=3 E=3] 3 map[from:3 l:3] [13/tcp] [/3] [RUN 3]",
		"plain": "[PATH=/bin LANG=C]  map[from:base] [] [] []",
	} {
		b, err := s.stage(t.Context(), s.plan.named(name))
		if err != nil {
			t.Fatal(err)
		}
		c := b.config.Config
		got := fmt.Sprint(c.Env, " ", b.args["A"], " ", c.Labels, " ", slices.Sorted(maps.Keys(c.ExposedPorts)), " ",
			slices.Sorted(maps.Keys(c.Volumes)), " ", c.OnBuild)
		if got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, want)
		}
	}
	c := f.images["docker.io/library/base:latest"].Config.Config
	if got := fmt.Sprint(c.Env, c.Labels, c.ExposedPorts); got != "[PATH=/bin LANG=C] map[from:base] map[]" {
		t.Errorf("the image's own config: %s", got)
	}
}

// Of a variable that an image has twice, ENV changes the one that is seen.
func TestVariableThatStandsTwice(t *testing.T) {
	f := newFake()
	f.images["docker.io/library/base:latest"].Config.Config.Env = []string{"X=1", "X=2"}
	if _, err := f.try(t, "FROM base\nENV Y=$X\nENV X=3\nENV Z=$X", nil, nil); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(f.made.Config.Config.Env, " "); !strings.Contains(got, "X=3") || !strings.Contains(got, "Y=2") || !strings.HasSuffix(got, "Z=3") {
		t.Error(got)
	}
}
