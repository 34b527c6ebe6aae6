package integration

import (
	"flag"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"

	"nook/internal/testenv"
)

// noRegistries is the registries configuration of every test: names without a
// registry lead nowhere, and no test talks to the world.
const noRegistries = "[[registry]]\nprefix = \"*.io\"\nblocked = true\n"

// cmdRegistry starts Debian's docker-registry for the rest of the script:
//
//	registry [-tls] [-auth] VAR
//
// VAR becomes its HOST:PORT, VAR_CA the file of its certificate, VAR_DIR the
// directory with what it keeps.
func cmdRegistry(ts *testscript.TestScript, neg bool, args []string) {
	var o testenv.RegistryOptions
	f := flag.NewFlagSet("registry", flag.ContinueOnError)
	f.BoolVar(&o.TLS, "tls", false, "")
	f.BoolVar(&o.Auth, "auth", false, "")
	if err := f.Parse(args); neg || err != nil || f.NArg() != 1 {
		ts.Fatalf("usage: registry [-tls] [-auth] VAR")
	}
	// Not below the script's directory, whose processes are to be gone.
	dir, err := os.MkdirTemp("", "registry")
	ts.Check(err)
	ts.Defer(func() { _ = os.RemoveAll(dir) })
	r, err := testenv.StartRegistry(dir, o)
	ts.Check(err)
	ts.Defer(r.Stop)
	ts.Setenv(f.Arg(0), r.Host)
	ts.Setenv(f.Arg(0)+"_DIR", dir)
	if r.CA != "" {
		text, err := os.ReadFile(r.CA)
		ts.Check(err)
		ca := filepath.Join(ts.Getenv("WORK"), f.Arg(0)+".crt")
		ts.Check(os.WriteFile(ca, text, 0o644))
		ts.Setenv(f.Arg(0)+"_CA", ca)
	}
}
