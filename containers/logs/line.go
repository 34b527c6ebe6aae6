package logs

import (
	"fmt"
	"time"
)

// Where the parts of a line stand: all are of one length.
//
//	2006-01-02T15:04:05.000000000Z stdout F text
//	^0                             ^31    ^38
const (
	stampLayout = "2006-01-02T15:04:05.000000000Z"
	stampLength = len(stampLayout)
	streamAt    = stampLength + 1
	tagAt       = streamAt + len(Stdout) + 1
	textAt      = tagAt + 2
)

// whole and partial are the tags of a line.
const (
	whole   = 'F'
	partial = 'P'
)

// appendHead appends all of a line before its text, tagged as whole.
func appendHead(b []byte, t time.Time, s Stream) []byte {
	b = t.UTC().AppendFormat(b, stampLayout)
	b = append(b, ' ')
	b = append(b, s...)
	return append(b, ' ', whole, ' ')
}

// head is what stands before a line's text.
type head struct {
	stderr  bool
	partial bool
}

// parseHead reads the beginning of a line; the time stamp is its first
// stampLength bytes.
func parseHead(line []byte) (h head, ok bool) {
	if len(line) < textAt {
		return h, false
	}
	line = line[:textAt]
	if line[4] != '-' || line[7] != '-' || line[10] != 'T' || line[13] != ':' || line[16] != ':' || line[19] != '.' ||
		line[stampLength-1] != 'Z' || line[streamAt-1] != ' ' || line[tagAt-1] != ' ' || line[textAt-1] != ' ' {
		return h, false
	}
	switch string(line[streamAt : tagAt-1]) {
	case string(Stdout):
	case string(Stderr):
		h.stderr = true
	default:
		return h, false
	}
	h.partial = line[tagAt] == partial
	return h, h.partial || line[tagAt] == whole
}

func broken(name string, offset int64) error {
	return fmt.Errorf("read %s: at byte %d: %w", name, offset, ErrBroken)
}
