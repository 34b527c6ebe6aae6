package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/fstest"
)

func sandbox() inside {
	files := map[string]string{
		"etc/passwd":                "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\n",
		"etc/group":                 "root:x:0:\naudio:x:29:app\napp:x:1000:\n",
		"proc/sys/kernel/hostname":  "4f2a81c0d3e9\n",
		"proc/sys/kernel/osrelease": "6.18.0\n",
		"proc/self/uid_map":         "         0       1000          1\n         1     100000      65536\n",
		"proc/self/gid_map":         "         0       1000          1\n         1     100000      65536\n",
		"proc/self/cgroup":          "0::/user.slice/nook\n",
		"proc/self/status": "Name:\thello\nUid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\nGroups:\t29 1000 77 \nNSpid:\t2\t1\n" +
			"CapEff:\t00000000a80425fb\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t2\n",
		"proc/self/mountinfo": `1 0 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/l/a\134:1:/l/b:/l/c,upperdir=/u,workdir=/w,volatile,userxattr
2 1 0:51 / /proc rw,nosuid - proc proc rw
3 1 0:52 / /sys ro,nosuid - sysfs sysfs rw
4 1 0:53 / /etc/hosts rw master:1 propagate_from:2 - ext4 /dev/sda1 ro
broken
`,
	}
	root := fstest.MapFS{}
	for name, text := range files {
		root[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return inside{root: root, pid: 1, env: make([]string, 4),
		interfaces: func() ([]link, error) {
			return []link{{"lo", true, []string{"127.0.0.1/8", "::1/128"}}, {"eth0", false, nil}}, nil
		}}
}

func TestHelloIsGolden(t *testing.T) {
	var out bytes.Buffer
	if code := hello(&out, sandbox()); code != 0 {
		t.Errorf("exit %d", code)
	}
	golden(t, "hello.txt", out.String())
	if n := strings.Count(out.String(), "\n"); n > 25 {
		t.Errorf("%d lines, more than a screen", n)
	}
}

func TestHelloWithoutProc(t *testing.T) {
	var out bytes.Buffer
	code := hello(&out, inside{root: fstest.MapFS{}, pid: 7, interfaces: func() ([]link, error) { return nil, errors.New("no") }})
	if code != 0 {
		t.Errorf("exit %d", code)
	}
	golden(t, "hello-noproc.txt", out.String())
}

func TestIDMapsInWords(t *testing.T) {
	for file, want := range map[string]string{
		"":                                    "",
		"0 0 4294967295\n":                    "user the same inside and outside",
		"5 0 1\n":                             "user 5 is 0 outside",
		"0 0 1\n1 2 2\nnonsense":              "user 0 is 0 outside, 1-2 are 2-3 outside",
		"0 9 1\n1 9 1\n2 9 1\n3 9 1\n4 9 1\n": "user 0 is 9 outside, 1 is 9 outside, 2 is 9 outside, 2 more",
	} {
		if got := idMap("user", file); got != want {
			t.Errorf("%q: got %q, want %q", file, got, want)
		}
	}
}

func TestRootInWords(t *testing.T) {
	for options, want := range map[string]string{
		"/ / rw - overlay o rw,lowerdir=/a:/nook,upperdir=/u":          "overlay of 1 read-only image layer, writable",
		"/ / ro - overlay o rw,lowerdir=/a:/nook,upperdir=/u":          "overlay of 1 read-only image layer, read-only",
		"/ / rw - overlay o rw,lowerdir+=/a:1,lowerdir+=/b,upperdir=u": "overlay of 1 read-only image layer, writable",
		"/x / rw - btrfs /dev/sda rw":                                  "btrfs, writable, a copy of the image's layers",
		"/ /proc rw - proc proc rw":                                    "",
	} {
		if got, _ := rootFS(parseMounts("1 0 0:1 " + options + "\n")); got != want {
			t.Errorf("%s: got %q, want %q", options, got, want)
		}
	}
}

func TestCgroupInWords(t *testing.T) {
	for file, want := range map[string]string{
		"": "", "0::/\n": "version 2, /", "3:cpu:/x\n1:name=systemd:/\n0::/y\n": "version 1, 2 hierarchies", "odd\n": "",
	} {
		if got := cgroupOf(file); got != want {
			t.Errorf("%q: got %q, want %q", file, got, want)
		}
	}
}
