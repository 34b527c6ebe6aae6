package engine

import (
	"context"
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nook/containers/processes"
	"nook/internal/hint"
)

// TopResult is a table of processes, as docker's API has it.
type TopResult struct {
	Titles    []string
	Processes [][]string
}

// Top tells what runs in a container, ordered by pid. Users and pids are those
// of the host. psArgs are options of ps(1): -o COLUMN,..., aux, -ef (also when
// there are none). No ps is run; an option that isn't known is an error.
func (e *Engine) Top(ctx context.Context, nameOrID string, psArgs ...string) (TopResult, error) {
	columns, err := psColumns(psArgs)
	if err != nil {
		return TopResult{}, err
	}
	ct, state, err := e.live(nameOrID)
	if err != nil {
		return TopResult{}, err
	}
	list, err := processes.List(state.Monitor.Pid)
	if err != nil {
		return TopResult{}, fmt.Errorf("container %s: %w", nameOrID, err)
	}
	host, err := processes.ReadHost()
	if err != nil {
		return TopResult{}, err
	}
	slices.SortFunc(list, func(a, b processes.Process) int { return a.Pid - b.Pid })
	ps := ps{host: host, users: make(map[int]string)}
	result := TopResult{Processes: [][]string{}}
	for _, c := range columns {
		result.Titles = append(result.Titles, c.title)
	}
	for _, p := range list {
		row := make([]string, len(columns))
		for i, c := range columns {
			row[i] = c.value(&ps, p)
		}
		result.Processes = append(result.Processes, row)
	}
	if cfg, err := ct.Config(); err == nil {
		e.event("top", cfg)
	}
	return result, ctx.Err()
}

const psHint = "nook runs no ps: it knows aux, -ef and -o with " +
	"pid,ppid,user,uid,pcpu,pmem,rss,vsz,stat,tty,time,etime,args,cmd,comm,nlwp,stime,c,ni"

// The formats of ps without -o, as procps has them.
const (
	psFull   = "UID,pid,ppid,c,stime,tty,time,cmd" // -ef
	psShort  = "pid,tty,time,CMD"                  // -e
	psUser   = "user,pid,pcpu,pmem,vsz,rss,tty,stat,START,TIME,command"
	psSimple = "pid,tty,stat,TIME,command" // ax
)

// psColumns reads options of ps(1). Which processes they choose doesn't
// matter: it is always all of the container's.
func psColumns(args []string) ([]psColumn, error) {
	words := strings.Fields(strings.Join(args, " "))
	format, own := "", ""
	if len(words) == 0 {
		format = psFull
	}
	for len(words) > 0 {
		word := words[0]
		words = words[1:]
		letters, dashed := strings.CutPrefix(word, "-")
		if strings.Trim(letters, "aux") == "" {
			dashed = false // docker's users write -aux too, and ps obeys
		}
		if letters == "" {
			return nil, psUnknown(word)
		}
		for letters != "" {
			letter := letters[:1]
			letters = letters[1:]
			switch {
			case letter == "o":
				if letters == "" && len(words) > 0 {
					letters, words = words[0], words[1:]
				}
				if letters == "" {
					return nil, hint.Errorf(psHint, "ps option o needs columns")
				}
				own += "," + letters
				letters = ""
			case letter == "w": // lines are never cut
			case dashed && letter == "f":
				format = psFull
			case dashed && strings.Contains("eA", letter):
				format = firstNonEmpty(format, psShort)
			case !dashed && letter == "u":
				format = psUser
			case !dashed && strings.Contains("ax", letter):
				format = firstNonEmpty(format, psSimple)
			default:
				return nil, psUnknown(word)
			}
		}
	}
	if own != "" {
		format = strings.TrimPrefix(own, ",")
	}
	known := allColumns()
	var columns []psColumn
	for name := range strings.SplitSeq(format, ",") {
		c, ok := known[name]
		if !ok || own != "" && c.internal {
			return nil, hint.Errorf(psHint, "ps column %q: not known", name)
		}
		columns = append(columns, c)
	}
	return columns, nil
}

func psUnknown(word string) error { return hint.Errorf(psHint, "ps option %q: not known", word) }

func firstNonEmpty(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// psColumn is a column of ps(1).
type psColumn struct {
	title    string
	value    func(*ps, processes.Process) string
	internal bool // of our formats only, not for -o
}

type ps struct {
	host  processes.Host
	users map[int]string
}

// allColumns are the columns by the names that ps gives them, each in procps'
// form.
func allColumns() map[string]psColumn {
	number := func(f func(processes.Process) int) func(*ps, processes.Process) string {
		return func(_ *ps, p processes.Process) string { return strconv.Itoa(f(p)) }
	}
	kib := func(f func(processes.Process) uint64) func(*ps, processes.Process) string {
		return func(_ *ps, p processes.Process) string { return strconv.FormatUint(f(p)>>10, 10) }
	}
	pid := number(func(p processes.Process) int { return p.Pid })
	threads := number(func(p processes.Process) int { return p.Threads })
	rss := kib(func(p processes.Process) uint64 { return p.Resident })
	vsz := kib(func(p processes.Process) uint64 { return p.Size })
	percent := func(s *ps, p processes.Process) string { return fmt.Sprintf("%.1f", s.usage(p)) }
	memory := func(s *ps, p processes.Process) string {
		return fmt.Sprintf("%.1f", 100*float64(p.Resident)/float64(s.host.Memory))
	}
	uid := number(func(p processes.Process) int { return p.UID })
	nice := number(func(p processes.Process) int { return p.Nice })
	ran := func(_ *ps, p processes.Process) string { return psClock(p.CPU(), true) }
	age := func(s *ps, p processes.Process) string { return psClock(p.Age(s.host), false) }
	return map[string]psColumn{
		"pid":  {title: "PID", value: pid},
		"ppid": {title: "PPID", value: number(func(p processes.Process) int { return p.Parent })},
		"pgid": {title: "PGID", value: number(func(p processes.Process) int { return p.Group })},
		"user": {title: "USER", value: (*ps).user}, "euser": {title: "EUSER", value: (*ps).user},
		"uid": {title: "UID", value: uid}, "euid": {title: "EUID", value: uid},
		"pcpu": {title: "%CPU", value: percent}, "%cpu": {title: "%CPU", value: percent},
		"pmem": {title: "%MEM", value: memory}, "%mem": {title: "%MEM", value: memory},
		"rss": {title: "RSS", value: rss}, "vsz": {title: "VSZ", value: vsz}, "vsize": {title: "VSZ", value: vsz},
		"stat": {title: "STAT", value: psStat}, "s": {title: "S", value: func(_ *ps, p processes.Process) string { return string(p.State) }},
		"tty": {title: "TTY", value: psTTY}, "tname": {title: "TTY", value: psTTY}, "tt": {title: "TT", value: psTTY},
		"time": {title: "TIME", value: ran}, "cputime": {title: "TIME", value: ran},
		"etime":  {title: "ELAPSED", value: age},
		"etimes": {title: "ELAPSED", value: func(s *ps, p processes.Process) string { return strconv.Itoa(int(p.Age(s.host).Seconds())) }},
		"args":   {title: "COMMAND", value: psCommand}, "command": {title: "COMMAND", value: psCommand}, "cmd": {title: "CMD", value: psCommand},
		"comm": {title: "COMMAND", value: psName}, "ucmd": {title: "CMD", value: psName}, "ucomm": {title: "COMMAND", value: psName},
		"nlwp": {title: "NLWP", value: threads}, "thcount": {title: "THCNT", value: threads},
		"stime": {title: "STIME", value: (*ps).day}, "start_time": {title: "START", value: (*ps).day},
		"c":  {title: "C", value: func(s *ps, p processes.Process) string { return strconv.Itoa(min(99, int(s.usage(p)))) }},
		"ni": {title: "NI", value: nice}, "nice": {title: "NI", value: nice},

		"UID":   {title: "UID", value: (*ps).user, internal: true},
		"CMD":   {title: "CMD", value: psName, internal: true},
		"START": {title: "START", value: (*ps).start, internal: true},
		"TIME":  {title: "TIME", value: psTimeBSD, internal: true},
	}
}

// user is the name of a uid on the host, or its number.
func (s *ps) user(p processes.Process) string {
	name, ok := s.users[p.UID]
	if !ok {
		name = strconv.Itoa(p.UID)
		if u, err := user.LookupId(name); err == nil {
			name = u.Username
		}
		s.users[p.UID] = name
	}
	return name
}

// usage is the share of its life in which the process ran, in percent.
func (s *ps) usage(p processes.Process) float64 {
	age := p.Age(s.host)
	if age <= 0 {
		return 0
	}
	return 100 * float64(p.CPU()) / float64(age)
}

// day is when it began: the time, the day if that was another, the year.
func (s *ps) day(p processes.Process) string {
	now, began := s.host.Now, s.host.Now.Add(-p.Age(s.host))
	switch {
	case began.Year() != now.Year():
		return began.Format("2006")
	case began.YearDay() != now.YearDay():
		return began.Format("Jan02")
	}
	return began.Format("15:04")
}

// start is day in BSD's form: the time for what is younger than a day.
func (s *ps) start(p processes.Process) string {
	began := s.host.Now.Add(-p.Age(s.host))
	if p.Age(s.host) < 24*time.Hour {
		return began.Format("15:04")
	}
	return began.Format("Jan02")
}

// psStat is the state and what BSD's ps adds to it.
func psStat(_ *ps, p processes.Process) string {
	s := string(p.State)
	switch {
	case p.Nice < 0:
		s += "<"
	case p.Nice > 0:
		s += "N"
	}
	if p.Session == p.Pid {
		s += "s"
	}
	if p.Threads > 1 {
		s += "l"
	}
	if p.Front == p.Group {
		s += "+"
	}
	return s
}

// psTTY names a terminal by its device number (Linux's devices.txt).
func psTTY(_ *ps, p processes.Process) string {
	major, minor := unix.Major(uint64(p.TTY)), unix.Minor(uint64(p.TTY))
	const virtual, console, firstPts, lastPts = 4, 5, 136, 143
	switch {
	case p.TTY == 0:
		return "?"
	case major >= firstPts && major <= lastPts:
		return fmt.Sprintf("pts/%d", (major-firstPts)<<8|minor)
	case major == virtual && minor < 64:
		return fmt.Sprintf("tty%d", minor)
	case major == virtual:
		return fmt.Sprintf("ttyS%d", minor-64)
	case major == console && minor == 1:
		return "console"
	}
	return fmt.Sprintf("%d:%d", major, minor)
}

func psName(_ *ps, p processes.Process) string {
	s := processes.Printable(p.Name)
	if p.Ended() {
		s += " <defunct>"
	}
	return s
}

func psCommand(s *ps, p processes.Process) string {
	if line := p.CommandLine(); line != "" {
		return line
	}
	if p.Ended() {
		return "[" + processes.Printable(p.Name) + "] <defunct>"
	}
	return "[" + psName(s, p) + "]"
}

// psClock is a duration as [[DD-]HH:]MM:SS, or always with hours.
func psClock(d time.Duration, hours bool) string {
	seconds := int(d / time.Second)
	days, h, m, sec := seconds/86400, seconds/3600%24, seconds/60%60, seconds%60
	switch {
	case days > 0:
		return fmt.Sprintf("%d-%02d:%02d:%02d", days, h, m, sec)
	case hours || h > 0:
		return fmt.Sprintf("%02d:%02d:%02d", h, m, sec)
	}
	return fmt.Sprintf("%02d:%02d", m, sec)
}

// psTimeBSD is the time it ran as minutes and seconds.
func psTimeBSD(_ *ps, p processes.Process) string {
	seconds := int(p.CPU() / time.Second)
	return fmt.Sprintf("%d:%02d", seconds/60, seconds%60)
}
