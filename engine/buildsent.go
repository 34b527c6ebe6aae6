package engine

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/docker/go-units"

	"nook/images"
)

// tellEvery is how often a blob on its way is told of.
const tellEvery = time.Second

// sendingLog tells, in lines, how far a cache is sent:
//
//	layer 4f2ac1e0b1d3: 31.5MB of 84.1MB
//	layer 4f2ac1e0b1d3: 84.1MB sent
type sendingLog struct {
	now func() time.Time
	mu  sync.Mutex
	out io.Writer
}

func (l *sendingLog) tell(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.out, format+"\n", args...)
}

// watch tells of what is read of a blob, from offset on.
func (l *sendingLog) watch(d images.Descriptor, offset int64, in io.ReadCloser) io.ReadCloser {
	return &watchedBlob{in, l, d, offset, l.now()}
}

type watchedBlob struct {
	io.ReadCloser
	log  *sendingLog
	blob images.Descriptor
	at   int64
	told time.Time
}

func (b *watchedBlob) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.at += int64(n)
	if now := b.log.now(); now.Sub(b.told) >= tellEvery && b.at < b.blob.Size {
		b.told = now
		b.log.tell("layer %s: %s of %s", images.ShortID(b.blob.Digest), size(b.at), size(b.blob.Size))
	}
	return n, err
}

func size(bytes int64) string { return units.HumanSize(float64(bytes)) }
