package images

import (
	_ "crypto/sha512" // the oracle takes digests whose hash is linked in
	"strings"
	"testing"

	"github.com/distribution/reference"
)

const someDigest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParseReference(t *testing.T) {
	for _, test := range []struct{ in, full, familiar, repository string }{
		{"busybox", "docker.io/library/busybox:latest", "busybox", "busybox"},
		{"busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36", "busybox"},
		{"library/busybox", "docker.io/library/busybox:latest", "busybox", "busybox"},
		{"docker.io/busybox", "docker.io/library/busybox:latest", "busybox", "busybox"},
		{"index.docker.io/library/busybox", "docker.io/library/busybox:latest", "busybox", "busybox"},
		{"user/app", "docker.io/user/app:latest", "user/app", "user/app"},
		{"a/b/c:v", "docker.io/a/b/c:v", "a/b/c:v", "a/b/c"},
		{"library/a/b", "docker.io/library/a/b:latest", "library/a/b", "library/a/b"},
		{"localhost/x", "localhost/x:latest", "localhost/x", "localhost/x"},
		{"localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x", "localhost:5000/x"},
		{"localhost:5000", "docker.io/library/localhost:5000", "localhost:5000", "localhost"},
		{"docker.io/localhost/x", "docker.io/localhost/x:latest", "docker.io/localhost/x", "docker.io/localhost/x"},
		{"127.0.0.1:5000/x/y:z", "127.0.0.1:5000/x/y:z", "127.0.0.1:5000/x/y:z", "127.0.0.1:5000/x/y"},
		{"[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x", "[::1]:5000/x"},
		{"Host/x", "Host/x:latest", "Host/x", "Host/x"},
		{"quay.io/a__b/c---d.e_f", "quay.io/a__b/c---d.e_f:latest", "quay.io/a__b/c---d.e_f", "quay.io/a__b/c---d.e_f"},
		{"x:_A.b-C", "docker.io/library/x:_A.b-C", "x:_A.b-C", "x"},
		{"busybox@" + someDigest, "docker.io/library/busybox@" + someDigest, "busybox@" + someDigest, "busybox"},
		{"busybox:1@" + someDigest, "docker.io/library/busybox:1@" + someDigest, "busybox:1@" + someDigest, "busybox"},
	} {
		t.Run(test.in, func(t *testing.T) {
			ref, err := ParseReference(test.in)
			if err != nil {
				t.Fatal(err)
			}
			if got := ref.String(); got != test.full {
				t.Errorf("String: got %q, want %q", got, test.full)
			}
			if got := ref.Familiar(); got != test.familiar {
				t.Errorf("Familiar: got %q, want %q", got, test.familiar)
			}
			if got := ref.FamiliarRepository(); got != test.repository {
				t.Errorf("FamiliarRepository: got %q, want %q", got, test.repository)
			}
		})
	}
}

func TestParseReferenceRefuses(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"", `image name "": is empty`},
		{"BusyBox", `image name "BusyBox": upper case letters are not allowed in "BusyBox"`},
		{"localhost:5000/X", `upper case letters`},
		{"busy box", `" " is not allowed in "busy box"`},
		{"büsybox", `"ü" is not allowed in "büsybox"`},
		{"busybox:", `has an empty tag`},
		{"busybox:-x", `the tag "-x" begins with "-"`},
		{"busybox:ä", `"ä" is not allowed in the tag "ä"`},
		{"busybox:" + strings.Repeat("x", 129), `longer than 128`},
		{strings.Repeat("x", 256), `longer than 255`},
		{"-x", `begins, ends or doubles a separator`},
		{"x_", `begins, ends or doubles a separator`},
		{"a..b", `begins, ends or doubles a separator`},
		{"a___b", `begins, ends or doubles a separator`},
		{"a._b", `begins, ends or doubles a separator`},
		{"a//b", `empty element`},
		{"a/", `empty element`},
		{"/a", `empty element`},
		{"a.b:x/c", `"x" is not a port`},
		{"-a.b/c", `"-a.b" is not a registry`},
		{"[::g]/c", `is not an IPv6 address`},
		{"x@sha256:abc", `sha256 has 64 lower case hexadecimal digits`},
		{"x@md5:0123456789abcdef0123456789abcdef", `is not a digest`},
		{"x@", `is not a digest`},
		{"x@" + strings.ToUpper(someDigest), `is not a digest`},
		{someDigest[7:], `64 hexadecimal digits are an image ID`},
		{"https://example.com/x", `is a URL; the name alone is example.com/x`},
	} {
		t.Run(test.in, func(t *testing.T) {
			ref, err := ParseReference(test.in)
			if err == nil {
				t.Fatalf("got %v, want an error", ref)
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %q, want %q in it", err, test.want)
			}
		})
	}
}

// FuzzReference holds the grammar written here against docker's own.
func FuzzReference(f *testing.F) {
	for _, seed := range []string{
		"busybox", "a/b", "localhost:5000/x:y", "Host/x", "x@" + someDigest, "x:1@" + someDigest, "[::1]:5/x",
		"a_b.c/foo", "docker.io/library/library/x", "a.-b/c", "x@sha512:" + strings.Repeat("0", 128), "index.docker.io/x",
		"docker.io/localhost/x", "docker.io/" + someDigest[7:], "A.b:1/c:d", "x:y/z", "a--b", "a-", "x\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseReference(s)
		named, oracleErr := reference.ParseNormalizedNamed(s)
		if oracleErr == nil && reference.Domain(named) == "" {
			// docker's library takes a_b.c/x for a path without a registry; no
			// registry can be asked for it, and nook refuses it.
			oracleErr = reference.ErrReferenceInvalidFormat
		}
		if (err == nil) != (oracleErr == nil) {
			t.Fatalf("%q: got error %v, docker's library %v", s, err, oracleErr)
		}
		if err != nil {
			return
		}
		named = reference.TagNameOnly(named)
		if got.String() != named.String() {
			t.Errorf("%q: got %q, docker's library %q", s, got, named)
		}
		if got.Registry != reference.Domain(named) || got.Path != reference.Path(named) {
			t.Errorf("%q: got %q and %q, docker's library %q and %q", s, got.Registry, got.Path,
				reference.Domain(named), reference.Path(named))
		}
		for _, form := range []string{got.String(), got.Familiar(), got.FamiliarTagged()} {
			if again, err := ParseReference(form); err != nil || again != got {
				t.Errorf("%q: its form %q reads as %v, %v", s, form, again, err)
			}
		}
		// Where docker's short form means another image, nook has a longer one.
		if short := reference.FamiliarString(named); got.FamiliarTagged() != short && !isHex(strings.TrimPrefix(got.Path, officialPrefix), 64) {
			if again, err := ParseReference(short); err == nil && again == got {
				t.Errorf("%q: got %q, docker's library %q", s, got.FamiliarTagged(), short)
			}
		}
	})
}
