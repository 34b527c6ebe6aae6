package build

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"nook/build/dockerfile"
)

// FuzzBuild plans and solves whatever parses, with a worker in memory: it ends,
// with an image or an error that has its place.
func FuzzBuild(f *testing.F) {
	for _, seed := range []string{
		"FROM base\nRUN write /a b\nCOPY a /",
		"FROM base\nRUN write\nRUN  ",
		"ARG B=base\nFROM $B AS x\nARG TARGETOS\nENV A=${TARGETOS:-x} B=$A\nRUN fail\nFROM x",
		"FROM base AS x\nCOPY --from=y a b\nFROM base AS y\nCOPY --from=x a b",
		"FROM base AS x\nONBUILD COPY --from=y /ran /\nFROM x AS y\nFROM y",
		"FROM base AS a\nRUN x\nFROM a\nRUN --mount=from=a,target=/m --mount=type=cache,target=c --mount=type=secret,id=s y",
		"FROM scratch\nCOPY <<E <<F /d/\n$A\nE\nF\nADD --unpack a /x\nWORKDIR x/$Y\nEXPOSE 1-3/udp\nVOLUME [\"/v\"]",
	} {
		f.Add(seed, "x")
	}
	f.Fuzz(func(t *testing.T, text, target string) {
		file, err := dockerfile.Parse("Dockerfile", []byte(text))
		if err != nil || len(file.Commands) > 50 {
			return
		}
		for _, in := range file.Commands {
			if c, ok := in.Command.(*dockerfile.Copy); ok && c.Add && strings.Contains(in.Text, "$") {
				return // it may come to a URL
			}
			if strings.Contains(in.Text, ":/") || strings.Contains(in.Text, "@") {
				return
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		w := newFake()
		o := Options{
			Source: Source{Context: "-", Stdin: strings.NewReader(text)}, Target: target, Temp: t.TempDir(),
			Args: map[string]string{"A": "1"},
		}
		s := newSolver(w, &o)
		s.src = &source{dir: o.Temp}
		if s.plan, err = newPlan(file, &o); err != nil {
			return
		}
		_, err = s.solve(ctx)
		var fault *dockerfile.Error
		if err != nil && !errors.As(err, &fault) {
			t.Fatalf("an error without a place: %v", err)
		}
	})
}
