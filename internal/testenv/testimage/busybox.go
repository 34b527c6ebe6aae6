package testimage

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// busyboxPath is the file of Debian's busybox-static; testenv.BusyboxStatic is
// the probe to ask first.
const busyboxPath = "/bin/busybox"

// Busybox is a one-layer image of this machine's busybox: its applets as
// symbolic links in /bin, a passwd and group file with the users root, daemon
// and alice, /tmp with mode 1777.
func Busybox() (Image, error) {
	binary, err := os.ReadFile(busyboxPath)
	if err != nil {
		return Image{}, err
	}
	list, err := exec.Command(busyboxPath, "--list").Output()
	if err != nil {
		return Image{}, fmt.Errorf("%s --list: %w", busyboxPath, err)
	}
	l := []Entry{
		Dir("bin", 0o755), File("bin/busybox", 0o755, string(binary)),
		Dir("dev", 0o755), Dir("proc", 0o755), Dir("sys", 0o755), Dir("run", 0o755),
		Dir("tmp", 0o1777), Dir("root", 0o700), Dir("var", 0o755), Dir("home", 0o755),
		Dir("home/alice", 0o755).Owned(1000, 1000),
		Dir("etc", 0o755),
		File("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/false\nalice:x:1000:1000:Alice:/home/alice:/bin/sh\n"),
		File("etc/group", 0o644, "root:x:0:\ndaemon:x:1:\nalice:x:1000:\nstaff:x:50:alice\n"),
	}
	for applet := range strings.FieldsSeq(string(list)) {
		if applet != "busybox" {
			l = append(l, Symlink("bin/"+applet, "busybox"))
		}
	}
	return Image{
		Name:   "busybox:latest",
		Layers: []Layer{{Entries: l}},
		Config: Config{
			Cmd: []string{"sh"},
			Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		},
	}, nil
}
