package main

import (
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"

	"nook/namespaces/confine"
)

// inside is what hello looks at; tests put a made-up sandbox in its place.
type inside struct {
	root       fs.FS // the container's /
	pid        int
	env        []string
	interfaces func() ([]link, error)
}

// link is a network interface.
type link struct {
	name  string
	up    bool
	addrs []string
}

func here() inside {
	return inside{root: os.DirFS("/"), pid: os.Getpid(), env: os.Environ(), interfaces: links}
}

// hello is the entrypoint of the built-in image. It says, from inside and in
// one screen, what the sandbox is that a person just got. What can't be read is
// left out: hello has to work wherever a container does.
func hello(w io.Writer, in inside) int {
	status := in.status()
	fmt.Fprint(w, "Hello from inside a container that nook made, without root and without a daemon.\n\n")
	line(w, "process", in.process(status))
	line(w, "user", in.user(status))
	line(w, "ids", idMap("user", in.read("proc/self/uid_map")))
	line(w, "", idMap("group", in.read("proc/self/gid_map")))
	mounts := parseMounts(in.read("proc/self/mountinfo"))
	root, writable := rootFS(mounts)
	line(w, "root", root)
	line(w, "", writable)
	if len(mounts) > 0 {
		line(w, "mounts", fmt.Sprintf("%d, of which %d read-only", len(mounts), countReadOnly(mounts)))
	}
	lines(w, "capabilities", wrap(capNames(status["CapEff"]), 80-columnOfValues))
	line(w, "confinement", confinement(status))
	line(w, "cgroup", cgroupOf(in.read("proc/self/cgroup")))
	lines(w, "network", in.network())
	line(w, "environment", fmt.Sprintf("%d variables", len(in.env)))
	line(w, "kernel", strings.TrimSpace(in.read("proc/sys/kernel/osrelease")))
	fmt.Fprint(w, `
Next:
  nook info                        what this host allows, and what it costs
  nook import rootfs.tar.gz mine   an image from any root filesystem
  nook run --rm -it mine sh        a shell in a container of it
`)
	return 0
}

const columnOfValues = 16

// line prints a name and a value; nothing when there is no value.
func line(w io.Writer, name, value string) {
	if value != "" {
		fmt.Fprintf(w, "  %-13s %s\n", name, oneLine(value))
	}
}

// lines prints several values under one name.
func lines(w io.Writer, name string, values []string) {
	for _, value := range values {
		line(w, name, value)
		name = ""
	}
}

// read is a file of the sandbox, "" when it can't be read.
func (in inside) read(path string) string {
	data, err := fs.ReadFile(in.root, path)
	if err != nil {
		return ""
	}
	return string(data)
}

// status is /proc/self/status by name.
func (in inside) status() map[string]string {
	fields := map[string]string{}
	for row := range strings.Lines(in.read("proc/self/status")) {
		if name, value, ok := strings.Cut(row, ":"); ok {
			fields[name] = strings.TrimSpace(value)
		}
	}
	return fields
}

func (in inside) process(status map[string]string) string {
	text := fmt.Sprintf("pid %d", in.pid)
	// NSpid has the number in each pid namespace, from that of /proc on.
	if n := len(strings.Fields(status["NSpid"])); n > 1 {
		text += fmt.Sprintf(" (%d pid namespaces deep)", n)
	}
	if name := strings.TrimSpace(in.read("proc/sys/kernel/hostname")); name != "" {
		text += ", hostname " + name
	}
	return text
}

// user is name and number of user and groups, the names from the image's own
// files.
func (in inside) user(status map[string]string) string {
	uid, gid := second(status["Uid"]), second(status["Gid"])
	if uid == "" {
		return ""
	}
	users, groups := names(in.read("etc/passwd")), names(in.read("etc/group"))
	text := "uid " + named(uid, users) + ", gid " + named(gid, groups)
	var more []string
	for _, group := range strings.Fields(status["Groups"]) {
		if group != gid {
			more = append(more, named(group, groups))
		}
	}
	if len(more) > 0 {
		text += ", groups " + strings.Join(more, " ")
	}
	return text
}

// second is the effective id: real, effective, saved, filesystem.
func second(ids string) string {
	if fields := strings.Fields(ids); len(fields) > 1 {
		return fields[1]
	}
	return ""
}

// names reads passwd(5) or group(5): id to name.
func names(file string) map[string]string {
	byID := map[string]string{}
	for row := range strings.Lines(file) {
		if fields := strings.Split(row, ":"); len(fields) > 2 && byID[fields[2]] == "" {
			byID[fields[2]] = fields[0]
		}
	}
	return byID
}

func named(id string, names map[string]string) string {
	if name := names[id]; name != "" {
		return id + " (" + name + ")"
	}
	return id
}

// capNames is a Cap line of /proc/PID/status in words.
func capNames(hex string) string {
	set, err := strconv.ParseUint(hex, 16, 64)
	if err != nil {
		return ""
	}
	caps := confine.Caps(set)
	if caps == 0 {
		return "none"
	}
	list := caps.Names()
	if len(list) >= len(confine.AllNames()) {
		return fmt.Sprintf("all %d", len(list))
	}
	for i, name := range list {
		list[i] = strings.ToLower(strings.TrimPrefix(name, "CAP_"))
	}
	return fmt.Sprintf("%d: %s", len(list), strings.Join(list, " "))
}

// confinement is what the kernel says of seccomp and no_new_privs.
func confinement(status map[string]string) string {
	var parts []string
	switch status["Seccomp"] {
	case "0":
		parts = append(parts, "no seccomp filter")
	case "1":
		parts = append(parts, "seccomp strict")
	case "2":
		text := "seccomp filter"
		if n := status["Seccomp_filters"]; n != "" && n != "1" {
			text = n + " seccomp filters"
		}
		parts = append(parts, text)
	}
	switch status["NoNewPrivs"] {
	case "0":
		parts = append(parts, "no_new_privs off")
	case "1":
		parts = append(parts, "no_new_privs on")
	}
	return strings.Join(parts, ", ")
}

// cgroupOf is /proc/self/cgroup in words: "0::/path" is version 2.
func cgroupOf(file string) string {
	var v1 int
	var v2 string
	for row := range strings.Lines(file) {
		fields := strings.SplitN(strings.TrimSpace(row), ":", 3)
		switch {
		case len(fields) < 3:
		case fields[0] == "0" && fields[1] == "":
			v2 = fields[2]
		default:
			v1++
		}
	}
	switch {
	case v1 > 0:
		return fmt.Sprintf("version 1, %d hierarchies", v1)
	case v2 != "":
		return "version 2, " + v2
	}
	return ""
}

func (in inside) network() []string {
	links, err := in.interfaces()
	if err != nil {
		return nil
	}
	if len(links) == 0 {
		return []string{"no interfaces"}
	}
	var rows []string
	for _, l := range links {
		state := "down"
		if l.up {
			state = "up"
		}
		rows = append(rows, strings.TrimRight(fmt.Sprintf("%s %s  %s", l.name, state, strings.Join(l.addrs, " ")), " "))
	}
	// The host's network can have dozens; hello has one screen.
	const most = 4
	if len(rows) > most {
		rows = append(rows[:most-1], fmt.Sprintf("and %d more", len(rows)-most+1))
	}
	return rows
}

func links() ([]link, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var list []link
	for _, i := range interfaces {
		l := link{name: i.Name, up: i.Flags&net.FlagUp != 0}
		addrs, _ := i.Addrs() // none, if they can't be had
		for _, addr := range addrs {
			l.addrs = append(l.addrs, addr.String())
		}
		list = append(list, l)
	}
	return list, nil
}
