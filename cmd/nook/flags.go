package main

import (
	"flag"

	"github.com/urfave/cli/v2"
)

// The flags of urfave/cli under their one name. Its own take the name apart
// with a regular expression each time they are asked for it, which is for each
// flag at each look-up of one: a third of what a command line costs.
type (
	listFlag   struct{ *cli.StringSliceFlag }
	switchFlag struct{ *cli.BoolFlag }
	valueFlag  struct{ *cli.StringFlag }
)

func (f listFlag) Names() []string   { return []string{f.Name} }
func (f switchFlag) Names() []string { return []string{f.Name} }
func (f valueFlag) Names() []string  { return []string{f.Name} }

func (f switchFlag) Apply(set *flag.FlagSet) error {
	set.Bool(f.Name, false, "")
	return nil
}

func (f valueFlag) Apply(set *flag.FlagSet) error {
	set.String(f.Name, "", "")
	return nil
}

// cliFlags leaves the aliases out: rewrite has replaced them, and urfave/cli
// copies a list to its aliases through JSON, which changes bytes that aren't
// UTF-8.
func cliFlags(options []option) []cli.Flag {
	flags := make([]cli.Flag, len(options))
	for i, o := range options {
		switch {
		case o.isList():
			flags[i] = listFlag{&cli.StringSliceFlag{Name: o.name, KeepSpace: true}}
		case o.value == "":
			flags[i] = switchFlag{&cli.BoolFlag{Name: o.name}}
		default:
			flags[i] = valueFlag{&cli.StringFlag{Name: o.name}}
		}
	}
	return flags
}
