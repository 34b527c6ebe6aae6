package confine

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nook/internal/raw"
	"nook/internal/testenv"
	"nook/namespaces"
)

// As started by a user, these tests are that user's; as started by root they
// are root's, whose user namespace holds all ids: Steps needs no more than a
// user namespace.

// confined runs a shell script after the steps and gives what it printed.
func confined(t *testing.T, c Confinement, script string) (string, *raw.Error) {
	t.Helper()
	testenv.Need(t, "userns", testenv.UserNS)
	out, w, err := os.Pipe()
	check(t, err)
	defer out.Close()
	report, reportW, err := os.Pipe()
	check(t, err)
	defer report.Close()
	go_, ready, err := os.Pipe()
	check(t, err)
	defer ready.Close()
	ids := idsFor(t, c)
	p := raw.New(raw.DefaultSize)
	defer p.Close()
	if ids.SelfMapped() {
		ids.MapSelf(p)
	} else {
		p.Call("close the writing end", unix.SYS_CLOSE, int(ready.Fd()))
		p.Wait("wait for the maps", int(go_.Fd()))
	}
	for fd := 1; fd <= 2; fd++ {
		p.Call("place the output", unix.SYS_DUP3, int(w.Fd()), fd, 0)
	}
	c.Steps(p)
	p.Exec("exec", "/bin/sh", p.Strings([]string{"sh", "-c", script}), p.Strings([]string{"PATH=/bin:/usr/bin"}))
	p.Fail("exec")
	pid, err := p.Start(unix.CLONE_NEWUSER, int(reportW.Fd()))
	w.Close()
	reportW.Close()
	go_.Close()
	check(t, err)
	if !ids.SelfMapped() {
		check(t, ids.WriteMaps(t.Context(), pid))
		_, err := ready.Write([]byte{1})
		check(t, err)
	}
	rep, refused, err := raw.ReadReport(report)
	check(t, err)
	text, err := io.ReadAll(out)
	check(t, err)
	var ws unix.WaitStatus
	for {
		if _, err := unix.Wait4(pid, &ws, 0, nil); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if refused {
		return string(text), p.Error(rep)
	}
	return string(text), nil
}

// idsFor gives a single id where that is what the confinement is for.
func idsFor(t *testing.T, c Confinement) namespaces.IDs {
	t.Helper()
	want := namespaces.Auto
	if c.OwnUserns {
		want = namespaces.Single
	}
	ids, err := namespaces.Detect(want)
	check(t, err)
	if ids.Mode == namespaces.Single && !c.OwnUserns {
		testenv.Need(t, "subids", func() error { return errors.New(ids.Why) })
	}
	return ids
}

// status reads the lines of /proc/self/status that a script printed.
func status(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		out[key] = strings.Join(strings.Fields(value), " ")
	}
	return out
}

func TestStepsConfine(t *testing.T) {
	const (
		all  = "00000000a80425fb"
		none = "0000000000000000"
	)
	emulating := Filter(true)
	for name, tc := range map[string]struct {
		c    Confinement
		want map[string]string
	}{
		"root": {
			Confinement{Caps: DefaultCaps, Filter: Filter(false)},
			map[string]string{"CapInh": none, "CapPrm": all, "CapEff": all, "CapBnd": all, "CapAmb": none,
				"Seccomp": "2", "NoNewPrivs": "0", "Uid": "0 0 0 0", "Gid": "0 0 0 0", "Groups": ""},
		},
		"a user": {
			Confinement{User: User{UID: 1000, GID: 50, Groups: []uint32{10, 20}}, Caps: DefaultCaps, Filter: Filter(false)},
			map[string]string{"CapInh": none, "CapPrm": none, "CapEff": none, "CapBnd": all, "CapAmb": none,
				"Seccomp": "2", "NoNewPrivs": "0", "Uid": "1000 1000 1000 1000", "Gid": "50 50 50 50", "Groups": "10 20"},
		},
		"a user of group 0": {
			Confinement{User: User{UID: 7}, Caps: DefaultCaps, Filter: Filter(false)},
			map[string]string{"CapPrm": none, "CapEff": none, "Uid": "7 7 7 7", "Gid": "0 0 0 0", "Groups": ""},
		},
		"root without capabilities, with no_new_privs": {
			Confinement{Filter: Filter(false), NoNewPrivs: true},
			map[string]string{"CapInh": none, "CapPrm": none, "CapEff": none, "CapBnd": none, "CapAmb": none,
				"Seccomp": "2", "NoNewPrivs": "1"},
		},
		"one capability above 31": {
			Confinement{Caps: 1<<37 | 1<<CapChown, Filter: Filter(false)},
			map[string]string{"CapPrm": "0000002000000001", "CapEff": "0000002000000001", "CapBnd": "0000002000000001"},
		},
		"without a filter": {
			Confinement{Caps: DefaultCaps},
			map[string]string{"CapEff": all},
		},
		"a user where one id exists": {
			Confinement{User: User{UID: 1000, GID: 50, Groups: []uint32{10}}, Caps: DefaultCaps, Filter: emulating, OwnUserns: true},
			map[string]string{"CapInh": none, "CapPrm": none, "CapEff": none, "CapBnd": all, "CapAmb": none,
				"Seccomp": "2", "Uid": "1000 1000 1000 1000", "Gid": "50 50 50 50"},
		},
		"uid 0 with a group where one id exists": {
			Confinement{User: User{GID: 50}, Caps: DefaultCaps, Filter: emulating, OwnUserns: true},
			map[string]string{"CapPrm": all, "CapEff": all, "CapBnd": all, "Uid": "0 0 0 0", "Gid": "50 50 50 50"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := confined(t, tc.c, "exec cat /proc/self/status")
			if err != nil {
				t.Fatal(err)
			}
			got := status(text)
			for key, want := range tc.want {
				if got[key] != want {
					t.Errorf("%s: %q, want %q", key, got[key], want)
				}
			}
		})
	}
}

func TestStepsKeepOutOfNewNamespaces(t *testing.T) {
	if _, err := exec.LookPath("unshare"); err != nil {
		t.Fatal(err) // util-linux is essential in Debian
	}
	for _, single := range []bool{false, true} {
		c := Confinement{Caps: DefaultCaps, Filter: Filter(single), OwnUserns: false}
		if single {
			c.OwnUserns, c.User = true, User{UID: 5, GID: 5}
		}
		text, err := confined(t, c, "unshare -U true 2>&1; echo $?; unshare -m true 2>&1; echo $?")
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(text, "Operation not permitted"); got != 2 {
			t.Errorf("single %v: %q, want both refused", single, text)
		}
	}
}

// TestStepsJoinANewKeyring: a key of the session that started this is not in
// the container's (keyrings(7)).
func TestStepsJoinANewKeyring(t *testing.T) {
	runtime.LockOSThread() // the session keyring is the thread's, which is lost with this test
	if _, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0); err != nil {
		t.Fatalf("join a session keyring: %v", err)
	}
	const key = "nook-test-key"
	if _, err := unix.AddKey("user", key, []byte("secret"), unix.KEY_SPEC_SESSION_KEYRING); err != nil {
		t.Fatalf("add a key: %v", err)
	}
	search := func(steps func(p *raw.Program)) error {
		p := raw.New(raw.DefaultSize)
		defer p.Close()
		steps(p)
		session := unix.KEY_SPEC_SESSION_KEYRING
		p.Call("search", unix.SYS_KEYCTL, unix.KEYCTL_SEARCH, session, "user", key, 0)
		p.Call("end", unix.SYS_EXIT_GROUP, 0)
		return run(t, p)
	}
	if err := search(func(*raw.Program) {}); err != nil {
		t.Fatalf("without the steps: %v, want the key: else this test shows nothing", err)
	}
	if err := search(func(p *raw.Program) { Confinement{Caps: DefaultCaps}.keyring(p) }); !errors.Is(err, unix.ENOKEY) {
		t.Errorf("after the steps: %v, want ENOKEY", err)
	}
}

// run starts a program and gives the error of its step.
func run(t *testing.T, p *raw.Program) error {
	t.Helper()
	report, w, err := os.Pipe()
	check(t, err)
	defer report.Close()
	pid, err := p.Start(0, int(w.Fd()))
	w.Close()
	check(t, err)
	rep, refused, err := raw.ReadReport(report)
	check(t, err)
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if refused {
		return p.Error(rep)
	}
	return nil
}
