package engine

import (
	"io"
	"os"

	"nook/containers"
)

// Options says which nook is opened.
type Options struct {
	// Root is the data root; "" means $NOOK_ROOT, then $XDG_DATA_HOME/nook,
	// then ~/.local/share/nook.
	Root string
	// IDs is auto, mapped or single; "" means auto.
	IDs string
	// Progress is told of work that takes long. Nil means nobody listens.
	Progress Progress
	// Note is told of what a person should know and no error is, such as a
	// device node that was left out of a layer. Nil means nobody listens.
	Note func(text string)
}

// Progress is told how far a long piece of work is. Its methods may be called
// from several goroutines.
type Progress interface {
	// Begin opens one bar; total is in bytes, 0 when it isn't known.
	Begin(label string, total int64) Bar
}

// Bar is one piece of work under way.
type Bar interface {
	Add(bytes int64)
	End()
}

// RunOptions is what docker's users know as the flags of run.
type RunOptions struct {
	Image      string
	Command    []string // after the image; replaces CMD
	Name       string
	Env        []string // KEY=VALUE, or KEY to hand on the caller's; later wins
	WorkDir    string
	User       string  // name|uid[:group|gid]
	Entrypoint *string // nil: the image's; "" : none
	Hostname   string
	ReadOnly   bool
	Tmpfs      []string // DST[:options]
	Volumes    []string // [SRC:]DST[:options]
	Mounts     []string // key=value,... as docker's --mount
	// VolumesFrom are containers, CONTAINER[:ro|rw], whose volumes and binds
	// this one has too.
	VolumesFrom []string
	ShmSize     int64 // of /dev/shm, in bytes; 0: 64 MiB
	Secrets     []Secret
	// LayerSize is the writable layer's limit in bytes, 0: none. It needs Remove.
	LayerSize   int64
	Network     string // none or host
	Labels      map[string]string
	CIDFile     string
	Init        bool
	Remove      bool
	Interactive bool
	TTY         bool
	// Detach: nobody is attached when it starts, so its stdin, with
	// Interactive, doesn't end with who gives some.
	Detach bool
	// StopSignal ends the container when it is stopped; "": the image's, then
	// TERM. StopTimeout is in seconds; nil: 10, negative: for ever.
	StopSignal  string
	StopTimeout *int
	Restart     containers.RestartPolicy
	// Pull says when the image is pulled, PullOptions how.
	Pull        PullPolicy
	PullOptions PullOptions
	// Health is laid over the image's check, field by field; a Test of NONE
	// takes it away.
	Health  *containers.HealthCheck
	started bool // at once: its monitor flushes the record
	// Leash is the reading end of a pipe. When its writing end is closed, as
	// when the process that has it is killed, the container is ended too.
	Leash *os.File
}

// Streams are the standard streams of a foreground run.
type Streams struct {
	// In is read in a goroutine that ends with the process, but for a Read that
	// waits then: that one is left to itself.
	In  io.Reader
	Out io.Writer
	Err io.Writer
	// Terminal is the terminal that In and Out are, nil when they are none.
	Terminal Terminal
	// DetachKeys are the bytes that, typed in In, leave the process to itself:
	// ErrDetached. Empty: none.
	DetachKeys []byte
	// KeepSignals leaves the signals of this process to it. Otherwise they are
	// passed on, as a command in the foreground does.
	KeepSignals bool
	// Started is called once, with the container's id, when the entrypoint runs
	// and the streams are attached, or when it ran and has ended. It must not
	// wait. Not of Exec.
	Started func(id string)
}

// Terminal is the caller's terminal, for -t. Its owner puts it into raw mode
// and back.
type Terminal interface {
	// Size is in characters.
	Size() (rows, cols uint16, err error)
	// Resized gets a value whenever the size changed.
	Resized() <-chan struct{}
}
