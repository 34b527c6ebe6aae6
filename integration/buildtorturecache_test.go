package integration

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"
)

// stopping is a registry in memory that can be stopped at a request: the
// moment of a kill. It is of this process, so nobody of the family.
type stopping struct {
	*remote
	mu    sync.Mutex
	asked int // requests since the last arm
	at    int // the one to stop at; 0: none
	stop  *stop
}

type stop struct{ reached, goOn chan struct{} }

func newStopping(t *testing.T) *stopping {
	t.Helper()
	s := &stopping{remote: newRemote(t)}
	s.Lie = s.look
	return s
}

// arm begins to count, and gives what comes of it.
func (s *stopping) arm(at int) *stop {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked, s.at, s.stop = 0, at, &stop{make(chan struct{}), make(chan struct{})}
	return s.stop
}

// count is how many requests came since.
func (s *stopping) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func (s *stopping) look(http.ResponseWriter, *http.Request) bool {
	s.mu.Lock()
	s.asked++
	here, at := s.asked == s.at, s.stop
	s.mu.Unlock()
	if here {
		close(at.reached)
		<-at.goOn
	}
	return false
}

// cacheArgs are for a build with caches.
func (b *buildScene) cacheArgs(random *rand.Rand) []string {
	name := b.cache.host + "/cache:1"
	to := "type=registry,ref=" + name
	if random.IntN(2) > 0 {
		to += ",mode=max"
	}
	return b.args("--cache-from", name, "--cache-to", to)
}

// countRequests makes the cache, and finds out how many requests that and
// reading it are.
func (b *buildScene) countRequests() {
	b.t.Helper()
	for range 2 {
		b.forget()
		b.cache.arm(0)
		b.host.run(b.t, "nook", b.cacheArgs(b.random)...)
		b.requests = max(b.requests, b.cache.count())
	}
}

// forget removes the image and the cache that is here.
func (b *buildScene) forget() {
	b.t.Helper()
	b.host.run(b.t, "nook", "rmi", "-f", "made")
	b.host.run(b.t, "nook", "builder", "prune", "-af")
}

// moment chooses the arguments of a build and waits for the moment to kill in.
func (b *buildScene) moment() (args []string, wait func(ended <-chan struct{}), after func()) {
	later := func(<-chan struct{}) {
		time.Sleep(time.Duration(b.random.Float64() * 1.2 * float64(b.usual))) // the moment: nothing is waited for
	}
	if b.random.IntN(2) > 0 {
		return b.args(), later, func() {}
	}
	if b.random.IntN(3) == 0 {
		b.cache.Clear()
	}
	args = b.cacheArgs(b.random)
	if b.random.IntN(3) == 0 {
		b.cache.arm(0)
		return args, later, func() {}
	}
	at := b.cache.arm(1 + b.random.IntN(b.requests))
	return args, func(ended <-chan struct{}) {
		select {
		case <-at.reached:
		case <-ended:
		case <-time.After(tooLong):
		}
	}, func() { close(at.goOn) }
}

// lookAtCache tells what is wrong with what the registry has after a kill.
func (b *buildScene) lookAtCache() string {
	b.cache.arm(0)
	if _, found := b.cache.Manifest("cache", "1"); !found {
		return ""
	}
	if err := b.cache.complete("cache", "1"); err != nil {
		return err.Error()
	}
	if b.random.IntN(2) > 0 {
		return ""
	}
	b.forget()
	out, err := b.host.cmd("nook", b.args("--cache-from", b.cache.host+"/cache:1")...).CombinedOutput()
	if err != nil || string(out) != b.want {
		return fmt.Sprintf("the next build with the registry's cache: %v, %s instead of %s", err, out, b.want)
	}
	if n := b.cache.count(); n < 3 {
		return fmt.Sprintf("the next build took nothing from the registry's cache in %d requests", n)
	}
	return ""
}
