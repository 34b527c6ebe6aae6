package engine

import (
	"errors"
	"strings"
	"testing"

	"nook/build"
	"nook/internal/hint"
)

// A command that couldn't be executed is a step that failed, and not a build of
// which no step is told.
func TestBuildWithoutItsProgram(t *testing.T) {
	e := loaded(t, "single", nil)
	for name, tc := range map[string]struct {
		lines, err, hint string
		code             int
		enter            bool
	}{
		"no program":     {`RUN ["nosuchcommand"]`, `exec "nosuchcommand": not found in PATH`, "is it in the stage?", 127, true},
		"no shell":       {"SHELL [\"/bin/bash\", \"-c\"]\nRUN true", `exec "/bin/bash": `, "is it in the stage?", 127, true},
		"not executable": {`RUN ["/etc/passwd"]`, `exec "/etc/passwd": `, "it must be a file", 126, true},
		"no /bin/sh":     {"RUN [\"rm\", \"/bin/sh\"]\nRUN true", `exec "/bin/sh": `, "the stage has no /bin/sh", 127, false},
	} {
		_, err := buildOn(t, e, tc.lines, nil)
		var failed *build.StepError
		var exit *build.ExitError
		if !errors.As(err, &failed) || !errors.As(err, &exit) || exit.Code != tc.code {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !strings.Contains(err.Error(), tc.err) || !strings.HasPrefix(hint.Of(err), tc.hint) || (failed.Enter != "") != tc.enter {
			t.Errorf("%s: %v, hint %q, way in %q", name, err, hint.Of(err), failed.Enter)
		}
	}
	_, err := buildOn(t, e, "RUN true", nil, func(o *build.Options) {
		o.Args = map[string]string{"BUILDKIT_SANDBOX_HOSTNAME": strings.Repeat("x", 65)}
	})
	if err == nil || !strings.Contains(err.Error(), "hostname of 65 bytes") {
		t.Error(err)
	}
	_, err = buildOn(t, e, "USER nobody-here\nRUN true", nil)
	if err == nil || !strings.Contains(err.Error(), "no such user") || !strings.HasPrefix(hint.Of(err), "USER takes name|uid") {
		t.Errorf("%v, hint %q", err, hint.Of(err))
	}
}
