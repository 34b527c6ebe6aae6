package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nook/build"
	"nook/internal/hint"
)

// told is what happened in one build, a millisecond apart.
func told(view buildView) {
	at := time.Unix(0, 0)
	for _, e := range []build.Event{
		{Step: 1, Kind: build.Started, Text: "[a 1/2] FROM x"},
		{Step: 1, Kind: build.Done},
		{Step: 2, Kind: build.Started, Text: "[a 2/2] RUN make"},
		{Step: 3, Kind: build.Started, Text: "[b 2/2] COPY a b"},
		{Step: 2, Kind: build.Wrote, Text: "one\ntw"},
		{Step: 3, Kind: build.Cached},
		{Step: 2, Kind: build.Wrote, Text: "o\n10%\r20%\r\n\x1b[31mred\x1b[0m"},
		{Step: 4, Kind: build.Started, Text: "[c 2/2] RUN long"},
		{Step: 2, Kind: build.Failed, Err: errors.New("it\nfailed")},
		{Step: 4, Kind: build.Canceled},
		{Step: 5, Kind: build.Started, Text: "exporting"},
		{Step: 5, Kind: build.Told, Text: "writing image"},
	} {
		at = at.Add(100 * time.Millisecond)
		e.Time = at
		view.event(e)
	}
	view.end(nil)
}

func TestPlainView(t *testing.T) {
	var out bytes.Buffer
	told(&plainView{w: &out, steps: map[int]*plainStep{}})
	want := `#1 [a 1/2] FROM x
#1 DONE 0.1s

#2 [a 2/2] RUN make

#3 [b 2/2] COPY a b

#2 [a 2/2] RUN make
#2 0.200 one

#3 [b 2/2] COPY a b
#3 CACHED

#2 [a 2/2] RUN make
#2 0.400 two
#2 0.400 20%

#4 [c 2/2] RUN long

#2 [a 2/2] RUN make
#2 0.600 red
#2 ERROR: it; failed

#4 [c 2/2] RUN long
#4 CANCELED

#5 exporting
#5 writing image
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// screenAt is a screen of which nothing is drawn by itself.
func screenAt(out *bytes.Buffer, cols, rows int) *screen {
	s := newScreen(out, func() (int, int) { return cols, rows })
	s.began = time.Unix(0, 0)
	s.now = func() time.Time { return time.Unix(2, 0) }
	s.after = func(time.Duration, func()) func() { return func() {} }
	return s
}

func TestScreen(t *testing.T) {
	var out bytes.Buffer
	told(screenAt(&out, 40, 5))
	want := `[+] Building 2.0s (4/5)
 => [a 1/2] FROM x                 0.1s
 => ERROR [a 2/2] RUN make         0.6s
 => CACHED [b 2/2] COPY a b        0.2s
 => CANCELED [c 2/2] RUN long      0.2s
 => exporting                      0.9s
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// While it goes on, it keeps to the terminal's height, and what is under way
// comes first.
func TestScreenKeepsToTheTerminal(t *testing.T) {
	var out bytes.Buffer
	s := screenAt(&out, 30, 6)
	at := time.Unix(1, 0)
	for n := 1; n <= 9; n++ {
		s.event(build.Event{Step: n, Kind: build.Started, Time: at, Text: "step " + strings.Repeat(string(rune('0'+n)), 30)})
		if n != 2 {
			s.event(build.Event{Step: n, Kind: build.Done, Time: at})
		}
	}
	s.event(build.Event{Step: 2, Kind: build.Wrote, Time: at, Text: "first\nsecond\n"})
	s.tick()
	want := `[+] Building 2.0s (8/9)
 => step 22222222222222… 1.0s
 => => # first
 => => # second
 => step 99999999999999… 0.0s
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	out.Reset()
	s.tick()
	if got := out.String(); !strings.HasPrefix(got, "\r\x1b[5A\x1b[J[+]") {
		t.Errorf("what stood there isn't taken away: %q", got)
	}
}

func TestReadOutput(t *testing.T) {
	for text, want := range map[string]output{
		"": {}, "-": {"tar", "-"}, "out": {"local", "out"}, "type=local,dest=a": {"local", "a"},
		"type=tar": {"tar", "-"}, "type=oci,dest=x.tar": {"oci", "x.tar"}, "type=docker": {}, "type=docker,dest=-": {"docker", "-"}, "type=image": {},
	} {
		if got, err := readOutput(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"type=local", "type=", "type=x,dest=y", "dest=y", "type=tar,foo=1", "type=tar,"} {
		if got, err := readOutput(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestReadSecrets(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	lookup := func(name string) (string, bool) { return "value", name == "SET" }
	for text, want := range map[string]build.Secret{
		"id=a,src=" + file: {Path: file}, "id=a,source=" + file + ",type=file": {Path: file},
		"id=a,env=SET": {Env: "SET"}, "id=a,src=SET,type=env": {Env: "SET"}, "id=SET": {Env: "SET"},
	} {
		got, err := readSecrets([]string{text}, lookup)
		if err != nil || len(got) != 1 || got["a"] != want && got["SET"] != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"src=" + file: "has no id", "id=a,env=UNSET": "UNSET is not set", "id=a,src=/no/thing": "no such file",
		"id=a,src=" + dir: "is a directory", "a": "invalid value", "id=a,x=1": "invalid value",
	} {
		if _, err := readSecrets([]string{text}, lookup); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestReadSSH(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	none := func(string) (string, bool) { return "", false }
	_, err := readSSH([]string{"default"}, none)
	if err == nil || !strings.Contains(hint.Of(err), "ssh-agent") {
		t.Errorf("no agent: %v", err)
	}
	_, err = readSSH([]string{"key=" + file}, none)
	if err == nil || !strings.Contains(hint.Of(err), "ssh-add") {
		t.Errorf("a key: %v", err)
	}
}

func TestPrintableText(t *testing.T) {
	for text, want := range map[string]string{
		"plain\tü\n": "plain\tü\n", "\x1b[1;31mred\x1b[m": "red", "a\x07b\x00": "ab", "\x1b]0;title\x07x": "x", "\x1b(Bx": "x", "\u009b2J": "2J",
	} {
		if got := printableText(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestReadHost(t *testing.T) {
	for text, want := range map[string]string{
		"a:1.2.3.4": "a:1.2.3.4", "a=1.2.3.4": "a:1.2.3.4", "a=::1": "a:::1", "a=[::1]": "a:::1", "a:[::1]": "a:::1",
		"a:::1": "a:::1", "a:host-gateway": "a:127.0.0.1", "a=host-gateway": "a:127.0.0.1",
	} {
		if got, ok := readHost(text); !ok || got != want {
			t.Errorf("%s: %q, %t, want %q", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "a", "a:", ":1.2.3.4", "a=b", "a:1.2.3.4.5"} {
		if got, ok := readHost(text); ok {
			t.Errorf("%s: %q", text, got)
		}
	}
}
