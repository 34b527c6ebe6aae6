package main

import "github.com/urfave/cli/v2"

func unshareVerb() verb {
	return verb{
		name:     "unshare",
		about:    "Run a command in the user namespace of the containers",
		usage:    "[COMMAND] [ARG...]",
		max:      -1,
		verbatim: true,
		options:  func() []option { return nil },
		examples: []string{
			"nook unshare                                  a shell that may look at and remove what containers wrote",
			`nook unshare sh -c 'du -s "$NOOK_ROOT"/volumes/*'`,
		},
		run: (*shell).unshare,
	}
}

// unshare runs a command, or a shell. Its exit code is the command's.
func (s *shell) unshare(c *cli.Context) error {
	command := c.Args().Slice()
	if len(command) == 0 {
		name, ok := s.lookup("SHELL")
		if !ok || name == "" {
			name = "/bin/sh"
		}
		command = []string{name}
	}
	nook, err := s.engine(c.Context, c)
	if err != nil {
		return err
	}
	code, err := nook.Unshare(c.Context, command)
	if err == nil && code != 0 {
		err = exit(code)
	}
	return err
}
