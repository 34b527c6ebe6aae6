package main

import (
	"strconv"
	"strings"
	"time"

	"nook/internal/hint"
)

// readTime reads a point in time as docker's --since and --until take it: a
// duration before now (10m, 1h30m), seconds since 1970 with up to nine digits
// behind the point, or a date, in the local zone unless it names another.
// Empty is the zero time.
func readTime(flag, value string, now time.Time) (time.Time, error) {
	if value == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(value); err == nil && value != "0" {
		return now.Add(-d), nil
	}
	if t, ok := unixTime(value); ok {
		return t, nil
	}
	for _, layout := range []string{
		time.RFC3339Nano, // takes no fraction too
		"2006-01-02T15:04Z07:00", "2006-01-02T15Z07:00", "2006-01-02Z07:00",
		"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02",
	} {
		if t, err := time.ParseInLocation(layout, value, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, hint.Errorf("as in 10m, 2026-01-02T15:04:05Z or 1767366245", "invalid value %q for --%s", value, flag)
}

// unixTime reads seconds.nanoseconds: 1.5 is one and a half.
func unixTime(value string) (time.Time, bool) {
	whole, fraction, _ := strings.Cut(value, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	const digits = 9
	if err != nil || len(fraction) > digits {
		return time.Time{}, false
	}
	nanos, err := strconv.ParseUint(fraction+strings.Repeat("0", digits-len(fraction)), 10, 64)
	if err != nil {
		return time.Time{}, false
	}
	return time.Unix(seconds, int64(nanos)), true
}
