package nooktest

import (
	"bytes"
	"regexp"
	"strings"
	"sync"
)

// output is what a container wrote, or the end of it.
type output struct {
	mu   sync.Mutex
	text []byte
}

const (
	mostKept  = 1 << 20 // bytes
	tailLines = 30      // that a failed test shows
)

// Write keeps the end.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, p...)
	if len(o.text) > 2*mostKept {
		o.text = append(o.text[:0], o.text[len(o.text)-mostKept:]...)
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.text[max(0, len(o.text)-mostKept):])
}

// find looks for a line.
func (o *output) find(re *regexp.Regexp) (line string, ok bool) {
	for line := range strings.Lines(o.String()) {
		if line = strings.TrimRight(line, "\r\n"); re.MatchString(line) {
			return line, true
		}
	}
	return "", false
}

// tail is the end of the output for a test's log, with what stands before it.
func (o *output) tail() string {
	text := strings.TrimRight(o.String(), "\n")
	if text == "" {
		return "; it wrote nothing"
	}
	lines := strings.Split(text, "\n")
	var out bytes.Buffer
	out.WriteString("; its output ends:")
	for _, line := range lines[max(0, len(lines)-tailLines):] {
		out.WriteString("\n\t" + line)
	}
	return out.String()
}
