package build

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
)

// remoteOf is a worker that has the cache that another one wrote, and nothing
// else of it.
func remoteOf(f *fake) *fake {
	next := newFake()
	next.layers = f.layers
	next.remote = &RemoteCache{Ref: "far", Steps: map[string]CachedStep{}}
	for _, r := range f.written {
		next.remote.Steps[r.Key] = CachedStep{DiffID: strings.TrimPrefix(r.Layer, "far-")}
	}
	return next
}

const stagesWithCopy = "FROM base AS one\nRUN write /out x\nFROM base\nCOPY --from=one /out /in\nRUN write /b $V"

func writing(all bool) func(*Options) {
	return func(o *Options) { o.CacheTo = []CacheTarget{{Ref: "far", Max: all}} }
}

func reading(o *Options) { o.CacheFrom = []string{"far"} }

func TestRemoteCacheIsFetchedWhenItIsUsed(t *testing.T) {
	first := newFake()
	if _, err := first.try(t, stagesWithCopy, nil, writing(true)); err != nil {
		t.Fatal(err)
	}
	// All is found: what the image has is fetched, the stage isn't.
	f := remoteOf(first)
	if _, err := f.try(t, stagesWithCopy, nil, reading); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(f.did, ", "), "fetch /in, fetch /b"; got != want {
		t.Errorf("it did %q, want %q", got, want)
	}
	// It is this worker's own from then on, with and without the other.
	for _, edit := range []func(*Options){reading, nil} {
		if _, err := f.try(t, strings.ReplaceAll(stagesWithCopy, "FROM base AS one\n", "FROM base AS one\nLABEL a=b\n"), nil, edit); err != nil {
			t.Fatal(err)
		}
		if edit != nil && len(f.did) > 0 {
			t.Errorf("the second time it did %q", f.did)
		}
	}
	// A step that is not found needs what is below it.
	f = remoteOf(first)
	if _, err := f.try(t, stagesWithCopy+"\nRUN write /c", nil, reading); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(f.did, ", "), "fetch /in, fetch /b, run write /c"; got != want {
		t.Errorf("with one step more it did %q, want %q", got, want)
	}
	if _, err := f.try(t, stagesWithCopy+"\nRUN write /c", nil, reading); err != nil || len(f.did) > 0 {
		t.Errorf("and once more: %v, it did %q", err, f.did)
	}
}

func TestRemoteCacheOfTheImageAlone(t *testing.T) {
	first := newFake()
	if _, err := first.try(t, stagesWithCopy, nil, writing(false)); err != nil {
		t.Fatal(err)
	}
	f := remoteOf(first)
	if _, err := f.try(t, stagesWithCopy, nil, reading); err != nil {
		t.Fatal(err)
	}
	// The same file of another run of the stage leads to the same step.
	if got, want := strings.Join(f.did, ", "), "run write /out x, fetch /in, fetch /b"; got != want {
		t.Errorf("it did %q, want %q", got, want)
	}
	// Also where the one that wrote found the COPY without a look at the files.
	if _, err := first.try(t, stagesWithCopy, nil, writing(false)); err != nil {
		t.Fatal(err)
	}
	again := remoteOf(first)
	if got, want := slices.Sorted(maps.Keys(again.remote.Steps)), slices.Sorted(maps.Keys(f.remote.Steps)); !slices.Equal(got, want) {
		t.Errorf("the second time it wrote %q, want %q", got, want)
	}
}

func TestLostRemoteCacheIsAWarning(t *testing.T) {
	first := newFake()
	if _, err := first.try(t, stagesWithCopy, nil, writing(true)); err != nil {
		t.Fatal(err)
	}
	f := remoteOf(first)
	f.lost = errors.New("blob unknown")
	result, err := f.try(t, stagesWithCopy, nil, reading)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(f.did, ", "), "run write /out x, copy /in, run write /b $V"; got != want {
		t.Errorf("it did %q, want %q", got, want)
	}
	if want := []string{"built without --cache-from: cache of far: blob unknown"}; !slices.Equal(result.Warnings, want) {
		t.Errorf("warnings are %q, want %q", result.Warnings, want)
	}
	f = newFake()
	if result, err = f.try(t, stagesWithCopy, nil, reading); err != nil || len(result.Warnings) != 1 {
		t.Errorf("without the cache: %v, warnings %q", err, result.Warnings)
	}
}

func TestWritingACacheIsAStepThatTells(t *testing.T) {
	var told []string
	_, err := newFake().try(t, "FROM base\nRUN write /a x", nil, func(o *Options) {
		o.CacheTo = []CacheTarget{{Ref: "far"}}
		o.Event = func(e Event) {
			if e.Kind == Wrote {
				told = append(told, e.Text)
			}
		}
	})
	if want := []string{"sending 1 steps\n"}; err != nil || !slices.Equal(told, want) {
		t.Errorf("%v, it tells %q, want %q", err, told, want)
	}
}

func TestRemoteCacheSeesTheContext(t *testing.T) {
	text := "FROM base\nRUN --mount=type=bind,source=f,target=/c write /a x\nCOPY f /"
	first := newFake()
	if _, err := first.try(t, text, map[string]string{"f": "1"}, writing(false)); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ file, want string }{
		{"1", "copy /context, fetch /a, fetch /f"},
		{"2", "copy /context, run write /a x, copy /f"},
	} {
		f := remoteOf(first)
		if _, err := f.try(t, text, map[string]string{"f": tc.file}, reading); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(f.did, ", "); got != tc.want {
			t.Errorf("with %s in the file it did %q, want %q", tc.file, got, tc.want)
		}
	}
}
