package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"

	"github.com/urfave/cli/v2"

	"nook/internal/hint"
)

func inspectVerb() verb {
	return verb{
		name:    "inspect",
		about:   "Return low-level information on nook objects",
		usage:   "[OPTIONS] NAME|ID [NAME|ID...]",
		min:     1,
		max:     -1,
		options: inspectOptions,
		run:     (*shell).inspect,
	}
}

func inspectOptions() []option {
	return append(imageInspectOptions(),
		option{name: "type", value: "string", usage: "Only inspect objects of the given type: image"})
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
		run:     (*shell).inspect,
	}
}

func imageInspectOptions() []option {
	return []option{
		{name: "format", short: "f", value: "string", usage: formatUsage},
	}
}

func (s *shell) inspect(c *cli.Context) error {
	switch kind := c.String("type"); kind {
	case "", "image":
	default:
		return hint.Errorf("image is known", "invalid value %q for --type", kind)
	}
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		found := []any{}
		missing := s.each(ctx, c.Args().Slice(), func(name string) error {
			object, err := nook.InspectImage(ctx, name)
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
		// .ID and .Id.
		if err := execute(&out, body, object); err != nil {
			fields, jsonErr := asFields(object)
			if jsonErr != nil {
				return jsonErr
			}
			out.Reset()
			if err := execute(&out, body, fields); err != nil {
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
