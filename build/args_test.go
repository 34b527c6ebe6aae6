package build

import (
	"slices"
	"testing"
)

func TestUnusedArgsWarn(t *testing.T) {
	f := newFake()
	result, err := f.try(t, "FROM base\nARG A", nil, func(o *Options) {
		o.Args = map[string]string{"A": "1", "B": "2", "HTTP_PROXY": "3"}
	})
	if err != nil || len(result.Warnings) != 1 || result.Warnings[0] != "no ARG took these build arguments: B" {
		t.Errorf("%q, %v", result.Warnings, err)
	}
	// ONBUILD's ARGs are as good, of an image and of a stage.
	base := f.images["docker.io/library/base:latest"]
	base.Config.Config.OnBuild = []string{"ARG B=1", "RUN $B"}
	f.images["docker.io/library/onb:latest"] = base
	result, err = f.try(t, "FROM onb AS x\nONBUILD ARG C\nFROM x", nil, func(o *Options) {
		o.Args = map[string]string{"B": "7", "C": "3"}
	})
	if err != nil || len(result.Warnings) > 0 {
		t.Errorf("of ONBUILD: %q, %v", result.Warnings, err)
	}
}

func TestArgsOfBuildkit(t *testing.T) {
	f := newFake()
	args := map[string]string{
		"BUILDKIT_SYNTAX": "x", "BUILDKIT_INLINE_CACHE": "1", "BUILDKIT_OWN": "1",
		"BUILDKIT_SANDBOX_HOSTNAME": "one", "BUILDKIT_CONTEXT_KEEP_GIT_DIR": "1",
	}
	df := "FROM base\nARG BUILDKIT_OWN\nRUN x"
	result, err := f.try(t, df, nil, func(o *Options) { o.Args = args })
	want := []string{"nook does nothing for these build arguments of buildkit's: BUILDKIT_INLINE_CACHE, BUILDKIT_SYNTAX"}
	if err != nil || !slices.Equal(result.Warnings, want) {
		t.Errorf("%q, %v", result.Warnings, err)
	}
	if len(f.specs) != 1 || f.specs[0].Hostname != "one" {
		t.Fatalf("ran %+v", f.specs)
	}
	// The command may have written it somewhere.
	args["BUILDKIT_SANDBOX_HOSTNAME"] = "two"
	if _, err := f.try(t, df, nil, func(o *Options) { o.Args = args }); err != nil || len(f.specs) != 1 || f.specs[0].Hostname != "two" {
		t.Errorf("another name: ran %+v, %v", f.specs, err)
	}
}
