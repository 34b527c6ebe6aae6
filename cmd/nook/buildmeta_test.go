package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"nook/images"
)

func TestBuildMetadata(t *testing.T) {
	img := images.Image{ID: "sha256:c", Manifest: images.Descriptor{MediaType: "m", Digest: "sha256:d", Size: 3}}
	file := filepath.Join(t.TempDir(), "meta")
	for args, want := range map[string]string{
		"-t a -t b:1": `{
  "containerimage.config.digest": "sha256:c",
  "containerimage.descriptor": {
    "mediaType": "m",
    "digest": "sha256:d",
    "size": 3
  },
  "containerimage.digest": "sha256:d",
  "image.name": "docker.io/library/a:latest,docker.io/library/b:1"
}`,
		"-o type=tar,dest=" + file + ".tar": "{}",
	} {
		f := &fakeBuilder{}
		if want != "{}" {
			f.image = img
		}
		stderr, code := typedBuild(t, f, append(strings.Fields(args), "--metadata-file", file, ".")...)
		if got, err := os.ReadFile(file); code != 0 || err != nil || string(got) != want {
			t.Errorf("%s: %d, %s, %v\n%s", args, code, stderr, err, got)
		}
	}
}

func TestBuildProgressOfTheEnvironment(t *testing.T) {
	for _, tc := range []struct{ flag, env, want string }{
		{"", "quiet", ""}, {"", "", ""}, {"plain", "x", ""}, {"", "auto", ""},
		{"", "rawjson", `invalid value "rawjson" for BUILDKIT_PROGRESS`}, {"", "tty", "BUILDKIT_PROGRESS tty: standard error is no terminal"},
		{"x", "plain", `invalid value "x" for --progress`},
	} {
		s := &shell{stderr: io.Discard, lookup: func(name string) (string, bool) { return tc.env, name == "BUILDKIT_PROGRESS" }}
		var err error
		var view buildView
		app := &cli.App{
			Flags:  []cli.Flag{&cli.StringFlag{Name: "progress"}, &cli.BoolFlag{Name: "quiet"}},
			Action: func(c *cli.Context) error { view, err = s.buildView(c); return nil },
		}
		if ran := app.Run([]string{"x", "--progress=" + tc.flag}); ran != nil {
			t.Fatal(ran)
		}
		switch {
		case (err == nil) != (tc.want == "") || err != nil && err.Error() != tc.want:
			t.Errorf("%+v: %v", tc, err)
		case err == nil && view.quiet() != (tc.env == "quiet"):
			t.Errorf("%+v: quiet is %t", tc, view.quiet())
		}
	}
}
