package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"nook/engine"
	"nook/internal/hint"
	"nook/rootfs/volumes"
)

// storekeeper is the part of the engine that the volume verbs call.
type storekeeper interface {
	CreateVolume(ctx context.Context, o engine.VolumeOptions) (volumes.Volume, error)
	Volumes(ctx context.Context, f engine.VolumeFilter) ([]engine.VolumeInfo, error)
	InspectVolume(ctx context.Context, name string) (*engine.VolumeInspection, error)
	RemoveVolume(ctx context.Context, name string, o engine.RemoveVolumeOptions) error
	PrunableVolumes(ctx context.Context, o engine.PruneVolumesOptions) (engine.PrunedVolumes, error)
	PruneVolumes(ctx context.Context, o engine.PruneVolumesOptions) (engine.PrunedVolumes, error)
}

func volumeCreateVerb() verb {
	return verb{
		name:  "volume create",
		long:  []string{"volume create"},
		about: "Create a volume",
		usage: "[OPTIONS] [VOLUME]",
		max:   1,
		options: func() []option {
			return []option{
				{name: "driver", short: "d", value: "string", usage: "Specify volume driver name: local"},
				{name: "label", value: "list", usage: "Set metadata for a volume"},
				{name: "opt", short: "o", value: "list", usage: "Set driver specific options: type=tmpfs|none, device=DIRECTORY, o=OPTIONS"},
			}
		},
		examples: []string{
			"nook volume create data",
			"nook volume create --opt type=none --opt o=bind --opt device=/srv/data data",
			"nook volume create --opt type=tmpfs --opt o=size=100m scratch",
		},
		run: (*shell).volumeCreate,
	}
}

func (s *shell) volumeCreate(c *cli.Context) error {
	labels, err := readLabels(nil, c.StringSlice("label"))
	if err != nil {
		return err
	}
	o := engine.VolumeOptions{Name: c.Args().First(), Driver: c.String("driver"), Labels: labels}
	if c.Args().Present() && o.Name == "" {
		return hint.Errorf("leave it out for one that is made up", "volume name is empty")
	}
	for _, pair := range c.StringSlice("opt") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return hint.Errorf("it takes KEY=VALUE", "--opt %q: invalid", pair)
		}
		if o.Options == nil {
			o.Options = map[string]string{}
		}
		o.Options[key] = value
	}
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		v, err := nook.CreateVolume(ctx, o)
		return echo(s, v.Name, err)
	})
}

func volumeListVerb() verb {
	return verb{
		name:  "volume ls",
		long:  []string{"volume ls", "volume list"},
		about: "List volumes",
		usage: "[OPTIONS]",
		options: func() []option {
			return []option{
				{name: "filter", short: "f", value: "list", usage: "Provide filter values: dangling=BOOL, driver=NAME, label=KEY[=VALUE], name=PART"},
				{name: "format", value: "string", usage: formatUsage},
				{name: "quiet", short: "q", usage: "Only display volume names"},
			}
		},
		run: (*shell).volumeList,
	}
}

// volumeRow is a line of docker volume ls.
type volumeRow struct {
	Driver     string
	Labels     string
	Mountpoint string
	Name       string
	Scope      string
	labels     map[string]string
	unknown
}

// unknown are docker's columns that a list of volumes doesn't have: those of a
// cluster, and what system df -v counts.
type unknown struct{ Availability, Group, Links, Size, Status string }

// Label gives a label's value.
func (r volumeRow) Label(name string) string { return r.labels[name] }

// volumeHeaders are the columns of volumeRow.
type volumeHeaders map[string]string

// Label is the column of a label.
func (volumeHeaders) Label(name string) string { return name }

func volumeColumns() volumeHeaders {
	return volumeHeaders{
		"Driver": "DRIVER", "Labels": "LABELS", "Mountpoint": "MOUNTPOINT", "Name": "VOLUME NAME", "Scope": "SCOPE",
		"Availability": "AVAILABILITY", "Group": "GROUP", "Links": "LINKS", "Size": "SIZE", "Status": "STATUS",
	}
}

func (s *shell) volumeList(c *cli.Context) error {
	f := readFormat(c.String("format"), "{{.Driver}}\t{{.Name}}")
	if c.Bool("quiet") && (f.table || c.String("format") == "") {
		f = format{template: "{{.Name}}"}
	}
	filter, err := engine.ParseVolumeFilter(c.StringSlice("filter"))
	if err != nil {
		return hint.Wrap(err, "dangling, driver, label, label! and name are known")
	}
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		list, damage := nook.Volumes(ctx, filter)
		rows := make([]volumeRow, 0, len(list))
		for _, v := range list {
			row := volumeRow{
				Driver: v.Driver, Mountpoint: v.Mountpoint, Name: v.Name, Scope: "local", labels: v.Labels,
				unknown: unknown{"N/A", "N/A", "N/A", "N/A", "N/A"},
			}
			var labels []string
			for key, value := range v.Labels {
				labels = append(labels, key+"="+value)
			}
			slices.Sort(labels)
			row.Labels = strings.Join(labels, ",")
			rows = append(rows, row)
		}
		if list == nil {
			return damage
		}
		return errors.Join(damage, writeRows(s.stdout, f, volumeColumns(), rows))
	})
}

func volumeInspectVerb() verb {
	return verb{
		name:    "volume inspect",
		long:    []string{"volume inspect"},
		about:   "Display detailed information on one or more volumes",
		usage:   "[OPTIONS] VOLUME [VOLUME...]",
		min:     1,
		max:     -1,
		options: imageInspectOptions,
		run: func(s *shell, c *cli.Context) error {
			return s.inspectObjects(c, inspectVolume)
		},
	}
}

func inspectVolume(ctx context.Context, nook backend, name string, _ bool) (any, error) {
	return nook.InspectVolume(ctx, name)
}

func volumeRemoveVerb() verb {
	return verb{
		name:  "volume rm",
		long:  []string{"volume rm", "volume remove"},
		about: "Remove one or more volumes",
		usage: "[OPTIONS] VOLUME [VOLUME...]",
		min:   1,
		max:   -1,
		options: func() []option {
			return []option{{name: "force", short: "f", usage: "Do not complain about volumes that aren't there"}}
		},
		run: (*shell).volumeRemove,
	}
}

func (s *shell) volumeRemove(c *cli.Context) error {
	o := engine.RemoveVolumeOptions{Force: c.Bool("force")}
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		return s.each(ctx, c.Args().Slice(), func(name string) error {
			return echo(s, name, nook.RemoveVolume(ctx, name, o))
		})
	})
}

func volumePruneVerb() verb {
	return verb{
		name:  "volume prune",
		long:  []string{"volume prune"},
		about: "Remove unused local volumes",
		usage: "[OPTIONS]",
		options: func() []option {
			return []option{
				{name: "all", short: "a", usage: "Remove all unused volumes, not just anonymous ones"},
				{name: "filter", value: "list", usage: "Provide filter values: label=KEY[=VALUE], label!=KEY[=VALUE]"},
				{name: "force", short: "f", usage: "Do not prompt for confirmation"},
			}
		},
		run: (*shell).volumePrune,
	}
}

func (s *shell) volumePrune(c *cli.Context) error {
	o := engine.PruneVolumesOptions{All: c.Bool("all")}
	filters, err := engine.ParseFilters(c.StringSlice("filter"))
	if err != nil {
		return err
	}
	for key, values := range filters {
		switch key {
		case "label":
			o.Labels = values
		case "label!":
			o.NotLabels = values
		case "all":
			o.All = slices.Contains(values, "true") || slices.Contains(values, "1")
		default:
			return hint.Errorf("all, label and label! are known", "filter %q: %w", key, engine.ErrFilter)
		}
	}
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		warning, err := pruneWarning(ctx, nook, o, c.Bool("force"))
		if err != nil {
			return err
		}
		if sure, err := s.sure(c, "volume prune", warning); !sure {
			return err
		}
		done, err := nook.PruneVolumes(ctx, o)
		if len(done.Names) > 0 {
			fmt.Fprintf(s.stdout, "Deleted Volumes:\n%s\n\n", strings.Join(done.Names, "\n"))
		}
		if err == nil || len(done.Names) > 0 {
			fmt.Fprintf(s.stdout, "Total reclaimed space: %s\n", units.HumanSize(float64(done.Bytes)))
		}
		return err
	})
}

// pruneWarning says what would go; with force nobody reads it.
func pruneWarning(ctx context.Context, nook storekeeper, o engine.PruneVolumesOptions, force bool) (string, error) {
	if force {
		return "", nil
	}
	which := "anonymous"
	if o.All {
		which = "all"
	}
	would, err := nook.PrunableVolumes(ctx, o)
	return fmt.Sprintf("WARNING! This will remove %s local volumes not used by at least one container: %d, with %s.",
		which, len(would.Names), units.HumanSize(float64(would.Bytes))), err
}
