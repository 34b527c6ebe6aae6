// Package build turns a Dockerfile and a context into an image.
//
//	result, err := build.Build(ctx, worker, build.Options{Source: build.Source{Context: dir}, Temp: temp})
//
// The Dockerfile is read (package dockerfile), planned (which stages are needed
// and what they need of each other) and solved: each needed stage is a chain of
// steps, stages go side by side until one needs another, and a step whose key is
// in the cache isn't done again. What a step does is the Worker's; package engine
// has the one there is. Nothing is printed: who wants to see it go on takes the
// Events.
//
//	Dockerfile --Parse--> File --plan--> stages --solve--> State --Commit--> image
//	                                               |
//	                                               +-- Worker: Base, Copy, Run, Lookup ...
package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"nook/build/dockerfile"
	"nook/images"
)

// Options say what is built, and how.
type Options struct {
	Source Source
	// Target is a stage's name or number; "": the last one.
	Target string
	// Args are build arguments.
	Args map[string]string
	// Labels are put on the image on top of the Dockerfile's.
	Labels map[string]string
	Names  []string
	// NoCache does all steps again. What they make is remembered nonetheless.
	NoCache bool
	// NoCacheStages are stages that are built again, by name or number.
	NoCacheStages []string
	// CacheFrom are image references of caches that were written by CacheTo.
	CacheFrom  []string
	CacheTo    []CacheTarget
	Pull       string // as BaseSpec.Pull
	Platform   string // os/arch[/variant]; "": this host's
	Network    string // of RUN: "", default, host or none
	ExtraHosts []string
	Squash     bool
	ShmSize    int64
	Secrets    map[string]Secret
	// SSH are sockets of agents by id; the usual one is "default".
	SSH map[string]string
	// Epoch clamps times; zero: none.
	Epoch time.Time
	// Now is the clock that times in the image are of. Nil: the system's.
	Now func() time.Time
	// Event is told what goes on, from several goroutines. Nil: nobody is.
	Event func(Event)
	// Outputs are what is made; none: an image in the store.
	Outputs []Output
	// Temp is a directory for what comes from elsewhere. It must be there, and
	// its owner removes it.
	Temp string
}

// CacheTarget says where a cache is written.
type CacheTarget struct {
	Ref string
	// Max: all stages' steps, and not only those whose layers the image has.
	Max bool
}

// Secret is a value for RUN --mount=type=secret: a file or a variable.
type Secret struct {
	Path string
	Env  string
}

func (s Secret) read(ctx context.Context) ([]byte, error) {
	if s.Env != "" {
		value, ok := os.LookupEnv(s.Env)
		if !ok {
			return nil, fmt.Errorf("the variable %s is not set", s.Env)
		}
		return []byte(value), nil
	}
	f := patientFile(ctx, s.Path)
	defer f.Close()
	return io.ReadAll(f)
}

// Output is a form of what was built.
type Output struct {
	Type string // image, which is one in the store, docker, oci, tar or local
	Dir  string // of local
	W    io.Writer
}

// Loads says whether the image comes into the store, and gets its names there.
func (o *Options) Loads() bool {
	return len(o.Outputs) == 0 || slices.ContainsFunc(o.Outputs, func(out Output) bool { return out.Type == "image" })
}

// Result is what Build made.
type Result struct {
	// Image is zero where all outputs are of type tar or local. Where none is of
	// type image the store needn't have it.
	Image images.Image
	// Warnings are about the Dockerfile.
	Warnings []string
}

// Build builds. The errors that have a place in the Dockerfile are
// *dockerfile.Error, those of a step *StepError.
func Build(ctx context.Context, w Worker, o Options) (Result, error) {
	s := newSolver(w, &o)
	src, err := s.load(ctx)
	if err != nil {
		return Result{}, err
	}
	file, err := dockerfile.Parse(src.name, src.data)
	if err != nil {
		return Result{}, err
	}
	s.src = src
	warnings := file.Warnings
	if err := s.readCaches(ctx); err != nil {
		return Result{Warnings: warnings}, err
	}
	for {
		if s.plan, err = newPlan(file, &o); err != nil {
			return Result{Warnings: warnings}, err
		}
		img, err := s.build(ctx)
		warnings = append(warnings, s.warnings...)
		var lost *LostCacheError
		if errors.As(err, &lost) && len(s.caches) > 0 && ctx.Err() == nil {
			// What was found there goes; what was done until now is remembered.
			warnings = append(warnings, fmt.Sprintf("built without --cache-from: %v", lost))
			s = s.again()
			continue
		}
		return Result{Image: img, Warnings: append(warnings, s.plan.unusedArgs()...)}, err
	}
}

// build solves the plan and exports what comes of it.
func (s *solver) build(ctx context.Context) (images.Image, error) {
	done, err := s.solve(ctx)
	var failed *StepError
	if errors.As(err, &failed) && failed.before != nil {
		// The way in is a courtesy: without it the error is as true. All other
		// steps have ended by now.
		if img, err := s.w.Commit(ctx, *failed.before); err == nil {
			failed.Enter = img.ID
		}
	}
	var img images.Image
	if err == nil {
		img, err = s.export(ctx, done)
	}
	// Also what a build that failed has fetched needn't come again.
	if kept := s.rememberFetched(); err == nil {
		err = kept
	}
	if err != nil {
		return img, err
	}
	return img, s.writeCaches(ctx, done)
}
