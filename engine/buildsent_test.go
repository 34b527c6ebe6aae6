package engine

import (
	"bytes"
	"io"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"nook/build"
	"nook/images"
)

func TestSendingTellsHowFarItIs(t *testing.T) {
	var out bytes.Buffer
	at := time.Unix(0, 0)
	log := &sendingLog{out: &out, now: func() time.Time {
		at = at.Add(400 * time.Millisecond)
		return at
	}}
	blob := images.Descriptor{Digest: "sha256:" + strings.Repeat("ab", 32), Size: 9}
	in := log.watch(blob, 2, io.NopCloser(iotest.OneByteReader(strings.NewReader("3456789"))))
	if got, err := io.ReadAll(in); err != nil || string(got) != "3456789" {
		t.Errorf("it gives %q, %v", got, err)
	}
	want := "layer abababababab: 5B of 9B\nlayer abababababab: 8B of 9B\n"
	if got := out.String(); got != want {
		t.Errorf("it tells %q, want %q", got, want)
	}
}

func TestExportOfACacheTellsOfItsLayers(t *testing.T) {
	_, host := serve(t, nil)
	dir := contextOf(t, map[string]string{"Dockerfile": "FROM busybox\nCOPY a /\nRUN true", "a": "a"})
	e := loaded(t, "single", nil)
	layer := `layer [0-9a-f]{12}: \d+B`
	for _, want := range []string{layer + " sent\nsteps: 2, layers: 1\n", layer + ", it was there\nsteps: 2, layers: 1\n"} {
		b := mustBuild(t, e, dir, func(o *build.Options) { o.CacheTo = []build.CacheTarget{{Ref: host + "/cache:1"}} })
		if !regexp.MustCompile("^" + want + "$").MatchString(b.out) {
			t.Errorf("it tells %q, want %q", b.out, want)
		}
	}
}
