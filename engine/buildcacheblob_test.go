package engine

import (
	"bytes"
	"compress/gzip"
	"io"
	"slices"
	"testing"

	"nook/build"
	"nook/images"
	"nook/internal/testenv/testregistry"
)

// An image takes the blobs of a cache as they came, and so does another cache:
// nothing is packed, and nothing comes twice.
func TestBlobsOfACacheAreTakenAsTheyCame(t *testing.T) {
	for _, ids := range []string{"single", "mapped"} {
		t.Run(ids, func(t *testing.T) {
			r, ref, dir := cacheOf(t)
			// Nothing of ours packs like this.
			var want []string
			forge(t, r, func(_ *images.Manifest, d *cacheDocument) {
				for i := range d.Layers {
					b := &d.Layers[i].Blob
					data, _ := r.Blob("cache", b.Digest)
					data = repacked(t, data)
					b.Digest, b.Size = r.AddBlob("cache", data), int64(len(data))
					want = append(want, b.Digest)
				}
			})
			r.Requests()
			e := loaded(t, ids, nil)
			again := ref + "again"
			b := mustBuild(t, e, dir, from(ref), func(o *build.Options) { o.CacheTo = []build.CacheTarget{{Ref: again}} })
			if len(b.cached) != 2 || len(b.Warnings) > 0 {
				t.Fatalf("cached %q, warnings %q", b.cached, b.Warnings)
			}
			if n := testregistry.Count(r.Requests(), "GET /v2/cache/blobs/"); n != 3 {
				t.Errorf("%d blobs came, want the list and two layers", n)
			}
			m, err := e.images.Manifest(b.Image)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, l := range m.Layers[len(m.Layers)-2:] {
				got = append(got, l.Digest)
			}
			if !slices.Equal(got, want) {
				t.Errorf("the image has the blobs %q, the cache %q", got, want)
			}
			if text := sh(t, e, "cat /made /a", func(o *RunOptions) { o.Image = "made" }); text != "made\na" {
				t.Errorf("the image has %q", text)
			}
			report, err := e.Check(t.Context(), CheckOptions{})
			if err != nil || len(report.Findings) > 0 {
				t.Errorf("%v, %v", err, report)
			}
		})
	}
}

// repacked is a gzip stream, packed otherwise.
func repacked(t *testing.T, data []byte) []byte {
	t.Helper()
	in, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	to, _ := gzip.NewWriterLevel(&out, gzip.HuffmanOnly)
	to.Comment = "packed elsewhere"
	if _, err := io.Copy(to, in); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
