package engine

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nook/internal/hint"
)

// tmpfsOptions reads docker's --tmpfs options: those of tmpfs(5) and the
// flags of mount(8). What the kernel would refuse is refused here, where it
// can be said which option it is.
func tmpfsOptions(options string) (flags uintptr, data string, err error) {
	flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	known := map[string]struct {
		set, clear uintptr
	}{
		"ro": {set: unix.MS_RDONLY}, "rw": {clear: unix.MS_RDONLY},
		"nosuid": {set: unix.MS_NOSUID}, "suid": {clear: unix.MS_NOSUID},
		"nodev": {set: unix.MS_NODEV}, "dev": {clear: unix.MS_NODEV},
		"noexec": {set: unix.MS_NOEXEC}, "exec": {clear: unix.MS_NOEXEC},
		"noatime": {set: unix.MS_NOATIME}, "nodiratime": {set: unix.MS_NODIRATIME},
		"strictatime": {set: unix.MS_STRICTATIME}, "relatime": {set: unix.MS_RELATIME},
		"sync": {set: unix.MS_SYNCHRONOUS}, "defaults": {},
	}
	var rest []string
	for o := range strings.SplitSeq(options, ",") {
		if o == "" {
			continue
		}
		if k, ok := known[o]; ok {
			flags = flags&^k.clear | k.set
			continue
		}
		if err := tmpfsValue(o); err != nil {
			return 0, "", err
		}
		rest = append(rest, o)
	}
	if !strings.Contains(","+strings.Join(rest, ","), ",mode=") {
		rest = append(rest, "mode=1777")
	}
	return flags, strings.Join(rest, ","), nil
}

// tmpfsValue checks an option of tmpfs(5).
func tmpfsValue(option string) error {
	key, value, _ := strings.Cut(option, "=")
	const (
		number    = "a number, or one with k, m or g behind it"
		octal     = "an octal number of at most 7777"
		permBits  = 12
		idBits    = 32
		countBits = 63
	)
	var err error
	want := number
	switch key {
	case "size":
		if share, percent := strings.CutSuffix(value, "%"); percent {
			value = share
		}
		want += ", or a share of the memory as 50%"
		err = tmpfsNumber(value, countBits)
	case "nr_blocks", "nr_inodes":
		err = tmpfsNumber(value, countBits)
	case "mode":
		want = octal
		_, err = strconv.ParseUint(value, 8, permBits)
	case "uid", "gid":
		want = "a number"
		_, err = strconv.ParseUint(value, 10, idBits)
	default:
		return hint.Errorf("it takes size=, mode=, uid=, gid=, nr_inodes=, nr_blocks=, ro, exec, suid, dev",
			"--tmpfs option %q is not known", option)
	}
	if err != nil {
		return hint.Wrap(fmt.Errorf("--tmpfs option %q: %w", option, unix.EINVAL), key+"= takes "+want)
	}
	return nil
}

// tmpfsNumber checks a number as the kernel's memparse() reads it.
func tmpfsNumber(value string, bits int) error {
	if n := len(value); n > 1 && strings.ContainsAny(value[n-1:], "kmgtKMGT") {
		value = value[:n-1]
	}
	if strings.Trim(value, "0123456789") != "" {
		return errors.New("not a number")
	}
	_, err := strconv.ParseUint(value, 10, bits)
	return err
}
