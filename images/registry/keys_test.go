package registry

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func newKeys(t *testing.T, config string) *Keys {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "docker")
	if config != "" {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return NewKeys(dir)
}

func TestKeysAreFound(t *testing.T) {
	const user = `"auth":"bWU6YTpi"` // me:a:b
	for name, c := range map[string]struct {
		config, registry string
		want             Credential
	}{
		"no file":            {"", "registry.test", Credential{}},
		"an empty file":      {" ", "registry.test", Credential{}},
		"none for it":        {`{"auths":{"other.test":{` + user + `}}}`, "registry.test", Credential{}},
		"its own":            {`{"auths":{"registry.test:5000":{` + user + `}}}`, "registry.test:5000", Credential{Username: "me", Password: "a:b"}},
		"docker's default":   {`{"auths":{"https://index.docker.io/v1/":{` + user + `}}}`, dockerHub, Credential{Username: "me", Password: "a:b"}},
		"a URL":              {`{"auths":{"https://registry.test/v2/":{` + user + `}}}`, "registry.test", Credential{Username: "me", Password: "a:b"}},
		"another port":       {`{"auths":{"registry.test:5000":{` + user + `}}}`, "registry.test", Credential{}},
		"of one repository":  {`{"auths":{"registry.test/team":{` + user + `}}}`, "registry.test", Credential{}},
		"a token":            {`{"auths":{"registry.test":{"identitytoken":"t"}}}`, "registry.test", Credential{IdentityToken: "t"}},
		"name and password":  {`{"auths":{"registry.test":{"username":"me","password":"p"}}}`, "registry.test", Credential{Username: "me", Password: "p"}},
		"an empty entry":     {`{"auths":{"registry.test":{}}}`, "registry.test", Credential{}},
		"nothing but others": {`{"detachKeys":"ctrl-x","auths":null}`, "registry.test", Credential{}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := newKeys(t, c.config).Lookup(t.Context(), c.registry)
			if err != nil || got != c.want {
				t.Errorf("got %+v, %v, want %+v", got, err, c.want)
			}
		})
	}
	for name, config := range map[string]string{
		"no JSON":    "{",
		"a list":     "[]",
		"not base64": `{"auths":{"registry.test":{"auth":"?secret?"}}}`,
		"no colon":   `{"auths":{"registry.test":{"auth":"c2VjcmV0"}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newKeys(t, config).Lookup(t.Context(), "registry.test")
			wantPlainError(t, err, nil, "config.json")
		})
	}
}

func TestKeysLeaveTheRestAlone(t *testing.T) {
	k := newKeys(t, `{"detachKeys":"ctrl-x","auths":{"other.test":{"auth":"bWU6cA==","email":"x"}},"n":1234567890123456789}`)
	inFile, err := k.Store(t.Context(), "registry.test", Credential{Username: "me", Password: "p"})
	if err != nil || !inFile {
		t.Fatal(inFile, err)
	}
	info, err := os.Stat(k.File())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
	if found, err := k.Erase(t.Context(), "registry.test"); err != nil || !found {
		t.Errorf("erase: %v, %v", found, err)
	}
	if found, err := k.Erase(t.Context(), "registry.test"); err != nil || found {
		t.Errorf("erase once more: %v, %v", found, err)
	}
	data, err := os.ReadFile(k.File())
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]json.RawMessage
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	var auths map[string]map[string]string
	if err := json.Unmarshal(got["auths"], &auths); err != nil {
		t.Fatal(err)
	}
	if string(got["n"]) != "1234567890123456789" || string(got["detachKeys"]) != `"ctrl-x"` || auths["other.test"]["email"] != "x" || len(auths) != 1 {
		t.Errorf("the file is now %s", data)
	}
}

func TestManyKeepKeysAtOnce(t *testing.T) {
	k := newKeys(t, "")
	names := strings.Fields("a.test b.test c.test d.test e.test f.test g.test h.test")
	var group sync.WaitGroup
	for _, name := range names {
		group.Go(func() {
			if _, err := k.Store(t.Context(), name, Credential{Username: name, Password: "p"}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	for _, name := range names {
		if c, err := k.Lookup(t.Context(), name); err != nil || c.Username != name {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	if left, _ := os.ReadDir(filepath.Dir(k.File())); len(left) != 1 {
		t.Errorf("beside config.json there is %v", left)
	}
}

// helper is docker's protocol, with a directory for a memory.
const helper = `#!/bin/sh
read -r in || true
case $1 in
store) printf '%s' "$in" >"$0.kept" ;;
get) test -e "$0.kept" || { echo "credentials not found in native keychain"; exit 1; }
	cat "$0.kept" ;;
erase) rm "$0.kept" ;;
esac
`

func TestKeysOfAHelper(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	if err := os.WriteFile(filepath.Join(bin, "docker-credential-test"), []byte(helper), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, config := range []string{`{"credsStore":"test"}`, `{"credHelpers":{"registry.test":"test"}}`} {
		k := newKeys(t, config)
		if c, err := k.Lookup(t.Context(), "registry.test"); err != nil || c != (Credential{}) {
			t.Errorf("before: %+v, %v", c, err)
		}
		want := Credential{Username: "me", Password: `p"\ß`}
		if inFile, err := k.Store(t.Context(), "registry.test", want); err != nil || inFile {
			t.Errorf("store: in the file %v, %v", inFile, err)
		}
		if c, err := k.Lookup(t.Context(), "registry.test"); err != nil || c != want {
			t.Errorf("got %+v, %v, want %+v", c, err, want)
		}
		if found, err := k.Erase(t.Context(), "registry.test"); err != nil || !found {
			t.Errorf("erase: %v, %v", found, err)
		}
		if data, _ := os.ReadFile(k.File()); string(data) != config {
			t.Errorf("config.json is now %s", data)
		}
	}
	_, err := newKeys(t, `{"credsStore":"nosuch"}`).Lookup(t.Context(), "registry.test")
	wantPlainError(t, err, nil, "docker-credential-nosuch is not in PATH")
	_, err = newKeys(t, `{"credsStore":"../x"}`).Lookup(t.Context(), "registry.test")
	wantPlainError(t, err, nil, "is no name")
}

func TestConfig(t *testing.T) {
	c, err := parseConfig([]byte(`
unqualified-search-registries = ["elsewhere.test"]

[[registry]]
location = "registry.test"
[[registry.mirror]]
location = "mirror.test/copy"
insecure = true

[[registry]]
prefix = "registry.test/team"
location = "team.test:5000/hub"

[[registry]]
prefix = "registry.test/evil"
blocked = true

[[registry]]
prefix = "*.lan"
insecure = true

[aliases]
"tool" = "registry.test/team/tool"
`))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]endpoint{
		"registry.test app":         {{address: "mirror.test", path: "copy/app", insecure: true}, {address: "registry.test", path: "app"}},
		"registry.test team/app":    {{address: "team.test:5000", path: "hub/app"}},
		"registry.test teamwork":    {{address: "mirror.test", path: "copy/teamwork", insecure: true}, {address: "registry.test", path: "teamwork"}},
		"registry.test evil/app":    {{address: "registry.test", path: "evil/app", blocked: true}},
		"registry.testing app":      {{address: "registry.testing", path: "app"}},
		"printer.lan:5000 app":      {{address: "printer.lan:5000", path: "app", insecure: true}},
		"docker.io library/busybox": {{address: "docker.io", path: "library/busybox"}},
	} {
		registry, path, _ := strings.Cut(name, " ")
		got := c.endpoints(registry, path)
		if len(got) != len(want) {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
			continue
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("%s: got %+v, want %+v", name, got, want)
			}
		}
	}
	if got := c.Alias("tool"); got != "registry.test/team/tool" {
		t.Errorf("alias %q", got)
	}
	for text, want := range map[string]string{
		"[[registry]\n": "line 1", "[[registry]]\ninsecure = 1\n": "line 2", "[[registry]]\n": "neither prefix",
		"[[registry]]\nlocation=\"a.test\"\n[[registry.mirror]]\n": "no location",
	} {
		_, err := parseConfig([]byte(text))
		wantPlainError(t, err, nil, want)
	}
}

func TestChallenges(t *testing.T) {
	got := parseChallenges([]string{`Bearer realm="https://auth.test/token",service="a \"b\", c", scope="x:y:pull,push"`, `Negotiate, Basic realm=test`})
	if len(got) != 3 || got[0].scheme != "bearer" || got[0].parameters["service"] != `a "b", c` ||
		got[0].parameters["scope"] != "x:y:pull,push" || got[1].scheme != "negotiate" || got[2].parameters["realm"] != "test" {
		t.Errorf("got %+v", got)
	}
}

func FuzzChallenges(f *testing.F) {
	for _, seed := range []string{`Bearer realm="x",a=b`, `Basic`, `,,=`, `a "`, `a b=c d="\`, "\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(_ *testing.T, header string) { parseChallenges([]string{header}) })
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte("[[registry]]\nlocation=\"a\"\n"), "a", "b")
	f.Fuzz(func(t *testing.T, data []byte, registry, path string) {
		c, err := parseConfig(data)
		if err == nil && len(c.endpoints(registry, path)) == 0 {
			t.Error("no endpoint")
		}
	})
}
