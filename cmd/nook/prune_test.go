package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"nook/engine"
	"nook/images"
)

func (f *fake) PruneImages(_ context.Context, o engine.ImagePruneOptions) (engine.PrunedImages, error) {
	f.prunedImages = o
	return engine.PrunedImages{Untagged: []string{"x:1"}, Deleted: []string{"sha256:a"}, Bytes: 1234567}, f.err
}

func (f *fake) History(context.Context, string) ([]images.Step, error) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	return []images.Step{
		{ID: "sha256:" + strings.Repeat("a", 64), Created: now.Add(-time.Hour), CreatedBy: "/bin/sh -c\techo " + strings.Repeat("x", 60), Size: 1234567, Comment: "two\nlines"},
		{Created: time.Unix(0, 0), CreatedBy: "CMD"},
	}, f.err
}

func TestImagePrune(t *testing.T) {
	const done = "Deleted Images:\nuntagged: x:1\ndeleted: sha256:a\n\nTotal reclaimed space: 1.235MB\n"
	for args, all := range map[string]bool{
		"-f": false, "-af": true, "-f --filter dangling=false": true, "-af --filter dangling=true": false,
	} {
		f := &fake{}
		stdout, stderr, code := typed(t, f, nil, append([]string{"image", "prune"}, strings.Fields(args)...)...)
		if code != 0 || stdout != done || f.prunedImages.All != all || f.prunedImages.Filter.Dangling != nil {
			t.Errorf("%s: exit %d %s, asked %+v, said\n%s", args, code, stderr, f.prunedImages, stdout)
		}
	}
	f := &fake{} // the answer is "standard input"
	stdout, stderr, code := typed(t, f, nil, "image", "prune", "-a")
	if code != 0 || !strings.HasSuffix(stdout, "[y/N] ") || !strings.Contains(stdout, "without at least one container") || stderr != "" || f.prunedImages.All {
		t.Errorf("declined: exit %d, %q, %q, asked %+v", code, stdout, stderr, f.prunedImages)
	}
}

func TestHistory(t *testing.T) {
	for args, want := range map[string]string{
		"": "IMAGE          CREATED             CREATED BY                                      SIZE      COMMENT\n" +
			"aaaaaaaaaaaa   About an hour ago   /bin/sh -c echo xxxxxxxxxxxxxxxxxxxxxxxxxxxx…   1.23MB    two; lines\n" +
			"<missing>      N/A                 CMD                                             0B        \n",
		"-q":                                     "aaaaaaaaaaaa\n<missing>\n",
		"-q --no-trunc":                          "sha256:" + strings.Repeat("a", 64) + "\n<missing>\n",
		"-H=false --format {{.CreatedSince}}":    "2026-05-01T11:00:00Z\nN/A\n",
		"--human=false --format {{.Size}}":       "1234567\n0\n",
		"--format {{.CreatedAt}}|{{.CreatedBy}}": "2026-05-01T11:00:00Z|/bin/sh -c echo xxxxxxxxxxxxxxxxxxxxxxxxxxxx…\nN/A|CMD\n",
	} {
		stdout, stderr, code := typed(t, &fake{}, nil, append([]string{"history", "x"}, strings.Fields(args)...)...)
		if stdout != want || code != 0 {
			t.Errorf("%s: exit %d %s, got\n%swant\n%s", args, code, stderr, stdout, want)
		}
	}
}
