package images

import (
	"errors"
	"strings"
	"testing"
)

func TestPlatformRank(t *testing.T) {
	for _, test := range []struct {
		want, better, worse string // worse "": worse doesn't run at all
	}{
		{"linux/amd64", "linux/amd64", "linux/amd64/v1"},
		{"linux/amd64", "linux/amd64/v1", "linux/amd64/v3"},
		{"linux/amd64", "linux/amd64", "windows/amd64"},
		{"linux/arm64/v8", "linux/arm64/v8", "linux/arm64"},
		{"linux/arm64", "linux/arm64/v8", "linux/amd64"},
		{"linux/arm/v7", "linux/arm/v7", "linux/arm/v6"},
		{"linux/arm", "linux/arm/v6", "linux/arm64"},
	} {
		var p [3]Platform
		for i, s := range []string{test.want, test.better, test.worse} {
			var err error
			if p[i], err = parsePlatform(s); err != nil {
				t.Fatal(err)
			}
		}
		if better, worse := p[0].rank(p[1]), p[0].rank(p[2]); better <= worse {
			t.Errorf("for %s: %s ranks %d, %s ranks %d", test.want, test.better, better, test.worse, worse)
		}
	}
}

func TestCheckPlatform(t *testing.T) {
	host := HostPlatform().Architecture
	for _, p := range []Platform{{}, {OS: "linux"}, {Architecture: host}, {OS: "linux", Architecture: host, Variant: "v2"}} {
		if err := CheckPlatform(&ImageConfig{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}); err != nil {
			t.Errorf("%+v: %v", p, err)
		}
	}
	err := CheckPlatform(&ImageConfig{OS: "windows", Architecture: host})
	wantError(t, err, "wrong platform: the image is for windows/"+host+", this host is linux/"+host, "nook runs Linux images")
	if !errors.Is(err, ErrPlatform) {
		t.Errorf("got %v, want %v", err, ErrPlatform)
	}
	err = CheckPlatform(&ImageConfig{OS: "linux", Architecture: "sparc64"})
	wantError(t, err, "the image is for linux/sparc64", "get the image for linux/"+host)
	for _, test := range []struct {
		image, host string
		want        bool
	}{
		{"386", "amd64", true}, {"amd64", "386", false}, {"arm", "arm64", true}, {"arm64", "amd64", false}, {"", "arm64", true},
	} {
		if got := runsOn(test.image, test.host); got != test.want {
			t.Errorf("%q on %s: got %v, want %v", test.image, test.host, got, test.want)
		}
	}
}

func TestParsePlatform(t *testing.T) {
	host := HostPlatform().String()
	for text, want := range map[string]string{
		"": host, "local": host, "linux/arm64": "linux/arm64", "arm64": "linux/arm64", "Linux/x86_64": "linux/amd64",
		"aarch64": "linux/arm64", "linux/arm/v7": "linux/arm/v7", "windows/amd64": "windows/amd64", "s390x": "linux/s390x",
	} {
		if p, err := ParsePlatform(text); err != nil || p.String() != want {
			t.Errorf("%q: %v, %v, want %s", text, p, err, want)
		}
	}
	for text, want := range map[string]string{
		"linux/amd64,linux/arm64": "is several", "linux/amd64,": "is several", "linux": "is not os/arch", "x": "is not os/arch",
		"a/b/c/d": "is not os/arch", "/": "is not os/arch", "linux/": "is not os/arch", "linux/a b": "is not os/arch",
	} {
		if p, err := ParsePlatform(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v, want %s", text, p, err, want)
		}
	}
}
