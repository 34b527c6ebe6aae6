package genfilter

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTreeJumpsAnyDistance compiles spans that need far more than the 255
// instructions which a conditional jump reaches.
func TestTreeJumpsAnyDistance(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var spans []span
	next := uint32(0)
	for range 330 {
		hi := next + rnd.Uint32N(3)
		verdict := ret(unix.SECCOMP_RET_ERRNO | rnd.Uint32N(40))
		if rnd.Uint32N(3) == 0 {
			verdict = &node{
				off: lo(uint(rnd.Uint32N(6))), mask: 0xffffffff, op: unix.BPF_JEQ, k: rnd.Uint32N(50),
				yes: ret(rnd.Uint32N(9)), no: verdict,
			}
		}
		spans = append(spans, span{next, hi, verdict})
		next = hi + 1
	}
	var a assembler
	a.load(offNumber, a.tree(cover(spans)))
	prog, err := a.program()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(listing(prog), "goto") || len(prog) < 600 {
		t.Fatalf("%d instructions: too few for this test", len(prog))
	}
	for _, s := range spans {
		for nr := s.lo; nr <= s.hi; nr++ {
			for v := range uint64(50) {
				want := s.verdict
				if want.yes != nil {
					if want.no, want = s.verdict.no, s.verdict.no; uint32(v) == s.verdict.k {
						want = s.verdict.yes
					}
				}
				if got := run(t, prog, data(1, nr, [6]uint64{v, v, v, v, v, v})); got != want.value {
					t.Fatalf("number %d, argument %d: got %#x, want %#x", nr, v, got, want.value)
				}
			}
		}
	}
}

func listing(prog []unix.SockFilter) string {
	var b strings.Builder
	for i, in := range prog {
		fmt.Fprintln(&b, i, Text(i, in))
	}
	return b.String()
}

func TestParseRefusesWhatItCantResolve(t *testing.T) {
	const head = `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"syscalls":[`
	for _, tc := range []struct{ name, rule, want string }{
		{"unknown field", `{"names":["read"],"action":"SCMP_ACT_ALLOW","when":"noon"}`, "unknown field"},
		{"errno on newer kernels only", `{"names":["read"],"action":"SCMP_ACT_ERRNO","includes":{"minKernel":"6.0"}}`, "does not allow"},
		{"errno on older kernels only", `{"names":["read"],"action":"SCMP_ACT_ERRNO","excludes":{"minKernel":"6.0"}}`, "does not allow"},
		{"not a version", `{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"six"}}`, "not a version"},
		{"not JSON", `{`, "parse seccomp profile"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse([]byte(head+tc.rule+"]}"), someCaps)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func TestParseKeepsRulesOfEveryKernelFromTheOldest(t *testing.T) {
	const head = `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"syscalls":[`
	for _, tc := range []struct {
		rule string
		kept bool
	}{
		{`{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}}`, true},
		{`{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"5.11"}}`, true},
		{`{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"5.12"}}`, false},
		{`{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"6.1"}}`, false},
		{`{"names":["read"],"action":"SCMP_ACT_ALLOW","excludes":{"minKernel":"6.1"}}`, false},
		{`{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_MKNOD"]}}`, true},
		{`{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_MKNOD","CAP_BPF"]}}`, false},
		{`{"names":["read"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_MKNOD"]}}`, false},
		{`{"names":["read"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_BPF"]}}`, true},
	} {
		p, err := Parse([]byte(head+tc.rule+"]}"), someCaps)
		if err != nil || (len(p.Syscalls) == 1) != tc.kept {
			t.Errorf("%s: %+v, %v; want kept %v", tc.rule, p, err, tc.kept)
		}
	}
}

func TestDecideRefusesWhatItCantCompile(t *testing.T) {
	eq := condition{Op: "SCMP_CMP_EQ"}
	for name, rules := range map[string][]rule{
		"two conditions":  {{Action: "SCMP_ACT_ALLOW", Args: []condition{eq, eq}}},
		"other actions":   {{Action: "SCMP_ACT_ALLOW"}, {Action: "SCMP_ACT_ERRNO"}},
		"unknown action":  {{Action: "SCMP_ACT_NOTIFY"}},
		"unknown compare": {{Action: "SCMP_ACT_ALLOW", Args: []condition{{Op: "SCMP_CMP_NE"}}}},
		"wide value":      {{Action: "SCMP_ACT_ALLOW", Args: []condition{{Op: "SCMP_CMP_EQ", Value: 1 << 32}}}},
	} {
		if n, err := decide(rules, true, 1); err == nil {
			t.Errorf("%s: got %+v, want an error", name, n)
		}
	}
}

// TestEmulationFakesOnlyAllowedCalls: a call that the profile refuses must not
// become a success.
func TestEmulationFakesOnlyAllowedCalls(t *testing.T) {
	table := map[string]uint32{"chown": 1}
	allowed := map[uint32]*node{1: ret(unix.SECCOMP_RET_ALLOW)}
	if err := emulateOwners(allowed, table); err != nil || !allowed[1].equal(ret(fakeSuccess)) {
		t.Errorf("allowed chown: %+v, %v; want fake success", allowed[1], err)
	}
	for name, verdicts := range map[string]map[uint32]*node{
		"refused":      {1: ret(unix.SECCOMP_RET_ERRNO | 1)},
		"without rule": {},
	} {
		if err := emulateOwners(verdicts, table); err == nil {
			t.Errorf("chown %s by the profile: emulated", name)
		}
	}
}

// TestBranchReachesItsTargets puts both targets at all distances around the 255
// that an offset of 8 bits reaches: returns, which are copied, and other code,
// which is jumped to.
func TestBranchReachesItsTargets(t *testing.T) {
	for gap := range 300 {
		for _, plain := range []bool{true, false} {
			for _, swap := range []bool{true, false} {
				var a assembler
				target := func(value uint32) label {
					at := a.ret(value)
					if !plain {
						at = a.load(offArch, at)
					}
					return at
				}
				yes := target(1)
				no := target(2)
				if swap {
					yes, no = no, yes
				}
				for range gap {
					a.ret(3)
				}
				a.load(offNumber, a.branch(unix.BPF_JEQ, 7, yes, no))
				prog, err := a.program()
				if err != nil {
					t.Fatal(err)
				}
				want := [2]uint32{1, 2}
				if swap {
					want = [2]uint32{2, 1}
				}
				for i, nr := range []uint32{7, 8} {
					if got := run(t, prog, data(0, nr, [6]uint64{})); got != want[i] {
						t.Fatalf("gap %d, returns %v, swapped %v, number %d: got %d, want %d\n%s",
							gap, plain, swap, nr, got, want[i], listing(prog))
					}
				}
			}
		}
	}
}

func TestLoadReachesWhatIsNotNextToIt(t *testing.T) {
	var a assembler
	next := a.ret(1)
	a.ret(3)
	a.load(offNumber, next)
	prog, err := a.program()
	if err != nil {
		t.Fatal(err)
	}
	if got := run(t, prog, data(0, 0, [6]uint64{})); got != 1 {
		t.Errorf("got %d, want 1\n%s", got, listing(prog))
	}
}
