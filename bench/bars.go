package main

import (
	"fmt"
	"io"
	"strings"
)

// figure is a number that a bar is about.
type figure struct {
	name  string
	value float64 // 0: it wasn't measured
}

// over is how many times the time of base that of name is.
func over(all []times, label, name, base string) figure {
	f := figure{name: label}
	if a, b := medianOf(all, name), medianOf(all, base); a > 0 && b > 0 {
		f.value = a / b
	}
	return f
}

// medianOf is in milliseconds; 0: it isn't there.
func medianOf(all []times, name string) float64 {
	for _, t := range all {
		if t.name == name && t.out == nil {
			return ms(t.median())
		}
	}
	return 0
}

func atMost(w io.Writer, what string, most float64, got ...figure) {
	judge(w, what, got, func(v float64) bool { return v <= most })
}

func atLeast(w io.Writer, what string, least float64, got ...figure) {
	judge(w, what, got, func(v float64) bool { return v >= least })
}

// judge prints a bar: met, when all numbers are good, and what they are.
func judge(w io.Writer, what string, got []figure, good func(float64) bool) {
	verdict := "met"
	var said []string
	for _, f := range got {
		switch {
		case f.value == 0:
			said = append(said, f.name+" not measured")
			if verdict == "met" {
				verdict = "not decided"
			}
			continue
		case !good(f.value):
			verdict = "missed"
		}
		said = append(said, fmt.Sprintf("%s %.4g", f.name, f.value))
	}
	fmt.Fprintf(w, "Bar: %s: **%s** (%s).\n\n", what, verdict, strings.Join(said, ", "))
}
