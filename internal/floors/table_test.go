package floors

// floors is the house. A package may import packages with a smaller number
// only. The whole numbers are the floors of docs/ARCHITECTURE.md; the decimals
// order internal/, whose packages are the ground all others stand on.
//
// Packages that are planned and not there yet may stand here; one that is
// there and not here fails.
var floors = map[string]float64{
	"cmd/nook": 9,
	"nooktest": 9,

	"engine": 8,

	"build":            7,
	"build/dockerfile": 1,

	"containers/monitor": 6,
	"containers/pid1":    6,

	"images":          5,
	"containers":      5,
	"network/gateway": 5,

	"containers/entry": 4,

	"containers/pause": 5,

	"containers/processes": 4,

	"images/registry": 4,

	"images/layers": 3,

	"namespaces":         2,
	"namespaces/confine": 2,
	"rootfs":             2,
	"rootfs/volumes":     2,
	"cgroups":            2,
	"network":            2,
	"containers/logs":    2,
	"containers/events":  2,

	"internal/safepath": 1,
	"internal/treetar":  1,

	"internal/raw/walk":   0.3, // early and raw stand on it
	"internal/raw":        0.5,
	"internal/sys":        0.6,
	"internal/fdpass":     0.6,
	"internal/frame":      0.6,
	"internal/lockfile":   0.6,
	"internal/atomicfile": 0.6,
	"internal/unsynced":   0.7,

	"internal/hint":                 0.1,
	"internal/nearest":              0.1,
	"internal/finding":              0.1,
	"internal/unxz":                 0.1,
	"internal/probe":                0.1,
	"internal/early":                0.9,
	"internal/testenv":              0.2,
	"internal/testenv/testimage":    0.1,
	"internal/testenv/testregistry": 0.2,
}

// programs are the directories of helper programs, generators and tests. They may
// import anything and nothing may import them.
var programs = map[string]bool{
	"bench":                        true,
	"integration":                  true,
	"integration/refuse":           true,
	"internal/floors":              true,
	"namespaces/confine/genfilter": true,
}

// neverImports are direct imports that the floors alone would allow.
var neverImports = []struct{ from, to, why string }{
	{"images", "namespaces", "unpacking is plain code over a directory, run as a stage by engine"},
	{"images/layers", "namespaces", "unpacking is plain code over a directory, run as a stage by engine"},
	{"containers", "images", "a container takes lower directories and a process, so it runs any root filesystem"},
}

// inside are the packages whose code runs beside or in a container, and heavy
// what they never reach, directly or through any other package.
var (
	inside = []string{"containers/monitor", "containers/pid1"}
	heavy  = []string{"net/http", "github.com/urfave/cli/v2", "text/template", "html/template"}
)

// testsOnly are modules that tests hold nook against. What is in the binary is
// paid by every start.
var testsOnly = []string{
	"github.com/google/go-containerregistry", "github.com/distribution/reference",
	"github.com/opencontainers/image-spec", "github.com/opencontainers/go-digest",
}

// speakers may print to standard output and end the process: the command, and
// what the tests are made of. pid1 ends processes as its trade. (os.Stderr alone
// is no breach: the monitor and the reaper are processes with one of their own.)
var speakers = map[string]bool{
	"cmd/nook":           true,
	"containers/pid1":    true,
	"internal/early":     true,
	"internal/raw":       true,
	"internal/testenv":   true,
	"nooktest":           true,
	"bench":              true,
	"integration":        true,
	"integration/refuse": true,
}

// initFunctions may be in these packages alone.
var initFunctions = map[string]bool{
	"internal/early": true,
}
