package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/urfave/cli/v2"

	"nook/engine"
	"nook/images"
	"nook/internal/hint"
)

func pullVerb() verb {
	return verb{
		name:    "pull",
		long:    []string{"image pull"},
		about:   "Download an image from a registry",
		usage:   "[OPTIONS] NAME[:TAG|@DIGEST]",
		min:     1,
		max:     1,
		common:  true,
		options: pullOptions,
		examples: []string{
			"nook pull debian",
			"nook pull localhost:5000/app:1   a registry on this machine, over plain HTTP too",
			"nook pull --platform linux/arm64 debian",
		},
		run: (*shell).pull,
	}
}

func pullOptions() []option {
	return []option{
		{name: "all-tags", short: "a", usage: "Download all tagged images in the repository"},
		{name: "platform", value: "string", usage: `Choose the platform of an image of several, as "os/arch[/variant]"`},
		{name: "quiet", short: "q", usage: "Suppress verbose output"},
	}
}

func (s *shell) pull(c *cli.Context) error {
	quiet := c.Bool("quiet")
	if quiet {
		s.bars = nil
	}
	o := engine.PullOptions{Platform: c.String("platform"), AllTags: c.Bool("all-tags")}
	if !quiet {
		s.tellPull(s.stdout, &o)
	}
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		pulled, err := nook.Pull(ctx, c.Args().First(), o)
		// Those that came before an error are there, and said to be.
		for _, one := range pulled {
			if quiet {
				fmt.Fprintln(s.stdout, one.Ref)
				continue
			}
			fmt.Fprintf(s.stdout, "%s%s\n", pullStatus(one), one.Ref)
		}
		return err
	})
}

func pullStatus(p engine.Pulled) string {
	is := "Image is up to date"
	if p.Updated {
		is = "Downloaded newer image"
	}
	return fmt.Sprintf("Digest: %s\nStatus: %s for %s\n", p.Digest, is, p.Ref.FamiliarTagged())
}

// tellPull prints docker's lines: on a terminal bars stand for the layers.
func (s *shell) tellPull(w io.Writer, o *engine.PullOptions) {
	o.Begun = func(ref images.Reference) {
		what := ref.Tag
		if ref.Digest != "" {
			what = ref.Digest
		}
		fmt.Fprintf(w, "%s: Pulling from %s\n", what, ref.Repository())
	}
	if s.bars != nil {
		return
	}
	o.Layer = layerLines(w)
}

// layerLines prints a line a layer, from whatever goroutine.
func layerLines(w io.Writer) func(string, images.LayerState) {
	var mu sync.Mutex
	return func(digest string, state images.LayerState) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(w, "%s: %s\n", shortID(digest, false), state)
	}
}

// readPull reads --pull of run and create.
func readPull(flag string) (engine.PullPolicy, error) {
	switch policy := engine.PullPolicy(flag); policy {
	case "", engine.PullAlways, engine.PullMissing, engine.PullNever:
		return policy, nil
	}
	return "", hint.Errorf("always, missing and never are known", "invalid value %q for --pull", flag)
}

// tellsOfPull says on standard error that a container's image is pulled.
func (s *shell) tellsOfPull(o engine.RunOptions) engine.RunOptions {
	s.tellPull(s.stderr, &o.PullOptions)
	tell := o.PullOptions.Begun
	o.PullOptions.Begun = func(ref images.Reference) {
		// run keeps to one processor as it mostly waits: this is work.
		runtime.GOMAXPROCS(runtime.NumCPU())
		if o.Pull != engine.PullAlways {
			fmt.Fprintf(s.stderr, "Unable to find image '%s' locally\n", ref.FamiliarTagged())
		}
		tell(ref)
	}
	o.PullOptions.Done = func(p engine.Pulled) { fmt.Fprint(s.stderr, pullStatus(p)) }
	return o
}
