package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"
)

func logoutVerb() verb {
	return verb{
		name:    "logout",
		about:   "Log out from a registry",
		usage:   "[SERVER]",
		max:     1,
		options: func() []option { return nil },
		run:     (*shell).logout,
	}
}

func (s *shell) logout(c *cli.Context) error {
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		name, found, err := nook.Logout(ctx, c.Args().First())
		if err != nil {
			return err
		}
		if !found {
			fmt.Fprintf(s.stdout, "Not logged in to %s\n", name)
			return nil
		}
		fmt.Fprintf(s.stdout, "Removing login credentials for %s\n", name)
		return nil
	})
}
