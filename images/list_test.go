package images

import (
	"slices"
	"testing"
	"time"

	"nook/internal/testenv/testimage"
)

// aged is an image that was made at a time.
func aged(t *testing.T, s *Store, name string, created time.Time, labels map[string]string) Image {
	t.Helper()
	b := bundleOf(t, one(name, name).WriteOCI)
	b.editConfig(func(cfg *ImageConfig) { cfg.Created, cfg.Config.Labels = &created, labels })
	return load(t, s, b.tar())[0]
}

func TestSelect(t *testing.T) {
	s := newStore(t)
	day := func(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }
	aged(t, s, "old:1", day(1), map[string]string{"tier": "front", "x": ""})
	aged(t, s, "localhost:5000/team/mid:2", day(2), map[string]string{"tier": "back"})
	young := aged(t, s, "young:3", day(3), nil)
	aged(t, s, "other:1", day(4), nil)
	aged(t, s, "other:1", day(5), nil) // the one before it has no name any more
	if err := s.Tag(t.Context(), "young:3", "old:9"); err != nil {
		t.Fatal(err)
	}
	yes, no := true, false
	for name, tc := range map[string]struct {
		filter Filter
		want   []int // days
	}{
		"all":                  {Filter{}, []int{1, 2, 3, 4, 5}},
		"dangling":             {Filter{Dangling: &yes}, []int{4}},
		"named":                {Filter{Dangling: &no}, []int{1, 2, 3, 5}},
		"before":               {Filter{Before: []string{"young:3"}}, []int{1, 2}},
		"before by id":         {Filter{Before: []string{young.ID}}, []int{1, 2}},
		"before two":           {Filter{Before: []string{"young:3", "other:1"}}, []int{1, 2}},
		"since":                {Filter{Since: []string{"localhost:5000/team/mid:2"}}, []int{3, 4, 5}},
		"between":              {Filter{Since: []string{"old:1"}, Before: []string{"young:3"}}, []int{2}},
		"until":                {Filter{Until: day(2)}, []int{1}},
		"label":                {Filter{Labels: []string{"tier"}}, []int{1, 2}},
		"label with value":     {Filter{Labels: []string{"tier=back"}}, []int{2}},
		"labels":               {Filter{Labels: []string{"tier", "x"}}, []int{1}},
		"not label":            {Filter{NotLabels: []string{"tier=front"}}, []int{2, 3, 4, 5}},
		"reference":            {Filter{References: []string{"old"}}, []int{1, 3}},
		"references":           {Filter{References: []string{"old:1", "other"}}, []int{1, 5}},
		"reference of nothing": {Filter{References: []string{"nothing"}}, nil},
	} {
		got, err := s.Select(t.Context(), tc.filter)
		var days []int
		for _, img := range got {
			days = append(days, img.Created.Day())
		}
		if err != nil || !slices.Equal(days, tc.want) {
			t.Errorf("%s: got images of days %v, %v, want %v", name, days, err, tc.want)
		}
	}
	got, err := s.Select(t.Context(), Filter{References: []string{"old:*"}})
	if err != nil || len(got) != 2 || !slices.Equal(got[1].Names, []string{"docker.io/library/old:9"}) {
		t.Errorf("of an image with two names got %v, %v; want the one that matches", got, err)
	}
	for name, f := range map[string]Filter{
		"before nothing": {Before: []string{"nothing"}}, "since nothing": {Since: []string{"nothing"}},
	} {
		if _, err := s.Select(t.Context(), f); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	_, err = s.Select(t.Context(), Filter{References: []string{"["}})
	wantError(t, err, `invalid pattern "["`, "shell")
}

func TestMatchReference(t *testing.T) {
	for _, tc := range []struct {
		pattern, name string
		want          bool
	}{
		{"busybox", "docker.io/library/busybox:1", true},
		{"busybox:1", "docker.io/library/busybox:1", true},
		{"busybox:2", "docker.io/library/busybox:1", false},
		{"docker.io/library/busybox", "docker.io/library/busybox:1", true},
		{"busy*", "docker.io/library/busybox:1", true},
		{"*", "docker.io/library/busybox:1", true},
		{"*", "docker.io/user/busybox:1", false},
		{"*/*:v?", "docker.io/user/app:v1", true},
		{"localhost:5000/team/*", "localhost:5000/team/app:v1", true},
		{"localhost:5000/*", "localhost:5000/team/app:v1", false},
		{"busybox:1", "docker.io/library/busybox@" + testimage.Digest(nil), false},
		{"busybox", "docker.io/library/busybox@" + testimage.Digest(nil), true},
		{"*", "not a name", false},
	} {
		if got, err := MatchReference(tc.pattern, tc.name); got != tc.want || err != nil {
			t.Errorf("%s of %s: got %v, %v, want %v", tc.pattern, tc.name, got, err, tc.want)
		}
	}
}
