package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"nook/containers/events"
	"nook/engine"
)

func eventsVerb() verb {
	return verb{
		name:    "events",
		long:    []string{"system events"},
		about:   "Get real time events of containers, images and volumes",
		usage:   "[OPTIONS]",
		options: eventsOptions,
		run:     (*shell).events,
	}
}

func eventsOptions() []option {
	return []option{
		{name: "filter", short: "f", value: "list", usage: "Filter output based on conditions provided: KEY=VALUE"},
		{name: "format", value: "string", usage: "Format output: 'json' or a Go TEMPLATE"},
		{name: "since", value: "string", usage: "Show all events created since a time (2026-01-02T15:04:05Z) or a duration ago (42m)"},
		{name: "until", value: "string", usage: "Stream events until a time (2026-01-02T15:04:05Z) or a duration ago (42m)"},
	}
}

// events catches no signal: it holds nothing that its end doesn't free, and ^C
// is how it ends.
func (s *shell) events(c *cli.Context) error {
	var o engine.EventsOptions
	var err error
	if o.Filters, err = engine.ParseFilters(c.StringSlice("filter")); err != nil {
		return err
	}
	now := s.now()
	if o.Since, err = readTime("since", c.String("since"), now); err != nil {
		return err
	}
	if o.Until, err = readTime("until", c.String("until"), now); err != nil {
		return err
	}
	show, err := eventFormat(c.String("format"), now.Location())
	if err != nil {
		return err
	}
	nook, err := s.engine(c.Context, c)
	if err != nil {
		return err
	}
	return nook.Events(c.Context, o, func(e events.Event) error { return show(s.stdout, e) })
}

// eventRow is an event as docker's templates and JSON have it: with the first
// three names of its oldest API beside those of today's.
type eventRow struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	events.Event
}

func newEventRow(e events.Event) eventRow {
	row := eventRow{Status: e.Action, ID: e.Actor.ID, Event: e}
	if e.Type == events.TypeContainer {
		row.From = e.Actor.Attributes["image"]
	}
	return row
}

func eventFormat(flag string, zone *time.Location) (func(io.Writer, events.Event) error, error) {
	switch flag {
	case "":
		return func(w io.Writer, e events.Event) error {
			_, err := fmt.Fprintln(w, oneLine(eventLine(e, zone)))
			return err
		}, nil
	case "json":
		return func(w io.Writer, e events.Event) error { return writeJSON(w, newEventRow(e), "") }, nil
	}
	body, err := parseTemplate(readFormat(flag, "").template, templateFunctions())
	if err != nil {
		return nil, err
	}
	body.Option("missingkey=default") // few events have an exitCode
	return func(w io.Writer, e events.Event) error {
		var line strings.Builder // whole lines only
		if err := execute(&line, body, newEventRow(e)); err != nil {
			return err
		}
		_, err := io.WriteString(w, line.String())
		return err
	}, nil
}

// eventLine is docker's line about an event.
func eventLine(e events.Event, zone *time.Location) string {
	line := fmt.Sprintf("%s %s %s %s", e.When().In(zone).Format("2006-01-02T15:04:05.000000000Z07:00"), e.Type, e.Action, e.Actor.ID)
	var attributes []string
	for _, k := range slices.Sorted(maps.Keys(e.Actor.Attributes)) {
		attributes = append(attributes, k+"="+e.Actor.Attributes[k])
	}
	if len(attributes) > 0 {
		line += " (" + strings.Join(attributes, ", ") + ")"
	}
	return line
}
