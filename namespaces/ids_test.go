package namespaces

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nook/internal/hint"
)

func TestMapRoundTrip(t *testing.T) {
	for _, text := range []string{"", "0 1000 1\n", "0 1000 1\n1 100000 65536\n", "0 0 4294967295\n"} {
		ranges, err := ParseMap(text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if got := FormatMap(ranges); got != text {
			t.Errorf("%q came back as %q", text, got)
		}
	}
	// As /proc shows it.
	got, err := ParseMap("         0       1000          1\n         1     100000      65536\n")
	if want := []Range{{0, 1000, 1}, {1, 100000, 65536}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
}

func TestParseMapRefuses(t *testing.T) {
	for _, text := range []string{"0 0\n", "0 0 1 1\n", "a 0 1\n", "0 0 4294967296\n", "-1 0 1\n", "0 0 1\n\n", "0x0 0 1\n"} {
		if got, err := ParseMap(text); err == nil {
			t.Errorf("%q: %v, want an error", text, got)
		}
	}
}

func TestSubids(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want []Range
	}{
		"by name":            {"bob:1:1\nalice:100000:65536\n", []Range{{1, 100000, 65536}}},
		"by number":          {"1000:200000:65536\n", []Range{{1, 200000, 65536}}},
		"two lines":          {"alice:100000:10\n1000:500000:20\n", []Range{{1, 100000, 10}, {11, 500000, 20}}},
		"comments":           {"# alice:1:1\n\nalice:100000:65536\n", []Range{{1, 100000, 65536}}},
		"empty range":        {"alice:100000:0\nalice:7:1\n", []Range{{1, 7, 1}}},
		"negative":           {"alice:-5:10\nalice:7:1\n", []Range{{1, 7, 1}}},
		"beyond the ids":     {"alice:4294967290:10\nalice:7:1\n", []Range{{1, 7, 1}}},
		"more than all ids":  {"alice:1:9223372036854775807\nalice:7:1\n", []Range{{1, 7, 1}}},
		"together too many":  {"alice:1:4294967290\nalice:2:100\nalice:3:2\n", []Range{{1, 1, 4294967290}, {4294967291, 3, 2}}},
		"a prefix of a name": {"alice2:1:1\nali:2:2\n", nil},
		"nobody's":           {"", nil},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "subuid")
			if err := os.WriteFile(file, []byte(tc.text), 0o644); err != nil {
				t.Fatal(err)
			}
			got, err := subids(file, "alice", 1000)
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
			if tc.want == nil && (err == nil || !strings.Contains(hint.Of(err), "usermod --add-subuids")) {
				t.Errorf("got %v with hint %q, want the way to get a range", err, hint.Of(err))
			}
		})
	}
	if _, err := subids("/no/such/file", "", 1000); err == nil || !strings.Contains(err.Error(), "uid 1000") {
		t.Errorf("without a file and a name: %v, want an error that tells the uid", err)
	}
}

func TestDetectTakesModes(t *testing.T) {
	if _, err := Detect("nonsense"); !errors.Is(err, ErrMode) || hint.Of(err) == "" {
		t.Errorf("got %v, want ErrMode with a hint", err)
	}
	if _, err := Detect(Root); !errors.Is(err, ErrMode) {
		t.Errorf("root is not asked for: %v", err)
	}
	ids, err := Detect(Single)
	if err != nil || !ids.SelfMapped() || ids.Mode != Single {
		t.Fatalf("single: %+v, %v", ids, err)
	}
	if want := []Range{{0, uint32(os.Geteuid()), 1}}; !slices.Equal(ids.UIDs, want) {
		t.Errorf("single: %v, want %v", ids.UIDs, want)
	}
	for _, mode := range []Mode{Mapped, Root} {
		if (IDs{Mode: mode}).SelfMapped() {
			t.Errorf("%s maps itself", mode)
		}
	}
}

func TestExplain(t *testing.T) {
	for _, tc := range []struct {
		err        error
		text, hint string
	}{
		{unix.ENOSPC, "limit", "sysctl"},
		{unix.EUSERS, "limit", "sysctl"},
		{unix.EPERM, "user namespace", "userns"},
		{unix.EACCES, "user namespace", "userns"},
		{unix.EAGAIN, "process", "ulimit -u"},
		{unix.EINVAL, "namespaces", ""},
	} {
		err := Explain(tc.err)
		if !errors.Is(err, tc.err) || !strings.Contains(err.Error(), tc.text) || !strings.Contains(hint.Of(err), tc.hint) {
			t.Errorf("%v: %q with hint %q; want %q and %q", tc.err, err, hint.Of(err), tc.text, tc.hint)
		}
	}
	if Explain(nil) != nil {
		t.Error("of nil: an error")
	}
}
