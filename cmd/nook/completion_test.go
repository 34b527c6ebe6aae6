package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"nook/containers"
	"nook/engine"
)

func completing() *fake {
	named := func(name string, s containers.Status) engine.Summary {
		return engine.Summary{Name: name, State: containers.State{Status: s}}
	}
	f := &fake{images: someImages()}
	f.list = []engine.Summary{
		named("web", containers.Running), named("web-old", containers.Exited),
		named("db", containers.Paused), named("new", containers.Created),
	}
	return f
}

func TestCompletion(t *testing.T) {
	for words, want := range map[string]string{
		"in":                               "info inspect",
		"container ren":                    "rename",
		"image r":                          "rm remove",
		"system ":                          "check df events info prune",
		"help ren":                         "rename",
		"--ids ":                           "auto mapped single",
		"--ro":                             "--root",
		"--root ":                          ":files",
		"nosuch ":                          "",
		"ps --no":                          "--no-trunc",
		"ps --format ":                     "json table",
		"ps --format=j":                    "--format=json",
		"ps --filter status=p":             ":nospace status=paused",
		"ps -af na":                        ":nospace name=",
		"ps ":                              "",
		"rm w":                             "web web-old",
		"rm -f web w":                      "web web-old",
		"container rm d":                   "db",
		"start ":                           "new web-old",
		"stop ":                            "db web",
		"pause ":                           "web",
		"unpause ":                         "db",
		"exec -it ":                        "web",
		"exec -u root w":                   "web",
		"exec web --":                      ":files",
		"rename ":                          "db new web web-old",
		"run --network ":                   "host none",
		"run --rm bus":                     "busybox busybox:1.36 busybox:latest",
		"run --rm busybox ":                ":files",
		"--root /x --ids=single run -ti l": "localhost:5000/team/web:v2",
		"tag busybox lo":                   "localhost:5000/team/web:v2",
		"inspect ":                         "busybox busybox:1.36 busybox:latest db localhost:5000/team/web:v2 new web web-old",
		"inspect --type c":                 "container",
		"cp we":                            ":files :nospace web-old: web:",
		"update --restart un":              "unless-stopped",
		"completion z":                     "zsh",
		"rename web new ":                  "",
		"completion bash ":                 "",
		"":                                 "attach",
	} {
		f := completing()
		args := append([]string{"__complete", "--"}, strings.Split(words, " ")...)
		stdout, stderr, code := typed(t, f, nil, args...)
		got := strings.Fields(stdout)
		if words == "" { // all of them
			got = got[:min(1, len(got))]
		}
		wanted := strings.Fields(want)
		slices.Sort(wanted)
		if !slices.Equal(got, wanted) || code != 0 || stderr != "" {
			t.Errorf("%q: exit %d %s, got %v, want %v", words, code, stderr, got, wanted)
		}
		if strings.HasPrefix(words, "--root /x") && (f.options.Root != "/x" || f.options.IDs != "single") {
			t.Errorf("%q: asked %+v", words, f.options)
		}
	}
}

// TestCompletionScriptsParse: with the shells that are here.
func TestCompletionScriptsParse(t *testing.T) {
	for shell := range completionScripts() {
		script, _, code := typed(t, &fake{}, nil, "completion", shell)
		if code != 0 || !strings.Contains(script, "__complete") {
			t.Errorf("%s: exit %d, %q", shell, code, script)
		}
		path, err := exec.LookPath(shell)
		if err != nil {
			continue
		}
		check := exec.Command(path, "-n")
		check.Stdin = strings.NewReader(script)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s -n: %v: %s", shell, err, out)
		}
	}
	if _, stderr, code := typed(t, &fake{}, nil, "completion", "tcsh"); code != 125 || !strings.Contains(stderr, "tcsh") {
		t.Errorf("tcsh: exit %d, %q", code, stderr)
	}
}

func TestHiddenVerbsAreNotListed(t *testing.T) {
	for _, args := range []string{"--help", "container --help"} {
		if stdout, _, _ := typed(t, &fake{}, nil, strings.Fields(args)...); strings.Contains(stdout, completeName) {
			t.Errorf("nook %s lists %s", args, completeName)
		}
	}
}

// TestDockersLongForms: what docker has under container, image and system is
// here too, under that name, as far as nook has the verb.
func TestDockersLongForms(t *testing.T) {
	for _, long := range []string{
		"container attach", "container commit", "container cp", "container create", "container diff", "container exec",
		"container export", "container inspect", "container kill", "container logs", "container ls", "container list",
		"container ps", "container pause", "container prune", "container rename", "container restart", "container rm",
		"container run", "container start", "container stats", "container stop", "container top", "container unpause",
		"container update", "container wait", "image import", "image inspect", "image load", "image ls", "image list",
		"image rm", "image remove", "image tag", "image history", "image prune", "image save", "manifest inspect",
		"system check", "system df", "system events", "system info", "system prune",
	} {
		group, word, _ := strings.Cut(long, " ")
		if v, n := findVerb([]string{group, word}); n != 2 {
			t.Errorf("nook %s is no command", long)
		} else if v.hidden {
			t.Errorf("nook %s is hidden", long)
		}
	}
	for args, want := range map[string]string{
		"container":        "",
		"container nosuch": "unknown command: nook container nosuch",
		"system nosuch":    "unknown command: nook system nosuch",
	} {
		_, stderr, code := typed(t, &fake{}, nil, strings.Fields(args)...)
		if (code != 0) != (want != "") || !strings.Contains(stderr, want) {
			t.Errorf("nook %s: exit %d, %q, want %q", args, code, stderr, want)
		}
	}
}
