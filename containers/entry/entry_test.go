package entry

import (
	"slices"
	"testing"
)

func TestCandidates(t *testing.T) {
	for _, tc := range []struct {
		name, dir, path string
		want            []string
	}{
		{"sh", "/", "PATH=/usr/bin:/bin", []string{"/usr/bin/sh", "/bin/sh"}},
		{"/bin/sh", "/", "PATH=/usr/bin", []string{"/bin/sh"}},
		{"./sh", "/srv", "PATH=/usr/bin", []string{"./sh"}},
		{"a/b", "/srv", "PATH=/usr/bin", []string{"a/b"}},
		{"sh", "/srv", "PATH=:bin:/bin:", []string{"/srv/sh", "/srv/bin/sh", "/bin/sh", "/srv/sh"}},
		{"sh", "/srv", "PATH=", []string{"/srv/sh"}},
		{"", "/", "PATH=/usr/bin:/bin", nil}, // a directory is no program
	} {
		t.Run(tc.name+" "+tc.path, func(t *testing.T) {
			if got := Candidates(tc.name, tc.dir, []string{"A=b", tc.path, "XPATH=/no"}); !slices.Equal(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestWithHome(t *testing.T) {
	for _, tc := range []struct{ env, want []string }{
		{nil, []string{"HOME=/root"}},
		{[]string{"A=b"}, []string{"A=b", "HOME=/root"}},
		{[]string{"HOME=/x", "A=b"}, []string{"HOME=/x", "A=b"}},
		{[]string{"HOME="}, []string{"HOME="}},
		{[]string{"XHOME=/x"}, []string{"XHOME=/x", "HOME=/root"}},
	} {
		room := append(make([]string, 0, 8), tc.env...)
		if got := WithHome(room, "/root"); !slices.Equal(got, tc.want) {
			t.Errorf("WithHome(%v) = %v, want %v", tc.env, got, tc.want)
		}
		if full := room[:cap(room)]; full[len(tc.env)] != "" {
			t.Errorf("WithHome(%v) wrote into its argument's array", tc.env)
		}
	}
}
