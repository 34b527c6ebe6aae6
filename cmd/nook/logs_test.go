package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"nook/engine"
)

func (f *fake) Logs(_ context.Context, name string, o engine.LogsOptions) error {
	f.asked = append(f.asked, name)
	fmt.Fprint(o.Stdout, "out")
	fmt.Fprint(o.Stderr, "err")
	o.Stdout, o.Stderr = nil, nil
	f.logs = o
	return f.err
}

func TestLogsFlags(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC) // the test shell's
	for args, want := range map[string]engine.LogsOptions{
		"logs x":                                 {Tail: -1},
		"container logs x --follow --timestamps": {Tail: -1, Follow: true, Timestamps: true},
		"logs -ftn 5 x":                          {Tail: 5, Follow: true, Timestamps: true},
		"logs x -n0":                             {Tail: 0},
		"logs --tail all x":                      {Tail: -1},
		"logs --tail=-3 x":                       {Tail: -3},
		"logs --since 10m --until 30s x":         {Tail: -1, Since: now.Add(-10 * time.Minute), Until: now.Add(-30 * time.Second)},
	} {
		f := &fake{}
		stdout, stderr, code := typed(t, f, nil, strings.Fields(args)...)
		if code != 0 || stdout != "out" || stderr != "err" || len(f.asked) != 1 || f.asked[0] != "x" {
			t.Errorf("%s: exit %d, %q %q, asked for %q", args, code, stdout, stderr, f.asked)
		}
		if f.logs != want {
			t.Errorf("%s: got %+v, want %+v", args, f.logs, want)
		}
	}
}

func TestLogsRefuses(t *testing.T) {
	for args, want := range map[string]string{
		"logs":               "nook: 'nook logs' requires 1 argument\nhint: see nook logs --help\n",
		"logs a b":           "nook: 'nook logs' requires 1 argument\nhint: see nook logs --help\n",
		"logs --details x":   "nook: unknown flag: --details\nhint: see nook logs --help; docker's --details isn't there: it shows what --log-opt asked for, which isn't either\n",
		"logs --tail some x": "nook: invalid value \"some\" for --tail\nhint: a number of lines, or all\n",
		"logs --since x y":   "nook: invalid value \"x\" for --since\nhint: as in 10m, 2026-01-02T15:04:05Z or 1767366245\n",
		"logs --until x y":   "nook: invalid value \"x\" for --until\nhint: as in 10m, 2026-01-02T15:04:05Z or 1767366245\n",
	} {
		if stdout, stderr, code := typed(t, &fake{}, nil, strings.Fields(args)...); code != 125 || stdout != "" || stderr != want {
			t.Errorf("%s: exit %d, %q, %q; want %q", args, code, stdout, stderr, want)
		}
	}
}

func TestTimes(t *testing.T) {
	zone := time.FixedZone("", -3*3600)
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, zone)
	for value, want := range map[string]time.Time{
		"":                          {},
		"10m":                       now.Add(-10 * time.Minute),
		"1h30m":                     now.Add(-90 * time.Minute),
		"-5s":                       now.Add(5 * time.Second),
		"0":                         time.Unix(0, 0),
		"1136073600":                time.Unix(1136073600, 0),
		"1136073600.000000001":      time.Unix(1136073600, 1),
		"1136073600.5":              time.Unix(1136073600, 5e8),
		"2026-01-02T15:04:05Z":      time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC),
		"2026-01-02T15:04:05.7Z":    time.Date(2026, 1, 2, 15, 4, 5, 7e8, time.UTC),
		"2026-01-02T15:04:05+02:00": time.Date(2026, 1, 2, 13, 4, 5, 0, time.UTC),
		"2026-01-02T15:04:05":       time.Date(2026, 1, 2, 15, 4, 5, 0, zone),
		"2026-01-02T15:04":          time.Date(2026, 1, 2, 15, 4, 0, 0, zone),
		"2026-01-02T15":             time.Date(2026, 1, 2, 15, 0, 0, 0, zone),
		"2026-01-02":                time.Date(2026, 1, 2, 0, 0, 0, 0, zone),
		"2026-01-02Z":               time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC),
	} {
		if got, err := readTime("since", value, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: got %v, %v; want %v", value, got, err, want)
		}
	}
	for _, value := range []string{"x", "1.2.3", "1.0000000001", "1.-5", "2026-13-01", "10 m"} {
		if got, err := readTime("since", value, now); err == nil {
			t.Errorf("%q: got %v", value, got)
		}
	}
}
