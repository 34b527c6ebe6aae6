package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func written(t *testing.T, line int, size int64) []byte {
	t.Helper()
	text, err := io.ReadAll(io.LimitReader(newStream(line), size))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestCompareTakesWhatWasWritten(t *testing.T) {
	const size = 300<<10 + 7
	text := written(t, 1000, size)
	for name, r := range map[string]io.Reader{
		"whole":       bytes.NewReader(text),
		"in pieces":   iotest.HalfReader(bytes.NewReader(text)),
		"end at once": iotest.DataErrReader(bytes.NewReader(text)),
	} {
		if got, err := newStream(1000).compare(r, size); err != nil || got != size {
			t.Errorf("%s: got %d, %v; want %d", name, got, err, size)
		}
	}
}

func TestCompareSeesALoss(t *testing.T) {
	const line, size = 1000, 10000
	text := written(t, line, size)
	cut := func(from, to int) []byte { return append(bytes.Clone(text[:from]), text[to:]...) }
	for name, c := range map[string]struct {
		text []byte
		want string
	}{
		"a byte":         {cut(4500, 4501), "is not what was written"},
		"a whole line":   {cut(4000, 5000), "byte 4015 is not what was written"},
		"the last byte":  {cut(size-1, size), "9999 bytes came of 10000"},
		"nothing came":   {nil, "0 bytes came of 10000"},
		"lines in turns": {append(cut(4000, 5000), text[4000:5000]...), "byte 4015"},
	} {
		_, err := newStream(line).compare(bytes.NewReader(c.text), size)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestBars(t *testing.T) {
	for want, got := range map[string][]figure{
		"**met** (a 2.5, b 3)":                  {{"a", 2.5}, {"b", 3}},
		"**missed** (a 2.5, b 3.01)":            {{"a", 2.5}, {"b", 3.01}},
		"**not decided** (a not measured, b 3)": {{"a", 0}, {"b", 3}},
		"**missed** (a not measured, b 4)":      {{"a", 0}, {"b", 4}},
	} {
		var page strings.Builder
		atMost(&page, "at most 3", 3, got...)
		if !strings.Contains(page.String(), want) {
			t.Errorf("got %q, want %q", page.String(), want)
		}
	}
}
