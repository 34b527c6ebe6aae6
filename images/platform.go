package images

import (
	"os"
	"runtime"
	"slices"
	"strings"

	"nook/internal/hint"
)

// HostPlatform is what this nook was built for.
func HostPlatform() Platform {
	p := Platform{OS: "linux", Architecture: runtime.GOARCH}
	if p.Architecture == "arm64" {
		p.Variant = "v8"
	}
	return p
}

// String is os/arch[/variant].
func (p Platform) String() string {
	os, arch := p.OS, p.Architecture
	if os == "" {
		os = "unknown"
	}
	if arch == "" {
		arch = "unknown"
	}
	if p.Variant == "" || arch == "arm64" && p.Variant == "v8" {
		return os + "/" + arch
	}
	return os + "/" + arch + "/" + p.Variant
}

// ParsePlatform reads os/arch[/variant], or an architecture alone; "" and
// "local" are the host's.
func ParsePlatform(s string) (Platform, error) { return parsePlatform(s) }

func parsePlatform(s string) (Platform, error) {
	if s == "" || s == "local" {
		return HostPlatform(), nil
	}
	if strings.Contains(s, ",") {
		return Platform{}, hint.Errorf("one image is for one platform: do it once for each", "platform %q is several", s)
	}
	parts := strings.Split(strings.ToLower(s), "/")
	if len(parts) == 1 && slices.Contains(architectures(), machine(parts[0])) {
		parts = []string{"linux", parts[0]}
	}
	if len(parts) < 2 || len(parts) > 3 || slices.ContainsFunc(parts, func(part string) bool { return !platformWord(part) }) {
		return Platform{}, hint.Errorf("write it like linux/arm64 or linux/arm/v7", "platform %q is not os/arch[/variant]", s)
	}
	p := Platform{OS: parts[0], Architecture: machine(parts[1])}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p, nil
}

// platformWord is what containerd's parser of platforms takes: letters, digits
// and "_.-".
func platformWord(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_.-") == ""
}

// machine is the architecture by the name that images have for it (Go's), where
// it is called as uname(1) or Debian call it.
func machine(s string) string {
	switch s {
	case "x86_64", "x86-64":
		return "amd64"
	case "aarch64":
		return "arm64"
	case "i386", "i686":
		return "386"
	}
	return s
}

// architectures are those that name a platform alone.
func architectures() []string {
	return []string{"amd64", "arm64", "386", "arm", "loong64", "mips64le", "ppc64le", "riscv64", "s390x"}
}

// rank says how well an image for other does where p is wanted: 0 not at all.
func (p Platform) rank(other Platform) int {
	if other.OS != p.OS || other.Architecture != p.Architecture {
		return 0
	}
	switch {
	case other.Variant == p.Variant:
		return 3
	case other.Variant == "", p.Architecture == "arm64" && p.Variant == "" && other.Variant == "v8":
		return 2
	case p.Variant == "" && (p.Architecture != "amd64" || other.Variant == "v1"):
		return 1
	}
	// amd64/v3 ends in an illegal instruction on a host that is only amd64.
	return 0
}

func noPlatform(want Platform, there []Platform) error {
	var names []string
	for _, p := range there {
		if name := p.String(); p.OS != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	only := ""
	if len(names) > 0 {
		only = ", only for " + strings.Join(names, ", ")
	}
	return hint.Errorf("get the image for "+want.String()+", for example with skopeo copy --override-arch "+want.Architecture,
		"%w: there is no image for %s in it%s", ErrPlatform, want, only)
}

// CheckFor returns ErrPlatform when an image of the store is for another
// platform than the one that is wanted; "": any will do.
func (s *Store) CheckFor(img Image, platform string) error {
	if platform == "" {
		return nil
	}
	want, err := parsePlatform(platform)
	if err != nil {
		return err
	}
	cfg, err := s.Config(img)
	if err != nil {
		return err
	}
	if there := cfg.Platform(); want.rank(there) == 0 {
		return noPlatform(want, []Platform{there})
	}
	return nil
}

// CheckPlatform returns ErrPlatform when the image can't run here: another
// operating system, or another processor that no emulator is registered for.
func CheckPlatform(cfg *ImageConfig) error {
	image, host := cfg.Platform(), HostPlatform()
	if image.OS != "" && image.OS != host.OS {
		return hint.Errorf("nook runs Linux images; get one for "+host.String(),
			"%w: the image is for %s, this host is %s", ErrPlatform, image, host)
	}
	if runsOn(image.Architecture, host.Architecture) || emulated(image.Architecture) {
		return nil
	}
	return hint.Errorf("get the image for "+host.String()+", or install qemu-user-static, which registers emulators",
		"%w: the image is for %s, this host is %s", ErrPlatform, image, host)
}

// runsOn knows what the processor runs by itself. An image that doesn't say
// what it is for is let through: its entrypoint will tell.
func runsOn(image, host string) bool {
	switch {
	case image == "" || image == host:
		return true
	case host == "amd64":
		return image == "386"
	case host == "arm64":
		return image == "arm"
	}
	return false
}

// emulated asks the kernel's binfmt_misc for the names that qemu-user-static
// registers. It is asked only when the image is a foreign one.
func emulated(arch string) bool {
	machine := map[string]string{
		"amd64": "x86_64", "386": "i386", "arm64": "aarch64", "arm": "arm", "ppc64le": "ppc64le",
		"s390x": "s390x", "riscv64": "riscv64", "loong64": "loongarch64", "mips64le": "mips64el",
	}[arch]
	if machine == "" {
		return false
	}
	_, err := os.Lstat("/proc/sys/fs/binfmt_misc/qemu-" + machine)
	return err == nil
}

// ForPlatform tells whether an image is for os/arch[/variant].
func ForPlatform(cfg *ImageConfig, platform string) bool {
	want, err := parsePlatform(platform)
	return err == nil && want.rank(cfg.Platform()) > 0
}
