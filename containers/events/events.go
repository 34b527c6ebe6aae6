// Package events keeps the record of what happened in a data root, for nook
// events and whoever waits for a container: an append-only file that every
// command and monitor writes, without a daemon between.
//
//	events.Append(root, events.Container("die", id, "web", "nginx", labels, "exitCode", "0"))
//	err := events.Read(ctx, root, since, time.Time{}, func(e events.Event) error { … })
//
//	ROOT/events      a line of JSON an event, one write(2) a call of Append
//	ROOT/events.N    what was events before; a higher N is younger
//	ROOT/.events.lock  held while files are renamed and removed
//
// A writer takes no lock: O_APPEND makes the kernel put lines behind each
// other. A reader holds a shared lock on the files that it has open, and the
// files it still has to read stay until it is done, up to a bound.
//
// It does not flush: after a power cut the last events may be missing, as
// docker's are after its daemon ends.
package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Event is one thing that happened, in docker's shape (events.Message of its
// API).
type Event struct {
	Type   string // container, image or volume
	Action string // create, start, die, exec_start: sh, health_status: healthy, …
	Actor  Actor
	Scope  string `json:"scope"`
	// Time is in seconds since 1970, TimeNano the same in nanoseconds.
	Time     int64 `json:"time"`
	TimeNano int64 `json:"timeNano"`
}

// Actor is what an event is about.
type Actor struct {
	ID string
	// Attributes of a container are its name, image and labels, beside those
	// of the action: exitCode, signal, execID, oldName.
	Attributes map[string]string
}

// The types of events.
const (
	TypeContainer = "container"
	TypeImage     = "image"
	TypeVolume    = "volume"
)

// Container is an event about a container. more are further attributes, name
// and value in turn.
func Container(action, id, name, image string, labels map[string]string, more ...string) Event {
	attributes := make(map[string]string, len(labels)+2+len(more)/2)
	maps.Copy(attributes, labels)
	attributes["image"], attributes["name"] = image, name
	for i := 0; i+1 < len(more); i += 2 {
		attributes[more[i]] = more[i+1]
	}
	return Event{Type: TypeContainer, Action: action, Actor: Actor{id, attributes}}
}

// Image is an event about an image; name is how the person called it.
func Image(action, id, name string) Event {
	return Event{Type: TypeImage, Action: action, Actor: Actor{id, map[string]string{"name": name}}}
}

// Volume is an event about a volume: create or destroy.
func Volume(action, name string) Event {
	return Event{Type: TypeVolume, Action: action, Actor: Actor{name, map[string]string{"driver": "local"}}}
}

// VolumesPruned is docker's event at the end of a prune of volumes, which is about none
// of them.
func VolumesPruned(bytes int64) Event {
	return Event{Type: TypeVolume, Action: "prune", Actor: Actor{"", map[string]string{"reclaimed": strconv.FormatInt(bytes, 10)}}}
}

// When is the time of the event.
func (e Event) When() time.Time { return time.Unix(0, e.TimeNano) }

const (
	fileName = "events"
	lockName = ".events.lock"
	// fileBytes is where a file ends and the next begins: some thousand events.
	fileBytes = 1 << 20
	// lineBytes bounds one event, whose labels an image chooses.
	lineBytes = 64 << 10
)

// Append records events; those without a time happened now. It costs an open,
// a write and a close: it is part of every run --rm. The caller goes on when
// it fails, as on a full disk: what happened did happen.
func Append(root string, list ...Event) error {
	return appendTo(root, fileBytes, list)
}

func appendTo(root string, limit int64, list []Event) error {
	var buf []byte
	for _, e := range list {
		line, err := encode(e)
		if err != nil {
			return fmt.Errorf("append event: %w", err)
		}
		buf = append(append(buf, line...), '\n')
	}
	path := filepath.Join(root, fileName)
	fd, err := open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND)
	if err != nil {
		return fmt.Errorf("append event: %w", err)
	}
	defer unix.Close(fd)
	n, err := unix.Write(fd, buf)
	if err != nil {
		return fmt.Errorf("append event: %w", err)
	}
	if n < len(buf) { // a full disk; a reader knows the torn line from the next
		return fmt.Errorf("append event: %w", unix.ENOSPC)
	}
	if size, err := unix.Seek(fd, 0, unix.SEEK_CUR); err == nil && size >= limit {
		return rotate(root, limit)
	}
	return nil
}

// encode makes the line of an event. Attributes that would make it too long
// for one are left out, but for those that tell which container it was.
func encode(e Event) ([]byte, error) {
	now := time.Now()
	if e.TimeNano == 0 {
		e.TimeNano = now.UnixNano()
	}
	e.Time, e.Scope = e.TimeNano/int64(time.Second), "local"
	line, err := json.Marshal(e)
	if err != nil || len(line) <= lineBytes {
		return line, err
	}
	whole := e.Actor.Attributes
	e.Actor.Attributes = map[string]string{}
	for _, name := range []string{"image", "name", "oldName", "exitCode", "signal", "execID"} {
		if v, ok := whole[name]; ok {
			e.Actor.Attributes[name] = v[:min(len(v), lineBytes/16)]
		}
	}
	e.Action = e.Action[:min(len(e.Action), lineBytes/16)] // exec_start has a command in it
	return json.Marshal(e)
}

// open is open(2) without the poller, which knows no regular files.
func open(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}
