package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"nook/engine"
	"nook/images"
	"nook/internal/hint"
)

func dfVerb() verb {
	return verb{
		name:    "system df",
		long:    []string{"system df"},
		about:   "Show disk usage",
		usage:   "[OPTIONS]",
		options: dfOptions,
		run:     (*shell).df,
	}
}

func dfOptions() []option {
	return []option{
		{name: "format", value: "string", usage: formatUsage},
		{name: "verbose", short: "v", usage: "Show detailed information on space usage"},
	}
}

// dfRow is a line of docker system df. The build cache has one too, as scripts
// count lines.
type dfRow struct {
	Active      string
	Reclaimable string
	Size        string
	TotalCount  string
	Type        string
}

const dfTable = "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}"

func dfHeaders() map[string]string {
	return map[string]string{
		"Active": "ACTIVE", "Reclaimable": "RECLAIMABLE", "Size": "SIZE", "TotalCount": "TOTAL", "Type": "TYPE",
	}
}

func (s *shell) df(c *cli.Context) error {
	if c.Bool("verbose") && c.String("format") != "" {
		return hint.Errorf("leave out one of them", "system df: --verbose and --format can't be used together")
	}
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		u, err := nook.DiskUsage(ctx)
		if err != nil {
			return err
		}
		if c.Bool("verbose") {
			return s.dfVerbose(u)
		}
		rows := []dfRow{
			newDfRow("Images", u.Images), newDfRow("Containers", u.Containers),
			newDfRow("Local Volumes", u.Volumes), newDfRow("Build Cache", u.BuildCache),
		}
		return writeRows(s.stdout, readFormat(c.String("format"), dfTable), dfHeaders(), rows)
	})
}

func newDfRow(kind string, u engine.Usage) dfRow {
	row := dfRow{
		Type: kind, TotalCount: strconv.Itoa(u.Total), Active: strconv.Itoa(u.Active),
		Size: units.HumanSize(float64(u.Size)), Reclaimable: units.HumanSize(float64(u.Reclaimable)),
	}
	if u.Size > 0 {
		row.Reclaimable += fmt.Sprintf(" (%d%%)", u.Reclaimable*100/u.Size)
	}
	return row
}

// dfVolume is a volume's line of docker system df -v.
type dfVolume struct{ Name, Links, Size string }

func (s *shell) dfVerbose(u *engine.DiskUsage) error {
	fmt.Fprint(s.stdout, "Images space usage:\n\n")
	var rows []imageRow
	for _, used := range u.ImageList {
		for _, row := range imageRows([]images.Image{used.Image}, false, s.now()) {
			row.Size = units.HumanSize(float64(used.Shared + used.Unique))
			row.SharedSize, row.UniqueSize = units.HumanSize(float64(used.Shared)), units.HumanSize(float64(used.Unique))
			row.Containers = strconv.Itoa(used.Containers)
			rows = append(rows, row)
		}
	}
	table := format{table: true, template: imagesTable + "\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}"}
	if err := writeRows(s.stdout, table, imageHeaders(), rows); err != nil {
		return err
	}
	fmt.Fprint(s.stdout, "\nContainers space usage:\n\n")
	var list []psRow
	for _, container := range u.ContainerList {
		container.RootSize = 0
		list = append(list, newPsRow(container, false, s.now()))
	}
	table.template = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}"
	if err := writeRows(s.stdout, table, newPsHeaders(), list); err != nil {
		return err
	}
	fmt.Fprint(s.stdout, "\nLocal Volumes space usage:\n\n")
	volumes := make([]dfVolume, 0, len(u.VolumeList))
	for _, v := range u.VolumeList {
		volumes = append(volumes, dfVolume{v.Name, strconv.Itoa(len(v.Users)), units.HumanSize(float64(v.Size))})
	}
	table.template = "{{.Name}}\t{{.Links}}\t{{.Size}}"
	return writeRows(s.stdout, table, map[string]string{"Name": "VOLUME NAME", "Links": "LINKS", "Size": "SIZE"}, volumes)
}
