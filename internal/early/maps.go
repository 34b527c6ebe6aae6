package early

import (
	"syscall"

	"nook/internal/raw/walk"
)

// subids are the subordinate ids of a user whom engine will most likely give
// them, as the tools take them: the first id inside, the first outside, how
// many. What is found here is only a guess, which engine compares with what it
// finds (raw.TakeAhead).
func subids() (uids, gids []string) {
	uid := syscall.Geteuid()
	if uid == 0 || !setuidRoot(newuidmap) || !setuidRoot(newgidmap) {
		return nil, nil
	}
	name := loginName(number(uid))
	return linesOf("/etc/subuid", name, number(uid)), linesOf("/etc/subgid", name, number(uid))
}

// writeMaps starts newuidmap(1) and newgidmap(1), which take longer than all
// that the container's own processes do meanwhile.
func writeMaps(a *walk.Ahead, uids, gids []string) {
	var said [2]int
	if syscall.Pipe2(said[:], syscall.O_CLOEXEC) != nil {
		return
	}
	a.Said = said[0]
	line := func(tool string, id int, ranges []string) []string {
		return append([]string{tool, number(a.Pid), "0", number(id), "1"}, ranges...)
	}
	a.Run(newuidmap, line("newuidmap", syscall.Geteuid(), uids), said[1])
	a.Run(newgidmap, line("newgidmap", syscall.Getegid(), gids), said[1])
	_ = syscall.Close(said[1])
}

// Where the tools are nearly everywhere.
const (
	newuidmap = "/usr/bin/newuidmap"
	newgidmap = "/usr/bin/newgidmap"
)

func setuidRoot(path string) bool {
	var st syscall.Stat_t
	return syscall.Stat(path, &st) == nil && st.Uid == 0 && st.Mode&syscall.S_ISUID != 0
}

// loginName is the user's name in /etc/passwd, "" when it isn't there.
func loginName(uid string) string {
	name := ""
	fields("/etc/passwd", func(field []string) {
		const uidField = 2
		if name == "" && len(field) > uidField && field[uidField] == uid {
			name = field[0]
		}
	})
	return name
}

// linesOf reads a user's lines of subuid(5) or subgid(5).
func linesOf(path, name, uid string) []string {
	var out []string
	inside := 1
	fields(path, func(field []string) {
		const fieldsOfALine = 3
		if len(field) != fieldsOfALine || field[0] != uid && (name == "" || field[0] != name) {
			return
		}
		count, ok := parse(field[2])
		if _, is := parse(field[1]); !ok || !is {
			return
		}
		out = append(out, number(inside), field[1], field[2])
		inside += count
	})
	return out
}

// fields reads a file of lines with colons; one that is longer than a page or
// so is not for here.
func fields(path string, visit func([]string)) {
	const most = 64 << 10
	data := make([]byte, most)
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	n, err := syscall.Read(fd, data)
	_ = syscall.Close(fd)
	if err != nil || n == most {
		return
	}
	var line []string
	start := 0
	for i, c := range data[:n] {
		if c != ':' && c != '\n' {
			continue
		}
		line = append(line, string(data[start:i]))
		start = i + 1
		if c == '\n' {
			visit(line)
			line = line[:0]
		}
	}
}

// number and parse are strconv's, which is initialised too late.
func number(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return number(n/10) + string(rune('0'+n%10))
}

func parse(s string) (n int, ok bool) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' || n > 1<<32 {
			return 0, false
		}
		n = 10*n + int(s[i]-'0')
	}
	return n, s != "" && n > 0
}
