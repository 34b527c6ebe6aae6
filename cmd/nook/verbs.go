package main

import "github.com/urfave/cli/v2"

// verb is one command of nook. The table is cheap to make; what costs (flags,
// urfave/cli's commands) is made for the one verb that was typed.
type verb struct {
	name  string
	long  []string // docker's grouped forms: "image ls"
	about string   // one line, docker's words
	usage string   // what follows the name: "[OPTIONS] IMAGE"
	// min and max count the positionals; max < 0: no limit.
	min, max int
	verbatim bool   // see grammar
	common   bool   // listed first by help
	hidden   bool   // not listed by help
	flagHint string // about flags that aren't there; "": see --help
	options  func() []option
	examples []string
	run      func(*shell, *cli.Context) error
}

// verbs is every verb, in the order help shows them.
func verbs() []verb {
	return []verb{
		runVerb(),
		psVerb(),
		buildVerb(),
		pullVerb(),
		pushVerb(),
		loginVerb(),
		logoutVerb(),
		searchVerb(),
		imagesVerb(),
		versionVerb(),
		infoVerb(),
		importVerb(),
		inspectVerb(),
		containerInspectVerb(),
		imageInspectVerb(),
		renameVerb(),
		updateVerb(),
		containerPruneVerb(),
		eventsVerb(),
		completionVerb(),
		completeVerb(),
		loadVerb(),
		saveVerb(),
		historyVerb(),
		imagePruneVerb(),
		builderPruneVerb(),
		manifestInspectVerb(),
		dfVerb(),
		systemPruneVerb(),
		checkVerb(),
		logsVerb(),
		createVerb(),
		startVerb(),
		stopVerb(),
		restartVerb(),
		killVerb(),
		pauseVerb(),
		unpauseVerb(),
		waitVerb(),
		execVerb(),
		attachVerb(),
		cpVerb(),
		diffVerb(),
		commitVerb(),
		exportVerb(),
		topVerb(),
		statsVerb(),
		rmVerb(),
		rmiVerb(),
		volumeExportVerb(),
		volumeImportVerb(),
		volumeCreateVerb(),
		volumeListVerb(),
		volumeInspectVerb(),
		volumeRemoveVerb(),
		volumePruneVerb(),
		tagVerb(),
		unshareVerb(),
	}
}

// group is the first word of docker's grouped commands.
type group struct{ name, about string }

func groups() []group {
	return []group{
		{"builder", "Manage builds"},
		{"container", "Manage containers"},
		{"image", "Manage images"},
		{"manifest", "Manage image manifests"},
		{"system", "Manage nook"},
		{"volume", "Manage volumes"},
	}
}

// findVerb looks up the verb that words begin with and returns how many of
// them are its name; 0: there is none.
func findVerb(words []string) (verb, int) {
	if len(words) == 0 {
		return verb{}, 0
	}
	for _, v := range verbs() {
		if v.name == words[0] {
			return v, 1
		}
		for _, long := range v.long {
			if len(words) > 1 && long == words[0]+" "+words[1] {
				return v, 2
			}
		}
	}
	return verb{}, 0
}

func findGroup(name string) (group, bool) {
	for _, g := range groups() {
		if g.name == name {
			return g, true
		}
	}
	return group{}, false
}
