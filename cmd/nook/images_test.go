package main

import (
	"strings"
	"testing"
	"time"

	"nook/images"
)

func someImages() []images.Image {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	id := func(letter string) string { return "sha256:" + strings.Repeat(letter, 64) }
	return []images.Image{
		{ID: id("a"), Names: []string{"docker.io/library/busybox:latest", "docker.io/library/busybox:1.36"},
			Manifest: images.Descriptor{Digest: id("1")}, Created: now.Add(-15 * 24 * time.Hour), Size: 2_000_000, UnpackedSize: 4_261_502},
		{ID: id("b"), Names: []string{"localhost:5000/team/web:v2"},
			Manifest: images.Descriptor{Digest: id("2")}, Created: now.Add(-70 * time.Second), Size: 117_000_000},
		{ID: id("c"), Manifest: images.Descriptor{Digest: id("3")}, Created: time.Unix(0, 0), Size: 12},
	}
}

func TestImagesTables(t *testing.T) {
	for file, args := range map[string]string{
		"images":          "images",
		"images-digests":  "images --digests --no-trunc",
		"images-filtered": "images busybox",
		"images-json":     "images --format json localhost:5000/team/web",
	} {
		t.Run(args, func(t *testing.T) {
			stdout, stderr, code := typed(t, &fake{images: someImages()}, nil, strings.Fields(args)...)
			if code != 0 || stderr != "" {
				t.Errorf("exit %d, stderr %q", code, stderr)
			}
			golden(t, file+".txt", stdout)
		})
	}
}

func TestImagesQuietAndPatterns(t *testing.T) {
	a, b, c := "aaaaaaaaaaaa\n", "bbbbbbbbbbbb\n", "cccccccccccc\n"
	for args, want := range map[string]string{
		"-q":                                  b + a + a + c,
		"-aq":                                 b + a + a + c,
		"-q busybox:1.36":                     a,
		"-q busy*":                            a + a,
		"-q docker.io/library/busybox:latest": a,
		"-q *:v2":                             "",
		"-q localhost:5000/team/web":          b,
		"-q localhost:5000/*/web:v?":          b,
		"-q nosuch":                           "",
		"-q --no-trunc busybox:1.36":          "sha256:" + strings.Repeat("a", 64) + "\n",
		"-q --format {{.Tag}} busybox":        "latest\n1.36\n",
	} {
		stdout, stderr, code := typed(t, &fake{images: someImages()}, nil, append([]string{"images"}, strings.Fields(args)...)...)
		if stdout != want || code != 0 {
			t.Errorf("%s: exit %d %s, got\n%swant\n%s", args, code, stderr, stdout, want)
		}
	}
}

func TestLoadSaysWhatIsThere(t *testing.T) {
	f := &fake{images: someImages()}
	stdout, _, code := typed(t, f, nil, "load", "-i", "x.tar", "--platform", "linux/arm64")
	want := "Loaded image: busybox:latest\nLoaded image: busybox:1.36\nLoaded image: localhost:5000/team/web:v2\n" +
		"Loaded image ID: sha256:" + strings.Repeat("c", 64) + "\n"
	if stdout != want || code != 0 || f.load.Path != "x.tar" || f.load.Input != nil || f.load.Platform != "linux/arm64" {
		t.Errorf("exit %d, asked %+v, said\n%swant\n%s", code, f.load, stdout, want)
	}
	stdout, _, _ = typed(t, f, nil, "load", "-q")
	if stdout != "" || f.load.Input == nil || f.load.Path != "" {
		t.Errorf("quiet, from standard input: asked %+v, said %q", f.load, stdout)
	}
}

func TestImportHandsOnItsFlags(t *testing.T) {
	f := &fake{}
	stdout, _, code := typed(t, f, nil, "import", "-", "mine:1", "-c", `CMD ["a","b"]`, "-mwhy", "-c", "USER 1")
	if stdout != "sha256:made\n" || code != 0 {
		t.Errorf("exit %d, %q", code, stdout)
	}
	if f.imp.Input == nil || f.imp.Path != "" || f.imp.Ref != "mine:1" || f.imp.Message != "why" ||
		strings.Join(f.imp.Changes, "|") != `CMD ["a","b"]|USER 1` {
		t.Errorf("asked %+v", f.imp)
	}
}

func TestInspect(t *testing.T) {
	type config struct{ Cmd []string }
	object := struct {
		ID     string `json:"Id"`
		Size   int64
		Config config
	}{"sha256:x", 1 << 53, config{[]string{"sh", "<-c>"}}}
	for _, test := range []struct {
		args, want string
		code       int
	}{
		{"a --format {{.ID}}", "sha256:x\n", 0},
		{"a -f {{.Id}}", "sha256:x\n", 0},
		{"a -f {{.Size}}/{{.Id}}", "9007199254740992/sha256:x\n", 0},
		{"a b -f {{join_.Config.Cmd_`+`}}", "sh+<-c>\nsh+<-c>\n", 0},
		{"a -f {{json_.Config.Cmd}}", "[\"sh\",\"<-c>\"]\n", 0},
		{"a --format json", `[{"Id":"sha256:x","Size":9007199254740992,"Config":{"Cmd":["sh","<-c>"]}}]` + "\n", 0},
		{"no1", "[]\n", 125},
		{"no1 a no2 -f {{.Id}}", "sha256:x\n", 125},
		{"a -f {{.Nosuch}}", "", 125},
	} {
		args := []string{"inspect"}
		for _, arg := range strings.Fields(test.args) {
			args = append(args, strings.ReplaceAll(arg, "_", " "))
		}
		stdout, stderr, code := typed(t, &fake{object: object}, nil, args...)
		if stdout != test.want || code != test.code {
			t.Errorf("%s: exit %d, %q (%s); want %d, %q", test.args, code, stdout, stderr, test.code, test.want)
		}
	}
}
