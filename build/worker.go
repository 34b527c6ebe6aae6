package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"nook/images"
)

// Worker does the steps of a build, of which the solver knows the order and the
// keys. Its calls may be made from several goroutines. A call that fails, or
// whose context ends, leaves nothing behind.
//
//	solver                                  worker (engine)
//	  FROM    -- Base --------------------->  finds or pulls, unpacks
//	  COPY    -- Select ------------------->  names and digest of what is meant
//	          -- Lookup(key) --> State, or:
//	          -- Copy --------------------->  a layer on top of a state
//	  RUN     -- Lookup(key) --> State, or:
//	          -- Run ---------------------->  a container whose upper directory stays
//	          -- Remember(key, state) ----->
//	  at last -- Commit, Save, Files ------>  packs what isn't packed yet
type Worker interface {
	// Base finds an image, and pulls it as the policy says.
	Base(ctx context.Context, spec BaseSpec) (Base, error)

	// Select finds what the sources of a COPY or a bind mount mean. It writes
	// nothing. A source that means nothing is ErrNoSource.
	Select(ctx context.Context, tree Tree, spec SelectSpec) (Selection, error)

	// Copy puts a selection on top of a state, as one layer.
	Copy(ctx context.Context, below State, spec CopySpec) (State, error)

	// MakeDir makes a directory with those above it, as WORKDIR does. Where it
	// is there already the answer is below itself: no layer.
	MakeDir(ctx context.Context, below State, spec DirSpec) (State, error)

	// Run runs a command on a state. What it wrote is the new layer, which may
	// be empty. Out gets standard output and error, in one goroutine. The error
	// of a command that failed, or couldn't be executed, is an *ExitError.
	Run(ctx context.Context, below State, spec RunSpec, out io.Writer) (State, error)

	// Lookup finds the state that was remembered under a key; false also where
	// a part of it was lost. It opens one small file.
	Lookup(key string) (State, bool)

	// Remember keeps a state in the cache that all builds share. Info is for
	// who lists it.
	Remember(key string, state State, info CacheInfo) error

	// ReadCache reads what an image reference has of a cache. None of the files
	// are fetched.
	ReadCache(ctx context.Context, ref string) (*RemoteCache, error)

	// Stack puts the layer of a step of such a cache on a state. It is fetched
	// when the state is used, by any other call; what can't be is a
	// *LostCacheError.
	Stack(below State, from *RemoteCache, step CachedStep) State

	// Fetched gives the worker's own names of layers that Stack made, where all
	// of them were fetched by now, and any others as they are.
	Fetched(layers []string) ([]string, bool)

	// DiffIDs names a state's layers so that every worker calls the same files
	// the same; false where one has none. With pack those get one that weren't
	// packed.
	DiffIDs(ctx context.Context, layers []string, pack bool) ([]string, bool, error)

	// WriteCache sends records, whose layers have diff ids, with those layers to
	// an image reference. Out gets lines about how far it is, one at a time.
	WriteCache(ctx context.Context, ref string, records []CacheRecord, out io.Writer) error

	// Commit makes an image of a state. One that is there already, with the
	// same names, costs a few small files.
	Commit(ctx context.Context, spec CommitSpec) (images.Image, error)

	// Save writes the image that Commit would make as an archive, with its names
	// in it; format is "docker" or "oci". It is not put into the store.
	Save(ctx context.Context, spec CommitSpec, format string, w io.Writer) (images.Image, error)

	// Tar writes all files of a state as a tar stream, and Local into a
	// directory of the host's, which is made when it isn't there. No file is
	// younger than the epoch: what nobody gave a time has that of its unpacking.
	Tar(ctx context.Context, state State, epoch Epoch, w io.Writer) error
	Local(ctx context.Context, state State, epoch Epoch, dir string) error
}

var (
	// ErrNoSource says that a source of COPY means no file.
	ErrNoSource = errors.New("not found")
	// ErrOutside says that a path leads out of the tree it is in.
	ErrOutside = errors.New("it leads outside of the build context")
)

// ExitError is the end of a RUN that failed.
type ExitError struct {
	Args []string
	Code int   // as of run: 128+n for a signal, 126 and 127 for what couldn't be executed
	Err  error // why it couldn't be; nil: it ran
}

func (e *ExitError) Unwrap() error { return e.Err }

func (e *ExitError) Error() string {
	if e.Err != nil {
		return e.Err.Error()
	}
	return fmt.Sprintf("process %q did not complete successfully: exit code: %d", strings.Join(e.Args, " "), e.Code)
}

// State is a root filesystem: a stack of layers, the bottom one first. The zero
// State is empty, as scratch is. Layers are names of the worker's; they are
// never changed once they have one.
type State struct {
	Layers []string `json:"layers,omitempty"`
}

// BaseSpec says which image a stage, or a COPY --from, begins with.
type BaseSpec struct {
	Ref      string
	Platform string // os/arch[/variant]; "": this host's
	Pull     string // always, missing or never; "": missing
}

// Base is an image to build on.
type Base struct {
	State  State
	Image  images.Image
	Config *images.ImageConfig
	// Digest is that of the manifest: the same digest is the same files.
	Digest string
}

// Tree is where files come from: exactly one of the three.
type Tree struct {
	// State, when not nil, is a stage or an image.
	State *State
	// Dir is a directory of the host's: the context. Filter leaves files of it
	// out, nil for none.
	Dir    string
	Filter Filter
	// Files are given here: a heredoc, a download.
	Files []File
}

// File is a file that stands in no directory.
type File struct {
	Name string // one component
	Data []byte
	Path string // of the host's, instead of Data
	Mode fs.FileMode
	Time time.Time // zero: the time of the build, or its epoch
}

// Filter leaves names out of a directory: .dockerignore. It is called for a
// directory before what is in it, with what it answered for the directory
// above; nil at the top. name has slashes and none at the beginning.
type Filter func(name string, dir bool, above any) (verdict Verdict, below any)

// Verdict is what becomes of a name.
type Verdict int

// The verdicts of a Filter.
const (
	In    Verdict = iota // part of the context
	Out                  // not, but something below may be
	Prune                // not, and nothing below is
)

// SelectSpec are the sources of a COPY or ADD, after the variables in them.
type SelectSpec struct {
	// Sources have docker's wildcards; a leading slash means the tree's root.
	Sources []string
	// Literal takes wildcards as they stand.
	Literal bool
	// Parents keeps the directories of the sources (--parents), from a "/./"
	// in them on.
	Parents bool
	// Exclude are patterns of --exclude, as of .dockerignore, relative to each
	// source.
	Exclude []string
}

// Selection is what a COPY copies.
type Selection struct {
	Tree Tree
	Spec SelectSpec
	// Digest is of names, kinds, modes, link targets and contents; times and
	// owners of a context's files don't count.
	Digest string
	// Sources is how many paths were found, after wildcards.
	Sources int
	// Found is the worker's own.
	Found any
}

// CopySpec is COPY or ADD.
type CopySpec struct {
	From Selection
	// Dest is absolute, the working directory joined. ToDir: it ended in a
	// slash, or there are several sources.
	Dest  string
	ToDir bool
	// Chown is user[:group] by name or number, "" for 0:0 of a context and for
	// the source's owner with KeepOwner.
	Chown     string
	KeepOwner bool // COPY --from without --chown
	// Chmod is octal or symbolic (u=rwX,go=rX); "": as the source.
	Chmod string
	// Link makes a layer that knows nothing of the ones below: no symlinks of
	// theirs are followed, and it may be put on any other state.
	Link bool
	// Unpack unpacks sources that are tar archives, plain or packed: ADD.
	Unpack bool
	// Time is what all files get; zero: their own, those of States and contexts.
	Time time.Time
	Epoch
}

// DirSpec is WORKDIR.
type DirSpec struct {
	Path  string // absolute
	Owner string // user[:group], "": 0:0
	Epoch
}

// Epoch is SOURCE_DATE_EPOCH: no file that a step makes is younger. It has to
// be in the key of the step. Zero: none.
type Epoch struct{ Epoch time.Time }

// RunSpec is RUN.
type RunSpec struct {
	Args       []string
	Env        []string
	User       string
	WorkingDir string   // absolute; it is made when it isn't there
	Network    string   // host or none; "": host
	Hostname   string   // "": buildkitsandbox
	ExtraHosts []string // name:ip
	Mounts     []Mount
	ShmSize    int64 // bytes; 0: 64 MiB
	Epoch
}

// MountKind is the type of a RUN --mount.
type MountKind string

// The types of RUN --mount.
const (
	MountBind   MountKind = "bind"
	MountCache  MountKind = "cache"
	MountTmpfs  MountKind = "tmpfs"
	MountSecret MountKind = "secret"
	MountSSH    MountKind = "ssh"
)

// Mount is RUN --mount. What is written to a bind is thrown away after the step.
type Mount struct {
	Kind     MountKind
	Target   string // absolute
	ReadOnly bool
	// From is what a bind shows, and a cache begins with; Source a path in it.
	// A context becomes a state by Copy to the zero State.
	From   *State
	Source string
	// ID names a cache, in a namespace of the worker's; Sharing is shared,
	// private or locked.
	ID      string
	Sharing string
	// Size of a tmpfs in bytes, 0 for no limit.
	Size int64
	// Data is a secret's; Socket the path on the host of an agent's socket.
	Data   []byte
	Socket string
	// Mode, UID and GID are those of the mount's root; no Mode: 0755 of a cache,
	// 0400 of a secret, 0600 of a socket.
	Mode     *fs.FileMode
	UID, GID uint32
}

// CacheInfo describes a state to people.
type CacheInfo struct {
	Step string // as progress shows it
	Kind string // regular or exec.cachemount …: what builder prune filters by
}

// RemoteCache is a cache that isn't this worker's.
type RemoteCache struct {
	Ref   string
	Steps map[string]CachedStep // by key
	// Source is the worker's own.
	Source any
}

// CachedStep is a step in a RemoteCache.
type CachedStep struct {
	// DiffID is that of the layer that the step puts on top of the state in its
	// key, "" for none.
	DiffID string
	// Time is when the layer was made. Other steps may have made the same one.
	Time time.Time
}

// CacheRecord is a step in a RemoteCache that is written.
type CacheRecord struct {
	Key   string
	Layer string // the worker's name; "": the step made none
}

// LostCacheError says that a RemoteCache promised a layer and doesn't have it.
type LostCacheError struct {
	Ref string
	Err error
}

func (e *LostCacheError) Error() string { return fmt.Sprintf("cache of %s: %v", e.Ref, e.Err) }
func (e *LostCacheError) Unwrap() error { return e.Err }

// CommitSpec says which image becomes of a state.
type CommitSpec struct {
	// Base is what the state's first layers come from, nil for scratch.
	Base  *Base
	State State
	// Config is that of the new image; its RootFS and History are Commit's to
	// fill in, as is Created.
	Config images.ImageConfig
	// History are the steps since Base: the ones without EmptyLayer are the
	// layers of State on top of Base's, one each. Created is filled in: of a
	// layer the time when it was made, however often it comes from the cache;
	// of others that of the step before.
	History []images.History
	Names   []string
	Squash  bool // one layer of all that is on top of Base
	Epoch
}
