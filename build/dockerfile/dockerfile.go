// Package dockerfile reads Dockerfiles: lines, heredocs and parser directives
// into instructions, instructions into typed commands.
//
//	file, err := dockerfile.Parse("Dockerfile", data)
//	for _, c := range file.Commands {
//		switch c := c.Command.(type) {
//		case *dockerfile.Run:
//		}
//	}
//
// The grammar is that of moby/buildkit's frontend (frontend/dockerfile/parser
// and instructions, version 0.30): words and variables are read by its package
// shell, which costs nothing at start-up. The two others are written by hand
// here, because they import protobuf, whose package init each run of a container
// would pay for (docs/design/build.md has the figures); the tests hold ours
// against theirs.
//
// Nothing is expanded here, and nothing is looked up: what a variable holds and
// which stages there are is known to package build.
package dockerfile

import "time"

// File is one parsed Dockerfile.
type File struct {
	Name     string
	Escape   rune   // '\\' or '`'
	Syntax   string // of the syntax directive; it is read and not obeyed
	Commands []Instruction
	// Warnings are what docker warns about too, in the order of the lines.
	Warnings []string

	lines []string // for excerpts
}

// Instruction is one instruction with its place in the file.
type Instruction struct {
	Keyword string // upper case
	// Text is the whole instruction on one line, without heredocs.
	Text       string
	Start, End int // lines, counted from 1
	Command    Command

	file     *File
	flags    []word
	rest     string // what follows keyword and flags
	restAt   int    // where rest stands in Text
	heredocs []Heredoc
	pieces   []piece // where the parts of Text come from
}

// Heredoc is one here-document of RUN, COPY or ADD.
type Heredoc struct {
	Name    string
	Content string // as written, with the tabs that Chomp takes away
	Expand  bool   // variables are expanded: the name was not quoted
	Chomp   bool   // <<-
}

// Command is one of the types below, by pointer.
type Command interface{}

// Pair is NAME=VALUE, as written: neither is expanded or free of quotes.
type Pair struct{ Name, Value string }

// CommandLine is what RUN, CMD and ENTRYPOINT take.
type CommandLine struct {
	Words []string // one, with Shell
	Shell bool     // not the JSON form: SHELL stands before it
}

// From begins a stage.
type From struct{ Base, Platform, Name string }

// Run runs a command.
type Run struct {
	CommandLine
	Mounts   []string // of --mount, as written; see ParseMount
	Network  string   // "", default, none or host
	Heredocs []Heredoc
}

// Copy is COPY, and ADD with Add.
type Copy struct {
	Add        bool
	Sources    []string
	Heredocs   []Heredoc // sources that stand in the file
	Dest       string
	From       string
	Chown      string
	Chmod      string
	Checksum   string
	Link       bool
	Parents    bool
	KeepGitDir bool
	Unpack     *bool // nil: local archives only
	Exclude    []string
}

// Arg declares build arguments; a nil Default has none.
type Arg struct{ Args []ArgName }

// ArgName is one of them.
type ArgName struct {
	Name    string
	Default *string
}

type (
	// Env sets variables of the environment.
	Env struct{ Pairs []Pair }
	// Label sets labels.
	Label struct{ Pairs []Pair }
	// Workdir sets the working directory.
	Workdir struct{ Path string }
	// User sets the user.
	User struct{ User string }
	// Expose names ports.
	Expose struct{ Ports []string }
	// Volume names directories.
	Volume struct{ Paths []string }
	// Cmd sets the default command.
	Cmd struct{ CommandLine }
	// Entrypoint sets the entrypoint.
	Entrypoint struct{ CommandLine }
	// Shell sets what runs commands in shell form.
	Shell struct{ Words []string }
	// StopSignal sets the signal that stops a container.
	StopSignal struct{ Signal string }
	// Maintainer sets the author; the instruction is deprecated.
	Maintainer struct{ Name string }
	// Onbuild keeps an instruction for the images built on this one.
	Onbuild struct{ Instruction string }
	// Healthcheck sets the check; Test is NONE, CMD or CMD-SHELL with its words.
	Healthcheck struct {
		Test                                          []string
		Interval, Timeout, StartPeriod, StartInterval time.Duration
		Retries                                       int
	}
)
