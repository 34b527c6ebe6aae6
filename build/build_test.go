package build

import (
	"strings"
	"testing"
)

func TestOneStage(t *testing.T) {
	f := newFake()
	df := "FROM base\nENV A=1 B=\"x y\"\nWORKDIR /w\nCOPY a b/\nRUN write /out $A\nCMD [\"x\"]\n"
	if _, err := f.try(t, df, map[string]string{"a": "A"}, nil); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(f.did, "; "), "mkdir /w; copy /w/b/a; run write /out $A"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	c := f.made.Config.Config
	if got := strings.Join(c.Env, " "); got != "PATH=/bin LANG=C A=1 B=x y" || c.WorkingDir != "/w" || c.Cmd[0] != "x" {
		t.Errorf("%+v", c)
	}
}
