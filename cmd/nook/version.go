package main

import (
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

func versionVerb() verb {
	return verb{
		name:    "version",
		about:   "Show the nook version information",
		usage:   "[OPTIONS]",
		common:  true,
		options: versionOptions,
		run:     (*shell).version,
	}
}

func versionOptions() []option {
	return []option{
		{name: "format", short: "f", value: "string", usage: formatUsage},
	}
}

// buildInfo is what the Go tool wrote into the binary.
type buildInfo struct {
	Version   string
	GoVersion string
	OS        string
	Arch      string
	GitCommit string
	Built     string // time of the commit
}

const versionTable = `Version:     {{.Version}}
Go version:  {{.GoVersion}}
Git commit:  {{.GitCommit}}
Built:       {{.Built}}
OS/Arch:     {{.OS}}/{{.Arch}}`

func (s *shell) version(c *cli.Context) error {
	f := readFormat(c.String("format"), versionTable)
	f.table = false // one row has no header
	return writeRows(s.stdout, f, nil, []buildInfo{thisBuild()})
}

func shortVersion() string {
	b := thisBuild()
	return "nook version " + b.Version + ", build " + b.GitCommit
}

func thisBuild() buildInfo {
	b := buildInfo{Version: "dev", GoVersion: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH,
		GitCommit: "unknown", Built: "unknown"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.Version = v
	}
	changed := false
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			b.GitCommit = setting.Value[:min(len(setting.Value), 12)]
		case "vcs.time":
			b.Built = setting.Value
		case "vcs.modified":
			changed = setting.Value == "true"
		}
	}
	if changed {
		b.GitCommit += " (changed)"
	}
	return b
}
