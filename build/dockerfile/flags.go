package dockerfile

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"nook/internal/hint"
	"nook/internal/nearest"
)

// flagSet is the flags of one instruction: the allowed ones, and what came.
type flagSet struct {
	in     *Instruction
	strs   map[string]*string
	bools  map[string]*bool
	lists  map[string]*[]string
	times  map[string]*time.Duration
	unpack **bool // the one switch of which "not given" means a third thing
}

// parse reads the instruction's flags into where the set points. A flag that
// is there and that nook doesn't know is refused, never ignored.
func (s flagSet) parse() error {
	seen := map[string]bool{}
	for _, flag := range s.in.flags {
		name, value, given := strings.Cut(strings.TrimPrefix(flag.text, "--"), "=")
		if seen[name] && s.lists[name] == nil {
			return s.in.faultf(flag.at, "flag --%s stands twice", name)
		}
		seen[name] = true
		if err := s.set(name, value, given); err != nil {
			return s.in.fault(flag.at, err)
		}
	}
	return nil
}

func (s flagSet) set(name, value string, given bool) error {
	if b := s.bools[name]; b != nil || s.unpack != nil && name == "unpack" {
		on := true
		if given {
			var err error
			if on, err = strconv.ParseBool(value); err != nil {
				return fmt.Errorf("--%s=%s: true or false is meant", name, value)
			}
		}
		if b != nil {
			*b = on
		} else {
			*s.unpack = &on
		}
		return nil
	}
	str, list, t := s.strs[name], s.lists[name], s.times[name]
	switch {
	case str == nil && list == nil && t == nil:
		return s.unknown(name)
	case !given:
		return fmt.Errorf("flag --%s has no value", name)
	case str != nil:
		*str = value
	case list != nil:
		*list = append(*list, value)
	default:
		d, err := time.ParseDuration(value)
		switch {
		case err != nil:
			return fmt.Errorf("--%s=%s: a time such as 30s is meant", name, value)
		case d != 0 && d < time.Millisecond:
			return fmt.Errorf("--%s=%s: the shortest is 1ms", name, value)
		}
		*t = d
	}
	return nil
}

func (s flagSet) unknown(name string) error {
	var known []string
	for k := range s.strs {
		known = append(known, k)
	}
	for k := range s.bools {
		known = append(known, k)
	}
	for k := range s.lists {
		known = append(known, k)
	}
	for k := range s.times {
		known = append(known, k)
	}
	err := fmt.Errorf("unknown flag of %s: --%s", s.in.Keyword, name)
	if like := nearest.Word(name, known); like != "" {
		return hint.Wrap(err, "did you mean --"+like+"?")
	}
	return err
}
