package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"nook/engine"
	"nook/internal/hint"
)

func loginVerb() verb {
	return verb{
		name:    "login",
		about:   "Authenticate to a registry",
		usage:   "[OPTIONS] [SERVER]",
		max:     1,
		options: loginOptions,
		examples: []string{
			"nook login localhost:5000",
			"nook login -u me --password-stdin localhost:5000 <token",
		},
		run: (*shell).login,
	}
}

func loginOptions() []option {
	return []option{
		{name: "password", short: "p", value: "string", usage: "Password or Personal Access Token (PAT)"},
		{name: "password-stdin", usage: "Take the Password or Personal Access Token (PAT) from stdin"},
		{name: "username", short: "u", value: "string", usage: "Username"},
	}
}

func (s *shell) login(c *cli.Context) error {
	server := c.Args().First()
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		account, err := s.credential(ctx, c, nook, server)
		if err != nil {
			return err
		}
		file, err := nook.Login(ctx, server, account)
		if err != nil {
			return err
		}
		if file != "" {
			fmt.Fprintf(s.stderr, "The credentials are not encrypted in %s; a credential helper would keep them safer.\n", file)
		}
		fmt.Fprintln(s.stdout, "Login Succeeded")
		return nil
	})
}

// credential asks for what the flags don't say.
func (s *shell) credential(ctx context.Context, c *cli.Context, nook backend, server string) (engine.Credential, error) {
	account := engine.Credential{Username: c.String("username"), Password: c.String("password")}
	switch {
	case c.Bool("password-stdin") && c.IsSet("password"):
		return account, hint.Errorf("leave one out", "conflicting options: --password and --password-stdin")
	case c.Bool("password-stdin") && account.Username == "":
		return account, hint.Errorf("add -u NAME", "--password-stdin needs --username")
	case c.Bool("password-stdin"):
		data, err := io.ReadAll(io.LimitReader(s.stdin, 1<<20))
		if err != nil {
			return account, fmt.Errorf("read the password: %w", err)
		}
		account.Password = strings.TrimRight(string(data), "\r\n")
		if account.Password == "" {
			return account, errors.New("the password on standard input is empty")
		}
		return account, nil
	case c.IsSet("password"):
		fmt.Fprintln(s.stderr, "Others can see --password in the list of processes; --password-stdin is safer.")
	}
	if account == (engine.Credential{}) {
		old, err := nook.Credentials(ctx, server)
		if err != nil {
			return account, err
		}
		if old != (engine.Credential{}) {
			fmt.Fprintln(s.stderr, "Authenticating with existing credentials...")
			return old, nil
		}
	}
	return s.ask(account)
}

// ask is for a person: the password isn't shown.
func (s *shell) ask(account engine.Credential) (engine.Credential, error) {
	const advice = "use -u NAME and --password-stdin"
	if account.Username != "" && account.Password != "" {
		return account, nil
	}
	terminal, isFile := s.stdin.(*os.File)
	if !isFile || !term.IsTerminal(int(terminal.Fd())) {
		return account, hint.Errorf(advice, "user name or password are missing, and standard input is no terminal to ask on")
	}
	if account.Username == "" {
		fmt.Fprint(s.stderr, "Username: ")
		line, err := bufio.NewReader(s.stdin).ReadString('\n')
		if err != nil {
			return account, hint.Errorf(advice, "read the user name: %w", err)
		}
		account.Username = strings.TrimSpace(line)
	}
	if account.Password == "" {
		fmt.Fprint(s.stderr, "Password: ")
		data, err := term.ReadPassword(int(terminal.Fd()))
		fmt.Fprintln(s.stderr)
		if err != nil {
			return account, hint.Errorf(advice, "read the password: %w", err)
		}
		account.Password = string(data)
	}
	if account.Username == "" || account.Password == "" {
		return account, hint.Errorf(advice, "user name or password are empty")
	}
	return account, nil
}
