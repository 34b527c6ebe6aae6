package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// mount is what hello needs of a line of /proc/self/mountinfo (proc(5)). The
// library that reads them, moby/sys/mountinfo, reads the running process's file
// or a line, and hello wants neither its init nor more than four fields.
type mount struct {
	point    string
	options  []string // of the mount
	fstype   string
	superblk []string // of the file system
}

func parseMounts(mountinfo string) []mount {
	var mounts []mount
	for row := range strings.Lines(mountinfo) {
		left, right, ok := strings.Cut(strings.TrimSpace(row), " - ")
		fields, rest := strings.Fields(left), strings.Fields(right)
		if !ok || len(fields) < 6 || len(rest) < 3 {
			continue
		}
		mounts = append(mounts, mount{
			point:    fields[4],
			options:  strings.Split(fields[5], ","),
			fstype:   rest[0],
			superblk: strings.Split(rest[2], ","),
		})
	}
	return mounts
}

func (m mount) readOnly() bool {
	return slices.Contains(m.options, "ro") || slices.Contains(m.superblk, "ro")
}

func countReadOnly(mounts []mount) int {
	n := 0
	for _, m := range mounts {
		if m.readOnly() {
			n++
		}
	}
	return n
}

// rootFS says what / is, and where what is written goes.
func rootFS(mounts []mount) (root, writable string) {
	i := slices.IndexFunc(mounts, func(m mount) bool { return m.point == "/" })
	if i < 0 {
		return "", ""
	}
	m := mounts[i]
	mode := "writable"
	if m.readOnly() {
		mode = "read-only"
	}
	if m.fstype != "overlay" && m.fstype != "fuse.fuse-overlayfs" {
		return fmt.Sprintf("%s, %s, a copy of the image's layers", m.fstype, mode), ""
	}
	layers, upper, volatile := overlayLayers(m.superblk)
	if layers > 1 {
		layers-- // the lowest is nook's own, with the mount points
	}
	text := fmt.Sprintf("%s of %s, %s", m.fstype, plural(layers, "read-only image layer"), mode)
	switch {
	case mode == "read-only":
		return text, ""
	case upper && volatile:
		return text, "one writable layer on top, this container's alone, gone with it"
	case upper:
		return text, "one writable layer on top, this container's alone"
	}
	return text, ""
}

// overlayLayers counts the lower layers in overlay's options. The kernel shows
// one lowerdir= with colons, or a lowerdir+= for each layer if it was mounted
// by fsconfig(2) (since 6.8); a colon in a path is escaped with a backslash.
func overlayLayers(options []string) (layers int, upper, volatile bool) {
	for _, option := range options {
		name, value, _ := strings.Cut(option, "=")
		switch name {
		case "lowerdir":
			layers += 1 + strings.Count(strings.ReplaceAll(unescapeMount(value), `\:`, ""), ":")
		case "lowerdir+":
			layers++
		case "upperdir":
			upper = true
		case "volatile":
			volatile = true
		}
	}
	return layers, upper, volatile
}

// unescapeMount undoes mountinfo's octal escapes of blanks and backslashes.
func unescapeMount(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// idMap is a uid_map or gid_map (user_namespaces(7)) in words.
func idMap(what, file string) string {
	var parts []string
	for row := range strings.Lines(file) {
		var inside, outside, count uint64
		if _, err := fmt.Sscan(row, &inside, &outside, &count); err != nil {
			continue
		}
		switch {
		case count == 1<<32-1:
			parts = append(parts, "the same inside and outside")
		case count == 1:
			parts = append(parts, fmt.Sprintf("%d is %d outside", inside, outside))
		default:
			parts = append(parts, fmt.Sprintf("%d-%d are %d-%d outside", inside, inside+count-1, outside, outside+count-1))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	const most = 3
	if len(parts) > most {
		parts = append(parts[:most], fmt.Sprintf("%d more", len(parts)-most))
	}
	return what + " " + strings.Join(parts, ", ")
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
