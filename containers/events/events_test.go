package events

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func at(second int64, action string) Event {
	e := Container(action, "c0ffee", "web", "nginx", nil)
	e.TimeNano = second * int64(time.Second)
	return e
}

// actions are those that Read visits between two times, without waiting.
func actions(t *testing.T, root string, since, until int64) string {
	t.Helper()
	var got []string
	err := Read(t.Context(), root, time.Unix(since, 0), time.Unix(until, 0), func(e Event) error {
		got = append(got, e.Action)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(got, " ")
}

func TestLineIsDockersEvent(t *testing.T) {
	root := t.TempDir()
	e := Container("die", "c0ffee", "web", "nginx", map[string]string{"tier": "front"}, "exitCode", "3")
	e.TimeNano = 1_700_000_000_000_000_005
	if err := Append(root, e); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(root, "events"))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"Type":"container","Action":"die","Actor":{"ID":"c0ffee","Attributes":` +
		`{"exitCode":"3","image":"nginx","name":"web","tier":"front"}},` +
		`"scope":"local","time":1700000000,"timeNano":1700000000000000005}` + "\n"
	if string(data) != want {
		t.Errorf("got\n%swant\n%s", data, want)
	}
}

func TestReadBetweenTimes(t *testing.T) {
	root := t.TempDir()
	if got := actions(t, root, 0, 9); got != "" {
		t.Errorf("an empty root has events: %s", got)
	}
	if err := Append(root, at(1, "create"), at(2, "start"), at(3, "die")); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		since, until int64
		want         string
	}{{1, 9, "create start die"}, {2, 2, "start"}, {2, 9, "start die"}, {4, 9, ""}} {
		if got := actions(t, root, test.since, test.until); got != test.want {
			t.Errorf("from %d to %d: %q, want %q", test.since, test.until, got, test.want)
		}
	}
}

// TestTornLine: what a full disk cut short doesn't take the next event with it.
func TestTornLine(t *testing.T) {
	root := t.TempDir()
	whole, err := encode(at(2, "pause"))
	if err != nil {
		t.Fatal(err)
	}
	for cut := 1; cut < len(whole); cut++ {
		if err := os.WriteFile(filepath.Join(root, "events"), whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Append(root, at(3, "die")); err != nil {
			t.Fatal(err)
		}
		if got := actions(t, root, 1, 9); got != "die" {
			t.Fatalf("behind a line cut to %d bytes: %q, want die", cut, got)
		}
	}
}

func TestLongAttributesAreLeftOut(t *testing.T) {
	long := map[string]string{"essay": strings.Repeat("x", lineBytes), "image": "no", "name": "no"}
	line, err := encode(Container("exec_start: "+strings.Repeat("y", 2*lineBytes), "c0ffee", "web", "nginx", long, "exitCode", "0"))
	if err != nil || len(line) > lineBytes {
		t.Fatalf("%d bytes, %v; want at most %d", len(line), err, lineBytes)
	}
	e, ok := decode(line)
	if a := e.Actor.Attributes; !ok || a["name"] != "web" || a["image"] != "nginx" || a["exitCode"] != "0" || len(a) != 3 {
		t.Errorf("left of it: %v", a)
	}
}

// TestFollowerLosesNothing: writers rotate small files while one reads. In a
// round they write less than a file, as no writer is late by more than that,
// and the reader is never behind by more files than are kept.
func TestFollowerLosesNothing(t *testing.T) {
	const writers, rounds, each, limit = 4, 80, 20, 20_000
	root := t.TempDir()
	seen := map[string]int{}
	progress := make(chan int, rounds)
	stopped := errors.New("stopped")
	var reading sync.WaitGroup
	var readErr error
	reading.Go(func() {
		defer close(progress)
		readErr = Read(t.Context(), root, time.Unix(1, 0), time.Time{}, func(e Event) error {
			switch e.Action {
			case "begin", "end":
				progress <- 0
				return nil
			case "stop":
				return stopped
			}
			if seen[e.Action]++; len(seen)%(writers*each) == 0 {
				progress <- len(seen)
			}
			return nil
		})
	})
	say := func(action string) {
		if err := Append(root, Container(action, "", "", "", nil)); err != nil {
			t.Fatal(err)
		}
	}
	say("begin")
	<-progress
	for round := range rounds {
		var writing sync.WaitGroup
		for w := range writers {
			writing.Go(func() {
				for i := range each {
					e := Container(fmt.Sprintf("%d/%d/%d", round, w, i), "c0ffee", "web", "nginx", nil)
					if err := appendTo(root, limit, []Event{e}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		writing.Wait()
		if round >= mostFiles/2 {
			<-progress // of mostFiles/2 rounds before
		}
	}
	// What was late in the last round is read before what follows "end".
	say("end")
	for n := range progress {
		if n == 0 {
			say("stop")
		}
	}
	reading.Wait()
	if !errors.Is(readErr, stopped) {
		t.Fatal(readErr)
	}
	if len(seen) != writers*rounds*each {
		t.Errorf("%d different events were seen, want %d", len(seen), writers*rounds*each)
	}
	for action, n := range seen {
		if n != 1 {
			t.Errorf("event %s was seen %d times", action, n)
		}
	}
	if old, err := numbers(root); err != nil || len(old) == 0 || old[len(old)-1] < rounds/2 {
		t.Errorf("too little was rotated for this test: %v %v", old, err)
	}
}

// TestLateWriter: who opened a file before it was rotated writes to it after.
func TestLateWriter(t *testing.T) {
	root := t.TempDir()
	if err := Append(root, at(1, "create")); err != nil {
		t.Fatal(err)
	}
	late, err := os.OpenFile(filepath.Join(root, "events"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	line, err := encode(at(4, "late"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	stopped := errors.New("stopped")
	err = Read(t.Context(), root, time.Unix(1, 0), time.Time{}, func(e Event) error {
		got = append(got, e.Action)
		switch e.Action {
		case "create":
			return errors.Join(appendTo(root, 1, []Event{at(2, "start")}), Append(root, at(3, "die")))
		case "die": // the reader is in the next file
			_, err := late.Write(append(line, '\n'))
			return err
		case "late":
			return stopped
		}
		return nil
	})
	if want := "create start die late"; !errors.Is(err, stopped) || strings.Join(got, " ") != want {
		t.Errorf("%v: %v, want %s", err, got, want)
	}
}

// TestReadFromNowUntilCancelled: what was before is not shown.
func TestReadFromNowUntilCancelled(t *testing.T) {
	root := t.TempDir()
	if err := Append(root, at(1, "before")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []string
	var reading sync.WaitGroup
	var readErr error
	reading.Go(func() {
		readErr = Read(ctx, root, time.Time{}, time.Time{}, func(e Event) error {
			got = append(got, e.Action)
			cancel()
			return nil
		})
	})
	for ctx.Err() == nil { // it may not have begun
		if err := Append(root, at(2, "after")); err != nil {
			t.Fatal(err)
		}
	}
	reading.Wait()
	if !errors.Is(readErr, context.Canceled) || len(got) == 0 || got[0] != "after" {
		t.Errorf("%v: %v, want only what came after its beginning", readErr, got)
	}
}

// TestUntilEndsTheWaiting: also where nothing happens.
func TestUntilEndsTheWaiting(t *testing.T) {
	root := t.TempDir()
	err := Read(t.Context(), root, time.Time{}, time.Now().Add(20*time.Millisecond), func(Event) error { return nil })
	if err != nil {
		t.Error(err)
	}
}

// TestWithoutInotify: the clock does it too.
func TestWithoutInotify(t *testing.T) {
	b := &bell{}
	ctx, cancel := context.WithCancel(t.Context())
	if err := b.wait(ctx, time.Time{}); err != nil {
		t.Error(err)
	}
	cancel()
	if err := b.wait(ctx, time.Time{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestOldFilesAreBounded(t *testing.T) {
	root := t.TempDir()
	held, err := os.Create(numbered(root, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	hold(held)
	for i := range 3 * mostFiles {
		if err := appendTo(root, 1, []Event{at(1, "start")}); err != nil {
			t.Fatal(err)
		}
		old, err := numbers(root)
		if err != nil {
			t.Fatal(err)
		}
		if wantHeld := i+2 <= mostFiles; (old[0] == 1) != wantHeld || len(old) > mostFiles {
			t.Fatalf("after %d rotations the files are %v; the one that is read should be there: %v", i+1, old, wantHeld)
		}
	}
}
