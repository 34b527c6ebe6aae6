package main

import (
	"runtime"
	"strconv"

	"github.com/urfave/cli/v2"

	"nook/engine"
	"nook/internal/hint"
)

func logsVerb() verb {
	return verb{
		name:     "logs",
		long:     []string{"container logs"},
		about:    "Fetch the logs of a container",
		usage:    "[OPTIONS] CONTAINER",
		min:      1,
		max:      1,
		options:  logsOptions,
		flagHint: "see nook logs --help; docker's --details isn't there: it shows what --log-opt asked for, which isn't either",
		run:      (*shell).logs,
	}
}

func logsOptions() []option {
	return []option{
		{name: "follow", short: "f", usage: "Follow log output"},
		{name: "since", value: "string", usage: "Show logs since a time (2026-01-02T15:04:05Z) or a duration ago (42m)"},
		{name: "tail", short: "n", value: "string", usage: "Number of lines from the end (default all)"},
		{name: "timestamps", short: "t", usage: "Show timestamps"},
		{name: "until", value: "string", usage: "Show logs before a time (2026-01-02T15:04:05Z) or a duration ago (42m)"},
	}
}

// logs catches no signal: it holds nothing that its end doesn't free, and ^C is
// how --follow ends.
func (s *shell) logs(c *cli.Context) error {
	o := engine.LogsOptions{
		Follow:     c.Bool("follow"),
		Timestamps: c.Bool("timestamps"),
		Stdout:     s.stdout,
		Stderr:     s.stderr,
	}
	var err error
	if o.Tail, err = readTail(c.String("tail")); err != nil {
		return err
	}
	now := s.now()
	if o.Since, err = readTime("since", c.String("since"), now); err != nil {
		return err
	}
	if o.Until, err = readTime("until", c.String("until"), now); err != nil {
		return err
	}
	runtime.GOMAXPROCS(1) // to copy what another process writes is work for one
	nook, err := s.engine(c.Context, c)
	if err != nil {
		return err
	}
	return nook.Logs(c.Context, c.Args().First(), o)
}

// readTail reads a number of lines; negative is all of them, as with docker.
func readTail(value string) (int, error) {
	if value == "" || value == "all" {
		return -1, nil
	}
	n, err := strconv.Atoi(value)
	if err != nil {
		return 0, hint.Errorf("a number of lines, or all", "invalid value %q for --tail", value)
	}
	return n, nil
}
