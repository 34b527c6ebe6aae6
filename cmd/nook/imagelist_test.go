package main

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"nook/engine"
	"nook/images"
)

// fakeKeeper is the fake's part for the verbs that keep the store of images.
type fakeKeeper struct {
	filter       images.Filter
	prunedImages engine.ImagePruneOptions
}

// FindImages knows names alone.
func (f *fake) FindImages(_ context.Context, filter images.Filter) ([]images.Image, error) {
	f.filter = filter
	var list []images.Image
	for _, img := range f.images {
		if len(filter.References) > 0 {
			img.Names = slices.DeleteFunc(slices.Clone(img.Names), func(name string) bool {
				return !slices.ContainsFunc(filter.References, func(pattern string) bool {
					matches, _ := images.MatchReference(pattern, name)
					return matches
				})
			})
			if len(img.Names) == 0 {
				continue
			}
		}
		list = append(list, img)
	}
	return list, f.err
}

func TestImagesFilters(t *testing.T) {
	f := &fake{}
	_, stderr, code := typed(t, f, nil, strings.Fields("images -f dangling=true --filter label=a --filter label=b=c --filter label!=d "+
		"--filter before=x --filter since=y --filter reference=z* --filter until=24h web")...)
	yes := true
	want := images.Filter{
		Dangling: &yes, Labels: []string{"a", "b=c"}, NotLabels: []string{"d"}, Before: []string{"x"}, Since: []string{"y"},
		References: []string{"z*", "web"}, Until: time.Date(2026, 4, 30, 12, 0, 0, 0, time.UTC),
	}
	if code != 0 || !reflect.DeepEqual(f.filter, want) {
		t.Errorf("exit %d %s, asked %+v, want %+v", code, stderr, f.filter, want)
	}
	for args, want := range map[string]string{
		"-f x":                    `nook: filter "x": invalid filter` + "\nhint: a filter is KEY=VALUE\n",
		"-f x=y":                  `nook: filter "x": invalid filter` + "\nhint: before, dangling, label, label!, reference, since and until are known\n",
		"-f dangling=x":           "nook: filter dangling=x: invalid filter\nhint: true or false\n",
		"-f until=1h,until=":      "nook: invalid value \"1h,until=\" for --filter until\nhint: as in 10m, 2026-01-02T15:04:05Z or 1767366245\n",
		"-f until=1h -f until=2h": "nook: filter until: there are 2\nhint: give one\n",
	} {
		stdout, stderr, code := typed(t, &fake{}, nil, append([]string{"images"}, strings.Fields(args)...)...)
		if code != 125 || stdout != "" || stderr != want {
			t.Errorf("%s: exit %d, %q, %q; want %q", args, code, stdout, stderr, want)
		}
	}
}
