package processes

import (
	"bytes"
	"os"
	"strconv"
	"strings"
)

// parseStat reads proc_pid_stat(5). The name stands in parentheses and may
// hold blanks, newlines and parentheses: the last one closes it, as only
// letters and numbers follow.
func parseStat(text []byte) (Process, bool) {
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return Process{}, false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text[:open])))
	if err != nil {
		return Process{}, false
	}
	// The state is field 3; names as in the man page.
	const state, ppid, pgrp, session, tty, tpgid, utime, stime, cutime, cstime, nice, threads, starttime, vsize, rss = 3, 4, 5, 6, 7, 8, 14, 15, 16, 17, 19, 20, 22, 23, 24
	fields := bytes.Fields(text[end+1:])
	if len(fields) <= rss-state {
		return Process{}, false
	}
	number := func(field int) int64 {
		n, failure := strconv.ParseInt(string(fields[field-state]), 10, 64)
		if failure != nil {
			// The address space of a 64-bit process fits; unsigned fields don't
			// reach 63 bits otherwise.
			err = failure
		}
		return n
	}
	p := Process{
		Pid: pid, Parent: int(number(ppid)),
		Name: string(text[open+1 : end]), State: fields[0][0],
		Group: int(number(pgrp)), Session: int(number(session)),
		TTY: int(number(tty)), Front: int(number(tpgid)),
		Nice: int(number(nice)), Threads: int(number(threads)),
		Start: uint64(number(starttime)), UserTime: uint64(number(utime)), SysTime: uint64(number(stime)),
		ChildTime: uint64(max(0, number(cutime)) + max(0, number(cstime))),
		Size:      uint64(number(vsize)), Resident: uint64(max(0, number(rss))) * uint64(os.Getpagesize()),
	}
	return p, err == nil
}

// parseStatus reads the effective uid and the pids of proc_pid_status(5).
func parseStatus(text []byte) (uid int, ids []int, ok bool) {
	const effective = 1
	found := false
	for line := range bytes.Lines(text) {
		name, rest, _ := strings.Cut(string(line), ":")
		switch name {
		case "Uid":
			fields := strings.Fields(rest)
			if len(fields) <= effective {
				return 0, nil, false
			}
			n, err := strconv.Atoi(fields[effective])
			if err != nil {
				return 0, nil, false
			}
			uid, found = n, true
		case "NSpid":
			for id := range strings.FieldsSeq(rest) {
				n, err := strconv.Atoi(id)
				// 0: it is being reaped and has no number any more. To kill(2)
				// that would be a whole process group.
				if err != nil || n <= 0 {
					return 0, nil, false
				}
				ids = append(ids, n)
			}
			return uid, ids, found && len(ids) > 0
		}
	}
	return 0, nil, false
}

// Traffic is what a device or a network interface carried, in bytes.
type Traffic struct{ In, Out uint64 }

// parseNetDev adds up /proc/net/dev (proc_pid_net(5)) but for the loopback.
func parseNetDev(text []byte) Traffic {
	const received, sent = 0, 8
	var t Traffic
	for line := range bytes.Lines(text) {
		name, rest, isRow := strings.Cut(string(line), ":")
		fields := strings.Fields(rest)
		if !isRow || strings.TrimSpace(name) == "lo" || len(fields) <= sent {
			continue
		}
		in, err := strconv.ParseUint(fields[received], 10, 64)
		if err != nil {
			continue
		}
		out, err := strconv.ParseUint(fields[sent], 10, 64)
		if err != nil {
			continue
		}
		t.In, t.Out = t.In+in, t.Out+out
	}
	return t
}

// parseFields reads "Name: NUMBER" lines, as those of proc_pid_io(5) and
// smaps_rollup.
func parseFields(text []byte, name string) (uint64, bool) {
	for line := range bytes.Lines(text) {
		rest, ok := bytes.CutPrefix(line, []byte(name+":"))
		if !ok {
			continue
		}
		fields := bytes.Fields(rest)
		if len(fields) == 0 {
			return 0, false
		}
		n, err := strconv.ParseUint(string(fields[0]), 10, 64)
		return n, err == nil
	}
	return 0, false
}
