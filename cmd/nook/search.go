package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"nook/engine"
	"nook/internal/hint"
)

func searchVerb() verb {
	return verb{
		name:    "search",
		about:   "Search a registry for images",
		usage:   "[OPTIONS] [REGISTRY/]TERM",
		min:     1,
		max:     1,
		options: searchOptions,
		examples: []string{
			"nook search localhost:5000/web    repositories with web in their names",
			"nook search localhost:5000/       all of them",
		},
		run: (*shell).search,
	}
}

func searchOptions() []option {
	return []option{
		{name: "filter", short: "f", value: "list", usage: "Filter output: is-official=BOOL, stars=NUMBER"},
		{name: "format", value: "string", usage: formatUsage},
		{name: "limit", value: "int", usage: "Max number of search results"},
		{name: "no-trunc", usage: "Don't truncate output"},
	}
}

// searchRow is a line of docker search. The API that is asked knows names alone.
type searchRow struct {
	Description string
	IsAutomated string
	IsOfficial  string
	Name        string
	StarCount   string
}

const searchTable = "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}"

func searchHeaders() map[string]string {
	return map[string]string{
		"Name": "NAME", "Description": "DESCRIPTION", "StarCount": "STARS",
		"IsOfficial": "OFFICIAL", "IsAutomated": "AUTOMATED",
	}
}

func (s *shell) search(c *cli.Context) error {
	limit, err := readLimit(c.String("limit"))
	if err != nil {
		return err
	}
	keep, err := readSearchFilter(c.StringSlice("filter"))
	if err != nil {
		return err
	}
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		names, err := nook.Search(ctx, c.Args().First())
		if err != nil {
			return err
		}
		var rows []searchRow
		for _, name := range names {
			row := searchRow{Name: name, StarCount: "0"}
			// docker's own images are those without a user's name before them.
			if !strings.Contains(name, "/") {
				row.IsOfficial = "[OK]"
			}
			if keep(row) && (limit == 0 || len(rows) < limit) {
				rows = append(rows, row)
			}
		}
		return writeRows(s.stdout, readFormat(c.String("format"), searchTable), searchHeaders(), rows)
	})
}

func readLimit(flag string) (int, error) {
	if flag == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(flag)
	if err != nil || n < 0 {
		return 0, hint.Errorf("a number; 0 is no limit", "invalid value %q for --limit", flag)
	}
	return n, nil
}

// readSearchFilter reads docker's filters. The API that is asked knows no stars:
// a filter for some leaves nothing.
func readSearchFilter(flags []string) (func(searchRow) bool, error) {
	filters, err := engine.ParseFilters(flags)
	if err != nil {
		return nil, err
	}
	want := map[string]string{}
	for key, values := range filters {
		value := values[len(values)-1]
		switch key {
		case "is-official", "is-automated":
			_, err = strconv.ParseBool(value)
		case "stars":
			_, err = strconv.ParseUint(value, 10, 31)
		default:
			return nil, hint.Errorf("is-automated, is-official and stars are known", "filter %q: %w", key, engine.ErrFilter)
		}
		if err != nil {
			return nil, hint.Errorf("is-official=true, is-automated=false, stars=3", "filter %s=%s: %w", key, value, engine.ErrFilter)
		}
		want[key] = value
	}
	is := func(key string, has bool) bool {
		wanted, err := strconv.ParseBool(want[key])
		return err != nil || wanted == has
	}
	return func(row searchRow) bool {
		stars, _ := strconv.Atoi(want["stars"])
		return stars == 0 && is("is-official", row.IsOfficial != "") && is("is-automated", false)
	}, nil
}
