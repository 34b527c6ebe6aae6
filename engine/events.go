package engine

import (
	"context"
	"slices"
	"strings"
	"time"

	"nook/containers/events"
	"nook/images"
	"nook/internal/hint"
)

// EventsOptions say which events Events gives.
type EventsOptions struct {
	// Since is where to begin; zero: now. Until is where to end, also when that
	// is to come; zero: never.
	Since, Until time.Time
	// Filters are docker's: type, event, container, image, volume, label, scope.
	// Of the values of one any has to match, but all of label's.
	Filters map[string][]string
}

// Events visits what happened in the data root, whoever did it, in the order of
// its writing. It ends with Until, with an error of visit, or with ctx, whose
// error it returns.
func (e *Engine) Events(ctx context.Context, o EventsOptions, visit func(events.Event) error) error {
	for key := range o.Filters {
		switch key {
		case "type", "event", "container", "image", "label", "scope", "volume":
		default:
			return hint.Errorf("container, event, image, label, scope, type and volume are known", "filter %q: %w", key, ErrFilter)
		}
	}
	return events.Read(ctx, e.root, o.Since, o.Until, func(ev events.Event) error {
		if !eventMatches(ev, o.Filters) {
			return nil
		}
		return visit(ev)
	})
}

func eventMatches(ev events.Event, filters map[string][]string) bool {
	attributes := ev.Actor.Attributes
	for key, values := range filters {
		var ok bool
		switch key {
		case "type":
			ok = slices.Contains(values, ev.Type)
		case "event":
			ok = slices.ContainsFunc(values, func(v string) bool { return eventIs(ev.Action, v) })
		case "container":
			ok = ev.Type == events.TypeContainer && slices.ContainsFunc(values, func(v string) bool {
				return v != "" && (strings.HasPrefix(ev.Actor.ID, v) || strings.TrimPrefix(v, "/") == attributes["name"])
			})
		case "image":
			ok = slices.ContainsFunc(values, func(v string) bool { return eventOfImage(ev, v) })
		case "volume":
			ok = ev.Type == events.TypeVolume && slices.Contains(values, ev.Actor.ID)
		case "label":
			ok = hasLabels(attributes, values)
		case "scope":
			ok = slices.Contains(values, ev.Scope)
		}
		if !ok {
			return false
		}
	}
	return true
}

// eventIs matches exec_start without its command too, and health_status
// without the status.
func eventIs(action, wanted string) bool {
	before, _, _ := strings.Cut(action, ":")
	return action == wanted || before == wanted
}

// eventOfImage tells whether an event is about an image, or about a container
// of it: by its id, by its name, or by its name without the tag.
func eventOfImage(ev events.Event, wanted string) bool {
	name := ev.Actor.Attributes["image"]
	if ev.Type == events.TypeImage {
		if ev.Actor.ID == wanted {
			return true
		}
		name = ev.Actor.Attributes["name"]
	}
	if name == wanted {
		return name != ""
	}
	ref, err := images.ParseReference(name)
	if err != nil {
		return false
	}
	want, err := images.ParseReference(wanted)
	return err == nil && (ref == want || ref.FamiliarRepository() == wanted)
}
