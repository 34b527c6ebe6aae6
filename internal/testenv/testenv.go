// Package testenv is what the tests know about the machine they run on: probes
// that try a thing before a test leans on it, and the unprivileged user that
// tests run as when root started them.
//
//	func TestMain(m *testing.M) { testenv.RunAsTestUser(m) }
//
//	func TestMount(t *testing.T) {
//		testenv.Need(t, "overlay", testenv.Overlay)
//		…
//	}
//
// A skip comes only from a probe that really tried the thing, and says what the
// probe saw. NOOK_MUST_WORK, a comma list of probe names, turns the skips of
// those names into failures: what CI's machine is known to have can't drop out
// of its tests unseen. CI's list stands in .ci/run.
//
// The package is for tests alone: no code of nook imports it.
package testenv

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

// MustWorkVariable names the environment variable with the comma list of the
// probes that have to succeed; "all" stands for every one.
const MustWorkVariable = "NOOK_MUST_WORK"

// Need skips the test with the reason that probe gives, or ends it as failed
// when NOOK_MUST_WORK has name in its list. A nil from probe lets it go on.
func Need(t testing.TB, name string, probe func() error) {
	t.Helper()
	err := probe()
	if err == nil {
		return
	}
	if MustWork(name) {
		t.Fatalf("%s does not work here, and %s lists it: %v", name, MustWorkVariable, err)
	}
	t.Skipf("%s does not work here: %v", name, err)
}

// Long (long) is the probe of a run that takes its time: go test without
// -short.
func Long() error {
	if testing.Short() {
		return errors.New("-short leaves it out")
	}
	return nil
}

// MustWork says whether NOOK_MUST_WORK has name in its list.
func MustWork(name string) bool {
	list := strings.Split(os.Getenv(MustWorkVariable), ",")
	return slices.Contains(list, name) || slices.Contains(list, "all")
}
