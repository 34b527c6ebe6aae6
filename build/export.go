package build

import (
	"context"
	"fmt"
	"maps"

	"nook/images"
)

// commitSpec is the image of a stage.
func (s *solver) commitSpec(b *built, names []string) CommitSpec {
	return CommitSpec{
		Base: b.base, State: b.state, Config: b.config, History: b.history,
		Names: names, Squash: s.o.Squash, Epoch: Epoch{s.o.Epoch},
	}
}

// export makes what was asked for of the target, what is for the store first:
// what is packed for it needn't be again.
func (s *solver) export(ctx context.Context, b *built) (images.Image, error) {
	if len(s.o.Labels) > 0 {
		b = b.clone()
		maps.Copy(owned(b, &b.config.Config.Labels, &b.own.labels), s.o.Labels)
	}
	var outs []Output
	if s.o.Loads() {
		outs = []Output{{Type: "image"}}
	}
	for _, out := range s.o.Outputs {
		if out.Type != "image" {
			outs = append(outs, out)
		}
	}
	var made images.Image
	for _, out := range outs {
		step := s.begin(exportName(out))
		img, err := s.exportTo(ctx, b, out, step)
		step.end(ctx, err)
		if err != nil {
			return images.Image{}, fmt.Errorf("export: %w", err)
		}
		if img.ID != "" {
			made = img
		}
	}
	return made, nil
}

// exportTo makes one output. Files alone have no image.
func (s *solver) exportTo(ctx context.Context, b *built, out Output, step *step) (img images.Image, err error) {
	switch out.Type {
	case "tar":
		return img, s.w.Tar(ctx, b.state, Epoch{s.o.Epoch}, out.W)
	case "local":
		return img, s.w.Local(ctx, b.state, Epoch{s.o.Epoch}, out.Dir)
	case "image":
		img, err = s.w.Commit(ctx, s.commitSpec(b, s.o.Names))
	default:
		img, err = s.w.Save(ctx, s.commitSpec(b, s.o.Names), out.Type, out.W)
	}
	if err != nil {
		return img, err
	}
	step.tell(Event{Kind: Told, Text: "writing image " + img.ID})
	for _, name := range s.o.Names {
		step.tell(Event{Kind: Told, Text: "naming to " + familiar(name)})
	}
	return img, nil
}

func exportName(out Output) string {
	switch out.Type {
	case "image":
		return "exporting to image"
	case "tar", "local":
		return "exporting to client " + out.Type
	}
	return "exporting to " + out.Type + " image format"
}
