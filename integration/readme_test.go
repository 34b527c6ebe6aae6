package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

// TestReadmeTranscripts replays what README.md shows as typed ("$ ") and
// answered.
func TestReadmeTranscripts(t *testing.T) {
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	busybox := filepath.Join(shared(t), "busybox.tar")
	writeImage(t, busybox, func(*testimage.Image) {})
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	eachMode(t, func(t *testing.T, m mode) {
		h := newTestHost(t, m)
		h.run(t, "nook", "load", "-q", "-i", busybox)
		lines := 0
		for _, line := range transcript(string(readme)) {
			lines++
			answers := func() error {
				out, _ := h.cmd("sh", "-c", line.typed).CombinedOutput()
				if string(out) != line.answer {
					return fmt.Errorf("$ %s\n%sREADME.md says\n%s", line.typed, out, line.answer)
				}
				return nil
			}
			err := answers()
			if err != nil && strings.HasPrefix(line.typed, "nook exec ") {
				err = until(answers) // what it looks at, a container makes meanwhile
			}
			if err != nil {
				t.Error(err)
			}
		}
		if lines == 0 {
			t.Error("README.md shows no transcript")
		}
	})
}

type exchange struct{ typed, answer string }

// transcript finds the steps in code blocks that begin with "$ ".
func transcript(text string) []exchange {
	var out []exchange
	for i, block := range strings.Split(text, "```") {
		block = strings.TrimPrefix(block, "\n")
		if i%2 == 0 || !strings.HasPrefix(block, "$ ") {
			continue
		}
		for line := range strings.Lines(block) {
			if typed, ok := strings.CutPrefix(line, "$ "); ok {
				out = append(out, exchange{typed: strings.TrimSuffix(typed, "\n")})
				continue
			}
			out[len(out)-1].answer += line
		}
	}
	return out
}
