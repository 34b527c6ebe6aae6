package main

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"nook/internal/hint"
	"nook/internal/nearest"
)

// option is a flag of a verb, or of nook itself.
//
// The table of options is read three times: by rewrite, which needs the names
// and who takes a value; by urfave/cli, which keeps the values; and by help.
type option struct {
	name  string // long, without dashes
	short string // one letter, or ""
	also  string // a second long name that docker knows, not shown by help
	value string // what help calls its value (string, list, …); "": a switch
	usage string
}

// isList says whether the option may be given several times.
func (o option) isList() bool { return o.value == "list" }

// grammar is what the pass over a command line has to know.
type grammar struct {
	options []option
	// verbatim: the first positional ends the flags, as for run, whose
	// container has flags of its own.
	verbatim bool
}

// parsed is a command line in the one form that the flag package of the
// standard library, and with it urfave/cli, can't get wrong.
type parsed struct {
	flags []string // each "--name=value", with the option's long name
	args  []string
	help  bool // --help was met; what stands behind it was not looked at
}

// rewrite brings args into that form. urfave/cli alone takes no -uroot, no
// -eA=1,2, no flag behind a name and, with short options joined, no -itu root;
// docker's users type all of them. What is accepted is what docker's own
// command line (spf13/pflag) accepts:
//
//	--name value   --name=value   --switch   --switch=false
//	-n value   -nvalue   -n=value   -it   -itn value   --
//
// A flag that isn't in the grammar is an error.
func (g grammar) rewrite(args []string) (parsed, error) {
	var p parsed
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		var err error
		switch {
		case arg == "--":
			p.args = append(p.args, args...)
			return p, nil
		case strings.HasPrefix(arg, "--"):
			args, err = g.long(&p, arg[2:], args)
		case len(arg) > 1 && arg[0] == '-':
			args, err = g.cluster(&p, arg[1:], args)
		default:
			p.args = append(p.args, arg)
			if g.verbatim {
				p.args = append(p.args, args...)
				return p, nil
			}
		}
		if err != nil {
			return parsed{}, err
		}
		if p.help {
			return p, nil
		}
	}
	return p, nil
}

// long takes one --flag, without its dashes, and its value from rest if that is
// where it stands. It returns what is left of rest.
func (g grammar) long(p *parsed, flag string, rest []string) ([]string, error) {
	name, value, joined := strings.Cut(flag, "=")
	if name == "help" && !joined {
		p.help = true
		return rest, nil
	}
	o, ok := g.find(name)
	switch {
	case !ok:
		err := fmt.Errorf("unknown flag: --%s", name)
		if like := nearest.Word(name, g.names()); like != "" {
			return nil, hint.Wrap(err, "did you mean --"+like+"?")
		}
		return nil, err
	case joined:
	case o.value == "":
		value = "true"
	case len(rest) == 0:
		return nil, fmt.Errorf("flag needs an argument: --%s", name)
	default:
		value, rest = rest[0], rest[1:]
	}
	return rest, p.add(o, "--"+name, value)
}

// cluster takes the letters behind one dash: switches, of which the last may be
// a flag with a value.
func (g grammar) cluster(p *parsed, letters string, rest []string) ([]string, error) {
	for whole := letters; letters != ""; {
		_, n := utf8.DecodeRuneInString(letters)
		letter := letters[:n]
		letters = letters[n:]
		o, ok := g.findShort(letter)
		switch {
		case !ok && letter == "h":
			p.help = true
			return rest, nil
		case !ok:
			return nil, fmt.Errorf("unknown shorthand flag: %q in -%s", letter, whole)
		case strings.HasPrefix(letters, "="):
			return rest, p.add(o, "-"+letter, letters[1:])
		case o.value == "":
			if err := p.add(o, "-"+letter, "true"); err != nil {
				return nil, err
			}
		case letters != "":
			return rest, p.add(o, "-"+letter, letters)
		case len(rest) == 0:
			return nil, fmt.Errorf("flag needs an argument: %q in -%s", letter, whole)
		default:
			return rest[1:], p.add(o, "-"+letter, rest[0])
		}
	}
	return rest, nil
}

// add records one flag. typed is how the person wrote it, for the message.
func (p *parsed) add(o option, typed, value string) error {
	if o.value == "" {
		on, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("invalid value %q for %s: want true or false", value, typed)
		}
		value = strconv.FormatBool(on)
	}
	p.flags = append(p.flags, "--"+o.name+"="+value)
	return nil
}

func (g grammar) find(name string) (option, bool) {
	for _, o := range g.options {
		if name != "" && (name == o.name || name == o.also) {
			return o, true
		}
	}
	return option{}, false
}

// names are the long ones.
func (g grammar) names() []string {
	var all []string
	for _, o := range g.options {
		all = append(all, o.name)
		if o.also != "" {
			all = append(all, o.also)
		}
	}
	return all
}

func (g grammar) findShort(letter string) (option, bool) {
	for _, o := range g.options {
		if letter == o.short {
			return o, true
		}
	}
	return option{}, false
}
