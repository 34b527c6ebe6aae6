package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"nook/build"
	"nook/internal/hint"
)

// buildView shows a build while it goes on.
type buildView interface {
	event(build.Event)
	end(error)
	quiet() bool
}

// buildView chooses by --progress or BUILDKIT_PROGRESS, -q and whether there is a terminal.
func (s *shell) buildView(c *cli.Context) (buildView, error) {
	how, from := c.String("progress"), "--progress"
	if set, _ := s.lookup("BUILDKIT_PROGRESS"); how == "" && set != "" {
		how, from = set, "BUILDKIT_PROGRESS"
	}
	switch {
	case c.Bool("quiet"):
		how = "quiet"
	case how == "" || how == "auto":
		how = "plain"
		if s.bars != nil {
			how = "tty"
		}
	}
	switch how {
	case "quiet":
		s.bars = nil
		return silence{}, nil
	case "plain":
		s.bars = nil
		return &plainView{w: s.stderr, steps: map[int]*plainStep{}}, nil
	case "tty":
		bars := s.bars
		if bars == nil {
			return nil, hint.Errorf("--progress plain writes lines", "%s tty: standard error is no terminal", from)
		}
		s.bars = nil // one of them draws
		return newScreen(bars.out, bars.size), nil
	}
	return nil, hint.Errorf("auto, plain, tty and quiet are known", "invalid value %q for %s", how, from)
}

type silence struct{}

func (silence) event(build.Event) {}
func (silence) end(error)         {}
func (silence) quiet() bool       { return true }

// plainView writes lines, as buildkit's plain progress does:
//
//	#2 [1/2] FROM docker.io/library/debian:13
//	#2 DONE 0.0s
//
//	#3 [2/2] RUN make
//	#3 0.211 cc -o app app.c
//	#3 DONE 1.4s
type plainView struct {
	w     io.Writer
	mu    sync.Mutex
	steps map[int]*plainStep
	last  int
}

type plainStep struct {
	name  string
	began time.Time
	rest  openLine
}

func (p *plainView) quiet() bool { return false }

// line writes a line of a step, with the step's name before it when another
// step wrote last.
func (p *plainView) line(n int, text string) {
	if p.last != n {
		if p.last != 0 {
			fmt.Fprintln(p.w)
		}
		fmt.Fprintf(p.w, "#%d %s\n", n, oneLine(abridged(p.steps[n].name)))
		p.last = n
	}
	if text != "" {
		fmt.Fprintf(p.w, "#%d %s\n", n, text)
	}
}

func (p *plainView) event(e build.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.Kind == build.Started {
		p.steps[e.Step] = &plainStep{name: e.Text, began: e.Time}
		p.line(e.Step, "")
		return
	}
	st := p.steps[e.Step]
	if st == nil {
		return
	}
	took := e.Time.Sub(st.began).Seconds()
	wrote := func(text string) {
		p.line(e.Step, fmt.Sprintf("%.3f %s", took, printableText(text)))
	}
	if e.Kind != build.Wrote {
		st.rest.end(wrote)
	}
	switch e.Kind {
	case build.Wrote:
		st.rest.write(e.Text, wrote)
	case build.Told:
		p.line(e.Step, oneLine(e.Text))
	case build.Cached:
		p.line(e.Step, "CACHED")
	case build.Done:
		p.line(e.Step, fmt.Sprintf("DONE %.1fs", took))
	case build.Canceled:
		p.line(e.Step, "CANCELED")
	case build.Failed:
		p.line(e.Step, "ERROR: "+oneLine(abridged(e.Err.Error())))
	}
}

func (p *plainView) end(error) {}

// printableText keeps what a container wrote from moving the cursor: escape
// sequences (ECMA-48) and control characters are left out.
func printableText(text string) string {
	const (
		plain   = iota
		escaped // behind ESC: one more, after those that only announce it
		control // CSI: until a letter
		command // OSC: until BEL or ST
	)
	var b strings.Builder
	state := plain
	for _, r := range text {
		switch {
		case r == 0x1b:
			state = escaped
		case state == escaped && r == '[':
			state = control
		case state == escaped && r == ']':
			state = command
		case state == escaped && r >= ' ' && r < '0', state == command && r != 0x07:
		case state == control && (r < 0x40 || r > 0x7e):
		case state != plain:
			state = plain
		case r < ' ' && r != '\n' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0:
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
