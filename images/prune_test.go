package images

import (
	"slices"
	"testing"
	"time"
)

func TestPrune(t *testing.T) {
	s := newStore(t)
	day := func(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }
	lost := aged(t, s, "x:1", day(1), map[string]string{"keep": "yes"})
	lostToo := aged(t, s, "x:1", day(2), nil)
	used := aged(t, s, "x:1", day(3), nil)
	named := aged(t, s, "y:1", day(4), nil)
	aged(t, s, "x:1", day(5), nil)
	inUse := func(img Image) []string {
		if img.ID == used.ID {
			return []string{"web"}
		}
		return nil
	}
	prune := func(opts PruneOptions) Removal {
		t.Helper()
		opts.InUse = inUse
		got, err := s.Prune(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := prune(PruneOptions{Filter: Filter{NotLabels: []string{"keep"}}}); !slices.Equal(got.Deleted, []string{lostToo.ID}) || got.Untagged != nil || got.Bytes <= 0 {
		t.Errorf("without the label: %+v, want %s gone", got, lostToo.ID)
	}
	if got := prune(PruneOptions{Filter: Filter{Until: day(1)}}); got.Deleted != nil {
		t.Errorf("until: %+v, want nothing", got)
	}
	if got := prune(PruneOptions{}); !slices.Equal(got.Deleted, []string{lost.ID}) {
		t.Errorf("dangling: %+v, want %s gone", got, lost.ID)
	}
	got := prune(PruneOptions{All: true, Filter: Filter{Until: day(5)}})
	if !slices.Equal(got.Deleted, []string{named.ID}) || !slices.Equal(got.Untagged, []string{"docker.io/library/y:1"}) {
		t.Errorf("all until the fifth: %+v", got)
	}
	if got := prune(PruneOptions{All: true}); len(got.Deleted) != 1 || !slices.Equal(got.Untagged, []string{"docker.io/library/x:1"}) {
		t.Errorf("all: %+v", got)
	}
	if left := list(t, s); len(left) != 1 || left[0].ID != used.ID {
		t.Errorf("left: %+v, want the one in use", left)
	}
	if _, err := s.Remove(t.Context(), used.ID, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	wantEmpty(t, s)
}

func TestHistory(t *testing.T) {
	s := newStore(t)
	b := bundleOf(t, small().WriteOCI)
	first := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	b.editConfig(func(cfg *ImageConfig) {
		cfg.History = []History{
			{Created: &first, CreatedBy: "ADD"}, {Created: &first, CreatedBy: "ENV", EmptyLayer: true, Comment: "said"},
		}
	})
	img := load(t, s, b.tar())[0]
	want := []Step{
		{ID: img.ID, Tags: img.Names, Size: 7, Created: img.Created}, // a layer that nothing tells of
		{Created: first, CreatedBy: "ENV", Comment: "said"},
		{Created: first, CreatedBy: "ADD", Size: 5},
	}
	got, err := s.History(img, []int64{5, 7})
	if err != nil || !slices.EqualFunc(got, want, func(a, b Step) bool {
		return a.ID == b.ID && a.Size == b.Size && a.Created.Equal(b.Created) && a.CreatedBy == b.CreatedBy && a.Comment == b.Comment && slices.Equal(a.Tags, b.Tags)
	}) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	got, err = s.History(img, nil)
	layers, _ := s.Layers(img)
	if err != nil || got[2].Size != layers[0].Size {
		t.Errorf("of an image that isn't unpacked: %+v, %v; want the blobs' sizes", got, err)
	}
}
