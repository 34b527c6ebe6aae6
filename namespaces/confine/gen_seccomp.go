//go:build ignore

// gen_seccomp writes zseccomp_linux_*.go from default.json. Run it by
//
//	go generate ./namespaces/confine
//
// It imports confine for the capability set, so the old tables must be there.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"nook/namespaces/confine"
	"nook/namespaces/confine/genfilter"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "gen_seccomp:", err)
		os.Exit(1)
	}
}

func run() error {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
	if err != nil {
		return fmt.Errorf("find golang.org/x/sys: %w", err)
	}
	numbers, err := genfilter.ReadNumbers(strings.TrimSpace(string(out)))
	if err != nil {
		return err
	}
	data, err := os.ReadFile("default.json")
	if err != nil {
		return err
	}
	profile, err := genfilter.Parse(data, func(name string) bool {
		c, err := confine.ParseCap(name)
		return err == nil && confine.DefaultCaps.Has(c)
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, t := range genfilter.Targets {
		src, err := genfilter.Render(profile, numbers, t)
		if err == nil {
			err = os.WriteFile("zseccomp_linux_"+t.GOARCH+".go", src, 0o644)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
