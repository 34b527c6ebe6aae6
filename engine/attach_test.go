package engine

import "testing"

// TestDetachKeys: what is typed goes on, but for the keys; how it is cut into
// reads changes nothing.
func TestDetachKeys(t *testing.T) {
	const keys = "\x10\x11" // ctrl-p ctrl-q
	for _, tc := range []struct {
		keys, typed, input string
		detach             bool
	}{
		{keys, "ls\n", "ls\n", false},
		{keys, "ls\n\x10\x11more", "ls\n", true},
		{keys, "a\x10b", "a\x10b", false},
		{keys, "\x10\x10\x11", "\x10", true},
		{keys, "\x11\x10", "\x11", false}, // the last is held back
		{"x", "abxc", "ab", true},
		{"", "\x10\x11", "\x10\x11", false},
		{"aab", "aaab", "a", true},
	} {
		for _, size := range []int{1, 2, len(tc.typed)} {
			s := &sender{keys: []byte(tc.keys)}
			var got string
			detach := false
			for rest := []byte(tc.typed); len(rest) > 0 && !detach; {
				n := min(size, len(rest))
				var input []byte
				input, detach = s.watch(rest[:n])
				got += string(input)
				rest = rest[n:]
			}
			if got != tc.input || detach != tc.detach {
				t.Errorf("keys %q, typed %q in pieces of %d: got %q, %v, want %q, %v", tc.keys, tc.typed, size, got, detach, tc.input, tc.detach)
			}
		}
	}
}
