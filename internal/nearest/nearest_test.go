package nearest

import (
	"strings"
	"testing"
)

func TestWord(t *testing.T) {
	known := []string{"rm", "root", "tag", "target", "version"}
	for s, want := range map[string]string{
		"versoin": "version", "verion": "version", "vversionn": "version", "tagret": "target", "targets": "target",
		"tg": "tag", "roots": "root", "r": "", "x": "", "": "", "xy": "", "toor": "root", "nothing": "",
		strings.Repeat("version", 1_000_000): "",
	} {
		if got := Word(s, known); got != want {
			t.Errorf("%.20s: got %q, want %q", s, got, want)
		}
	}
}
