package integration

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"nook/build/dockerfile"
)

// TestCorpusHasEveryFlag: whatever the parser takes has a case in the corpus,
// each flag for each instruction that has it, each key of --mount for each type
// of it, and each way to write a key.
func TestCorpusHasEveryFlag(t *testing.T) {
	has := corpusUses(t)
	words := literals(t, "../build/dockerfile/*.go")
	miss := func(what string) {
		if !has[what] {
			t.Errorf("no case of testdata/corpus has %s", what)
		}
	}
	takes := func(text string) bool {
		_, err := dockerfile.Parse("Dockerfile", []byte("FROM busybox\n"+text+"\n"))
		return err == nil || !strings.Contains(err.Error(), "unknown")
	}
	instructions := 0
	for word := range words {
		if word != "" && strings.Trim(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == "" && takes(word+" x") {
			instructions++
			miss(word)
			for flag := range words {
				if flagLike(flag) && takes(word+" --"+flag+"=1 x") {
					miss(word + " --" + flag)
				}
			}
		}
	}
	if instructions != 17 {
		t.Errorf("the parser knows %d instructions", instructions)
	}
	for _, kind := range []string{"bind", "cache", "tmpfs", "secret", "ssh"} {
		for key, same := range mountKeys(words, kind) {
			miss("--mount " + key)
			if same == key {
				miss("--mount=type=" + kind + " " + key)
			}
		}
	}
}

func flagLike(word string) bool {
	return word != "" && strings.Trim(word, "abcdefghijklmnopqrstuvwxyz-") == "" && word[0] != '-'
}

// sameKey are ways to write a key of --mount.
func sameKey(key string) string {
	if same, ok := map[string]string{
		"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "readwrite": "readonly", "rw": "readonly",
	}[key]; ok {
		return same
	}
	return key
}

// mountKeys are the keys that a mount of a type takes, and what they mean.
func mountKeys(words map[string]bool, kind string) map[string]string {
	keys := map[string]string{}
	for key := range words {
		if !flagLike(key) || key == "type" {
			continue
		}
		for _, value := range []string{"1", "shared"} {
			others := ",target=/x"
			if sameKey(key) == "target" {
				others = ""
			}
			if kind == "secret" && sameKey(key) != "source" && key != "id" {
				others += ",id=i"
			}
			_, err := dockerfile.ParseMount("type="+kind+others+","+key+"="+value, func(word string) (string, error) { return word, nil })
			if err == nil {
				keys[key] = sameKey(key)
			}
		}
	}
	return keys
}

// literals are the strings of a package's files.
func literals(t *testing.T, pattern string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	words := map[string]bool{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if word, err := strconv.Unquote(lit.Value); err == nil {
					words[word] = true
				}
			}
			return true
		})
	}
	return words
}

// corpusUses are the instructions of the corpus, with their flags and the keys
// of their mounts.
func corpusUses(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob("testdata/corpus/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no corpus", err)
	}
	has := map[string]bool{}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range archive.Files {
			if strings.Contains(f.Name, "/") || strings.Contains(f.Name, ".") {
				continue
			}
			parsed, err := dockerfile.Parse(f.Name, f.Data)
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			for _, in := range parsed.Commands {
				note(has, in.Text)
				if inner, ok := in.Command.(*dockerfile.Onbuild); ok {
					note(has, inner.Instruction)
				}
			}
		}
	}
	if len(has) == 0 {
		t.Fatal("nothing in it")
	}
	return has
}

// note adds an instruction's text.
func note(has map[string]bool, text string) {
	words := strings.Fields(text)
	keyword := strings.ToUpper(words[0])
	has[keyword] = true
	for _, word := range words[1:] {
		flag, value, _ := strings.Cut(word, "=")
		if !strings.HasPrefix(flag, "--") {
			return
		}
		has[keyword+" "+flag] = true
		if flag != "--mount" {
			continue
		}
		kind, keys := "bind", []string{}
		for field := range strings.SplitSeq(value, ",") {
			key, value, _ := strings.Cut(field, "=")
			if key == "type" {
				kind = value
			}
			keys = append(keys, key)
		}
		for _, key := range keys {
			has["--mount "+key] = true
			has["--mount=type="+kind+" "+sameKey(key)] = true
		}
	}
}
