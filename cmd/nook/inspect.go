package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"

	"github.com/urfave/cli/v2"

	"nook/containers"
	"nook/images"
	"nook/internal/hint"
	"nook/rootfs/volumes"
)

func inspectVerb() verb {
	return verb{
		name:    "inspect",
		about:   "Return low-level information on containers, images and volumes",
		usage:   "[OPTIONS] NAME|ID [NAME|ID...]",
		min:     1,
		max:     -1,
		options: inspectOptions,
		run:     (*shell).inspect,
	}
}

func inspectOptions() []option {
	return append(containerInspectOptions(),
		option{name: "type", value: "string", usage: "Only inspect objects of the given type: container, image or volume"})
}

func containerInspectVerb() verb {
	return verb{
		name:    "container inspect",
		long:    []string{"container inspect"},
		about:   "Display detailed information on one or more containers",
		usage:   "[OPTIONS] CONTAINER [CONTAINER...]",
		min:     1,
		max:     -1,
		options: containerInspectOptions,
		run: func(s *shell, c *cli.Context) error {
			return s.inspectObjects(c, inspectContainer)
		},
	}
}

func containerInspectOptions() []option {
	return append(imageInspectOptions(),
		option{name: "size", short: "s", usage: "Display total file sizes of containers"})
}

func imageInspectVerb() verb {
	return verb{
		name:    "image inspect",
		long:    []string{"image inspect"},
		about:   "Display detailed information on one or more images",
		usage:   "[OPTIONS] IMAGE [IMAGE...]",
		min:     1,
		max:     -1,
		options: imageInspectOptions,
		run: func(s *shell, c *cli.Context) error {
			return s.inspectObjects(c, inspectImage)
		},
	}
}

func imageInspectOptions() []option {
	return []option{
		{name: "format", short: "f", value: "string", usage: formatUsage},
	}
}

func (s *shell) inspect(c *cli.Context) error {
	switch kind := c.String("type"); kind {
	case "":
		return s.inspectObjects(c, inspectAny)
	case "container":
		return s.inspectObjects(c, inspectContainer)
	case "image":
		return s.inspectObjects(c, inspectImage)
	case "volume":
		return s.inspectObjects(c, inspectVolume)
	default:
		return hint.Errorf("container, image and volume are known", "invalid value %q for --type", kind)
	}
}

// inspector finds what a name stands for.
type inspector func(ctx context.Context, nook backend, name string, size bool) (any, error)

func inspectContainer(ctx context.Context, nook backend, name string, size bool) (any, error) {
	return nook.InspectContainer(ctx, name, size)
}

func inspectImage(ctx context.Context, nook backend, name string, _ bool) (any, error) {
	return nook.InspectImage(ctx, name)
}

// inspectAny looks for a container first, as docker does.
func inspectAny(ctx context.Context, nook backend, name string, size bool) (any, error) {
	container, err := nook.InspectContainer(ctx, name, size)
	if !errors.Is(err, containers.ErrNotFound) {
		return container, err
	}
	image, err := nook.InspectImage(ctx, name)
	if !errors.Is(err, images.ErrNotFound) {
		return image, err
	}
	volume, err := nook.InspectVolume(ctx, name)
	if errors.Is(err, volumes.ErrNotFound) {
		return nil, hint.Errorf("nook ps -a, nook images and nook volume ls show what there is", "no such object: %s: no container, image or volume", name)
	}
	return volume, err
}

func (s *shell) inspectObjects(c *cli.Context, inspect inspector) error {
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		found := []any{}
		missing := s.each(ctx, c.Args().Slice(), func(name string) error {
			object, err := inspect(ctx, nook, name, c.Bool("size"))
			if err == nil {
				found = append(found, object)
			}
			return err
		})
		// As docker does: an array also when nothing was found.
		if err := writeObjects(s.stdout, c.String("format"), found); err != nil {
			return err
		}
		return missing
	})
}

// writeObjects prints what inspect found: a JSON array, or each as a template
// wants it.
func writeObjects(w io.Writer, flag string, objects []any) error {
	switch flag {
	case "":
		return writeJSON(w, objects, "    ")
	case "json":
		return writeJSON(w, objects, "")
	}
	body, err := parseTemplate(readFormat(flag, "").template, templateFunctions())
	if err != nil {
		return err
	}
	for _, object := range objects {
		var out bytes.Buffer
		// Fields first as Go's, then as the JSON has them: docker takes both
		// .ID and .Id. A label that isn't there is no error.
		if err := execute(&out, body.Option("missingkey=default"), object); err != nil {
			fields, jsonErr := asFields(object)
			if jsonErr != nil {
				return jsonErr
			}
			out.Reset()
			if err := execute(&out, body.Option("missingkey=error"), fields); err != nil {
				return err
			}
		}
		if _, err := w.Write(out.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

// asFields is object as its JSON reads.
func asFields(object any) (any, error) {
	data, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber() // sizes are not floating point numbers
	var fields any
	err = d.Decode(&fields)
	return fields, err
}
