package build

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"nook/build/dockerfile"
	"nook/images"
	"nook/internal/hint"
)

// plan is a Dockerfile as a graph.
//
//	FROM debian AS base ----+
//	                        +--> FROM base AS a --> COPY --from=b ... (target)
//	FROM golang AS b -------+---------------------------^
//
// Stages that the target doesn't need are not in it.
type plan struct {
	file     *dockerfile.File
	o        *Options
	stages   []*stage // all of the file
	target   *stage
	platform images.Platform
	byName   map[string]*stage // of stages with the same name the last
	global   scope             // of the ARGs before the first FROM
	late     map[string]bool   // names of ARGs of ONBUILD; the solver's mutex guards it
}

// stage is one FROM and what follows it.
type stage struct {
	index    int
	name     string
	from     *dockerfile.Instruction
	base     *stage // nil for an image
	image    string // expanded; "scratch" for nothing
	platform string // expanded; "": the target's
	steps    []*dockerfile.Instruction
	noCache  bool
	late     []*stage // needed by ONBUILD triggers of the base; the solver's mutex guards it
}

// label is how progress names the stage.
func (st *stage) label() string {
	if st.name != "" {
		return st.name
	}
	return "stage-" + strconv.Itoa(st.index)
}

// newPlan finds stages and what they need, and refuses what can be known to be
// wrong before anything runs.
func newPlan(file *dockerfile.File, o *Options) (*plan, error) {
	platform, err := images.ParsePlatform(o.Platform)
	if err != nil {
		return nil, err
	}
	p := &plan{file: file, o: o, platform: platform, byName: map[string]*stage{}, late: map[string]bool{}}
	p.global = scope{escape: file.Escape, args: map[string]string{}, given: new(int), work: new(atomic.Int64)}
	maps.Copy(p.global.args, p.platformArgs())
	if err := p.split(); err != nil {
		return nil, err
	}
	if p.target, err = p.findTarget(o.Target); err != nil {
		return nil, err
	}
	for _, name := range o.NoCacheStages {
		st, err := p.flagged("--no-cache-filter", name)
		if err != nil {
			return nil, err
		}
		st.noCache = true
	}
	for _, st := range p.stages {
		if err := p.check(st); err != nil {
			return nil, err
		}
	}
	if err := p.noCycle(p.target); err != nil {
		return nil, err
	}
	return p, nil
}

// split makes stages of the instructions.
func (p *plan) split() error {
	for i := range p.file.Commands {
		in := &p.file.Commands[i]
		switch c := in.Command.(type) {
		case *dockerfile.From:
			st, err := p.newStage(in, c)
			if err != nil {
				return err
			}
			p.stages = append(p.stages, st)
			if st.name != "" {
				p.byName[st.name] = st
			}
			continue
		case *dockerfile.Arg:
			if len(p.stages) == 0 {
				if err := p.globalArg(in, c); err != nil {
					return err
				}
				continue
			}
		}
		if len(p.stages) == 0 {
			return in.Fault("", hint.Errorf("ARG alone may stand before it", "no FROM stands before %s", in.Keyword))
		}
		last := p.stages[len(p.stages)-1]
		last.steps = append(last.steps, in)
	}
	if len(p.stages) == 0 {
		return &dockerfile.Error{File: p.file.Name, Err: fmt.Errorf("no FROM in it")}
	}
	return nil
}

// mostStages is more than anybody wrote. Each that is needed is a goroutine.
const mostStages = 10_000

func (p *plan) newStage(in *dockerfile.Instruction, c *dockerfile.From) (*stage, error) {
	st := &stage{index: len(p.stages), name: c.Name, from: in}
	if st.index == mostStages {
		return nil, in.Fault("", fmt.Errorf("more than %d stages", mostStages))
	}
	var err error
	if st.image, err = p.global.word(c.Base); err != nil {
		return nil, in.Fault(c.Base, err)
	}
	if st.image == "" {
		return nil, in.Fault(c.Base, hint.Errorf("give it a value by --build-arg, or a default by ARG NAME=VALUE before the first FROM",
			"the base name %s is empty", c.Base))
	}
	if st.platform, err = p.global.word(c.Platform); err != nil {
		return nil, in.Fault("--platform", err)
	}
	if c.Platform != "" {
		if st.platform == "" {
			return nil, in.Fault("--platform", hint.Errorf("give it a value by --build-arg, or a default by ARG NAME=VALUE before the first FROM",
				"the platform %s is empty", c.Platform))
		}
		if _, err := images.ParsePlatform(st.platform); err != nil {
			return nil, in.Fault("--platform", err)
		}
	}
	// A later stage may have the name of an earlier one: the last one counts.
	st.base = p.named(st.image)
	if st.base == nil && st.image != "scratch" {
		if _, err := images.ParseReference(st.image); err != nil {
			return nil, in.Fault(c.Base, err)
		}
	}
	return st, nil
}

// named finds a stage by name.
func (p *plan) named(name string) *stage { return p.byName[strings.ToLower(name)] }

// lookup finds what --from means: a stage by name or number; nil is an image.
func (p *plan) lookup(from string) (*stage, error) {
	if strings.Trim(from, "0123456789") != "" {
		return p.named(from), nil
	}
	n, err := strconv.Atoi(from)
	if err != nil || n >= len(p.stages) {
		return nil, hint.Errorf(p.knownStages(), "there is no stage %s", from)
	}
	return p.stages[n], nil
}

func (p *plan) findTarget(name string) (*stage, error) {
	if name == "" {
		return p.stages[len(p.stages)-1], nil
	}
	return p.flagged("--target", name)
}

// flagged is the stage that a flag names, by name or number.
func (p *plan) flagged(flag, name string) (*stage, error) {
	st, err := p.lookup(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	if st == nil {
		return nil, hint.Errorf(p.knownStages(), "%s %s: %s has no such stage", flag, name, p.file.Name)
	}
	return st, nil
}

// knownStages is a hint.
func (p *plan) knownStages() string {
	var names []string
	for _, st := range p.stages {
		if st.name != "" {
			names = append(names, st.name)
		} else {
			names = append(names, strconv.Itoa(st.index))
		}
	}
	if len(names) == 1 {
		return "the only stage is " + names[0]
	}
	return "the stages are " + strings.Join(names, ", ")
}

// check looks at the references of one stage.
func (p *plan) check(st *stage) error {
	for _, in := range st.steps {
		for _, from := range fromsOf(in) {
			other, err := p.lookup(from)
			if err == nil && other == st {
				err = fmt.Errorf("stage %s copies from itself", st.label())
			}
			if err == nil && other == nil {
				if _, err = images.ParseReference(from); err != nil {
					err = hint.Errorf(p.knownStages(), "%s is neither a stage nor an image: %w", from, err)
				}
			}
			if err != nil {
				return in.Fault("from=", err)
			}
		}
	}
	return nil
}

// fromsOf are the stages and images that an instruction copies from or mounts.
func fromsOf(in *dockerfile.Instruction) []string {
	var froms []string
	switch c := in.Command.(type) {
	case *dockerfile.Copy:
		froms = append(froms, c.From)
	case *dockerfile.Run:
		for _, m := range c.Mounts {
			froms = append(froms, dockerfile.MountFrom(m))
		}
	}
	return slices.DeleteFunc(froms, func(s string) bool { return s == "" || s == "scratch" })
}

// needs are the stages that a stage can't be built without.
func (p *plan) needs(st *stage) []*stage {
	var needed []*stage
	seen := map[*stage]bool{nil: true}
	need := func(other *stage) {
		if !seen[other] {
			seen[other] = true
			needed = append(needed, other)
		}
	}
	need(st.base)
	for _, in := range st.steps {
		for _, from := range fromsOf(in) {
			if other, err := p.lookup(from); err == nil {
				need(other)
			}
		}
	}
	return needed
}

// noCycle walks what st needs.
func (p *plan) noCycle(st *stage) error {
	done := map[*stage]bool{} // false: it is above, and waits for what it needs
	var above []*stage
	var walk func(st *stage) error
	walk = func(st *stage) error {
		if whole, met := done[st]; whole {
			return nil
		} else if met {
			var names []string
			for _, one := range append(above[slices.Index(above, st):], st) {
				names = append(names, one.label())
			}
			return st.from.Fault("", fmt.Errorf("stages need each other: %s", strings.Join(names, " -> ")))
		}
		done[st] = false
		above = append(above, st)
		for _, other := range p.needs(st) {
			if err := walk(other); err != nil {
				return err
			}
		}
		above = above[:len(above)-1]
		done[st] = true
		return nil
	}
	return walk(st)
}

// unusedArgs warns of --build-args that no ARG asked for, as docker does, and of
// those that would have buildkit do something that a build of nook doesn't.
func (p *plan) unusedArgs() (warnings []string) {
	used := maps.Clone(p.late)
	for _, in := range p.file.Commands {
		noteArgs(used, &in)
	}
	var unused, foreign []string
	for _, name := range slices.Sorted(maps.Keys(p.o.Args)) {
		switch {
		case used[name], predefined(name):
		case strings.HasPrefix(name, "BUILDKIT_"):
			foreign = append(foreign, name)
		default:
			unused = append(unused, name)
		}
	}
	if len(unused) > 0 {
		warnings = append(warnings, "no ARG took these build arguments: "+strings.Join(unused, ", "))
	}
	if len(foreign) > 0 {
		warnings = append(warnings, "nook does nothing for these build arguments of buildkit's: "+strings.Join(foreign, ", "))
	}
	return warnings
}

// noteArgs notes what an ARG declares.
func noteArgs(used map[string]bool, in *dockerfile.Instruction) {
	if c, ok := in.Command.(*dockerfile.Arg); ok {
		for _, arg := range c.Args {
			used[arg.Name] = true
		}
	}
}
