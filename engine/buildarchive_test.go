package engine

import (
	"bytes"
	"strings"
	"testing"

	"nook/build"
)

// An archive of an image is what save would write of it, and needs no place in
// the store: also where the base leaves it meanwhile.
func TestArchiveOfABuildIsNotInTheStore(t *testing.T) {
	r, host := serve(t, nil)
	e := loaded(t, "single", nil)
	dir := contextOf(t, map[string]string{"Dockerfile": "FROM busybox\nRUN echo made >/made; echo remove now\nCOPY Dockerfile /\nRUN true\n"})
	var one, two bytes.Buffer
	removed := false
	b := mustBuild(t, e, dir, func(o *build.Options) {
		o.Outputs = []build.Output{{Type: "docker", W: &one}, {Type: "oci", W: &two}}
		o.CacheTo = []build.CacheTarget{{Ref: host + "/cache:1"}}
		told := o.Event
		o.Event = func(ev build.Event) {
			told(ev)
			if ev.Kind == build.Wrote && strings.Contains(ev.Text, "remove now") && !removed {
				removed = true
				if _, err := e.RemoveImage(t.Context(), "busybox", true); err != nil {
					t.Error(err)
				}
			}
		}
	})
	if list, err := e.images.List(t.Context()); err != nil || len(list) > 0 || !removed {
		t.Errorf("removed %v, the store has %+v, %v", removed, list, err)
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("the archives differ")
	}
	if m, _ := documents(t, r); len(m.Layers) != 2 {
		t.Errorf("the cache has %+v", m.Layers)
	}
	got, err := e.Load(t.Context(), LoadOptions{Input: &one})
	if err != nil || len(got) != 1 || got[0].ID != b.Image.ID || len(got[0].Names) != 1 {
		t.Fatalf("%+v, %v, want %s", got, err, b.Image.ID)
	}
	var saved bytes.Buffer
	if err := e.Save(t.Context(), &saved, []string{"made"}); err != nil || !bytes.Equal(saved.Bytes(), two.Bytes()) {
		t.Errorf("save writes another archive (%v)", err)
	}
	if got := sh(t, e, "cat /made", func(o *RunOptions) { o.Image = "made" }); got != "made" {
		t.Errorf("it has %q", got)
	}
}
