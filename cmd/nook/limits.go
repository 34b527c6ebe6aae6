package main

import (
	"strings"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"nook/engine"
	"nook/internal/hint"
)

// readSizes reads the flags that limit file systems.
func readSizes(c *cli.Context, o *engine.RunOptions) error {
	if c.IsSet("shm-size") {
		size, err := readSize("--shm-size", c.String("shm-size"))
		if err != nil {
			return err
		}
		o.ShmSize = size
	}
	for _, option := range c.StringSlice("storage-opt") {
		key, value, _ := strings.Cut(option, "=")
		if key != "size" {
			return hint.Errorf("size= is known", "--storage-opt %q is not known", option)
		}
		size, err := readSize("--storage-opt size=", value)
		if err != nil {
			return err
		}
		o.LayerSize = size
	}
	return nil
}

// readSize reads docker's sizes: bytes, or with one of the units b, k, m, g
// and t of 1024.
func readSize(flag, value string) (int64, error) {
	size, err := units.RAMInBytes(value)
	if err != nil || size <= 0 {
		return 0, hint.Errorf("it takes a number of bytes, or one with k, m or g behind it: 64m", "invalid value %q for %s", value, flag)
	}
	return size, nil
}
