package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"nook/images"
)

func imagesVerb() verb {
	return verb{
		name:    "images",
		long:    []string{"image ls", "image list"},
		about:   "List images",
		usage:   "[OPTIONS] [REPOSITORY[:TAG]]",
		max:     1,
		common:  true,
		options: imagesOptions,
		run:     (*shell).images,
	}
}

func imagesOptions() []option {
	return []option{
		{name: "all", short: "a", usage: "Show all images (nook has no intermediate images to hide)"},
		{name: "digests", usage: "Show digests"},
		{name: "filter", short: "f", value: "list", usage: "Filter output based on conditions provided: dangling=BOOL, reference=PATTERN, before=IMAGE, since=IMAGE, until=TIME, label=KEY[=VALUE]"},
		{name: "format", value: "string", usage: formatUsage},
		{name: "no-trunc", usage: "Don't truncate output"},
		{name: "quiet", short: "q", usage: "Only show image IDs"},
	}
}

// imageRow is a line of docker images: an image with one of its names. The
// fields are those that docker's templates have, in the order of its JSON.
type imageRow struct {
	Containers   string
	CreatedAt    string
	CreatedSince string
	Digest       string
	ID           string
	Repository   string
	SharedSize   string
	Size         string
	Tag          string
	UniqueSize   string
}

func imageHeaders() map[string]string {
	return map[string]string{
		"Containers":   "CONTAINERS",
		"CreatedAt":    "CREATED AT",
		"CreatedSince": "CREATED",
		"Digest":       "DIGEST",
		"ID":           "IMAGE ID",
		"Repository":   "REPOSITORY",
		"SharedSize":   "SHARED SIZE",
		"Size":         "SIZE",
		"Tag":          "TAG",
		"UniqueSize":   "UNIQUE SIZE",
	}
}

const (
	imagesTable       = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
	imagesDigestTable = "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
	noName            = "<none>"
)

func (s *shell) images(c *cli.Context) error {
	table := imagesTable
	if c.Bool("digests") {
		table = imagesDigestTable
	}
	f := readFormat(c.String("format"), table)
	if c.Bool("quiet") && (f.table || c.String("format") == "") {
		f = format{template: "{{.ID}}"}
	}
	filter, err := s.readImageFilter(c.StringSlice("filter"),
		"before, dangling, label, label!, reference, since and until", func(key string) bool {
			return slices.Contains([]string{"before", "dangling", "label", "label!", "reference", "since", "until"}, key)
		})
	if err != nil {
		return err
	}
	if c.Args().Present() {
		// docker makes a reference of it too, and of several any has to match.
		filter.References = append(filter.References, c.Args().First())
	}
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		all, err := nook.FindImages(ctx, filter)
		if err != nil {
			return err
		}
		return writeRows(s.stdout, f, imageHeaders(), imageRows(all, c.Bool("no-trunc"), s.now()))
	})
}

// imageRows makes a row for each name, the youngest image first.
func imageRows(all []images.Image, whole bool, now time.Time) []imageRow {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b images.Image) int { return b.Created.Compare(a.Created) })
	rows := []imageRow{}
	for _, image := range all {
		row := imageRow{
			Containers:   "N/A",
			CreatedAt:    "N/A",
			CreatedSince: "N/A",
			Digest:       noName,
			ID:           shortID(image.ID, whole),
			Repository:   noName,
			SharedSize:   "N/A",
			Size:         units.HumanSizeWithPrecision(float64(imageSize(image)), 3),
			Tag:          noName,
			UniqueSize:   "N/A",
		}
		// Builds that anyone can repeat set the time to 0.
		if image.Created.Unix() > 0 {
			row.CreatedAt = image.Created.In(now.Location()).Format("2006-01-02 15:04:05 -0700 MST")
			row.CreatedSince = units.HumanDuration(now.Sub(image.Created)) + " ago"
		}
		if image.Manifest.Digest != "" {
			row.Digest = image.Manifest.Digest
		}
		if len(image.Names) == 0 {
			rows = append(rows, row)
		}
		for _, name := range image.Names {
			row.Repository, row.Tag = splitName(name)
			rows = append(rows, row)
		}
	}
	return rows
}

// imageSize is what docker shows: the size of the files, not of the archive.
func imageSize(image images.Image) int64 {
	if image.UnpackedSize > 0 {
		return image.UnpackedSize
	}
	return image.Size
}

func shortID(id string, whole bool) string {
	if whole {
		return id
	}
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(len(id), 12)]
}

// splitName is a full reference as two columns. The store holds only what it
// parsed, so an error means a newer nook's name: it is shown as it is.
func splitName(name string) (repository, tag string) {
	ref, err := images.ParseReference(name)
	if err != nil {
		return name, noName
	}
	if ref.Tag == "" {
		return ref.FamiliarRepository(), noName
	}
	return ref.FamiliarRepository(), ref.Tag
}

// loadedLines is what load says of one image.
func loadedLines(image images.Image) []string {
	if len(image.Names) == 0 {
		return []string{"Loaded image ID: " + image.ID}
	}
	var lines []string
	for _, name := range image.Names {
		if ref, err := images.ParseReference(name); err == nil {
			name = ref.FamiliarTagged()
		}
		lines = append(lines, fmt.Sprintf("Loaded image: %s", name))
	}
	return lines
}
