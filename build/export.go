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

// export makes what was asked for of the target.
func (s *solver) export(ctx context.Context, b *built) (images.Image, error) {
	if len(s.o.Labels) > 0 {
		b = b.clone()
		maps.Copy(owned(b, &b.config.Config.Labels, &b.own.labels), s.o.Labels)
	}
	out := s.o.Output
	step := s.begin(exportName(out))
	var img images.Image
	err := func() (err error) {
		if out != nil && out.Type == "tar" {
			return s.w.Tar(ctx, b.state, Epoch{s.o.Epoch}, out.W)
		}
		if out != nil && out.Type == "local" {
			return s.w.Local(ctx, b.state, Epoch{s.o.Epoch}, out.Dir)
		}
		if img, err = s.w.Commit(ctx, s.commitSpec(b, s.o.Names)); err != nil {
			return err
		}
		step.tell(Event{Kind: Told, Text: "writing image " + img.ID})
		for _, name := range s.o.Names {
			step.tell(Event{Kind: Told, Text: "naming to " + familiar(name)})
		}
		if out == nil {
			return nil
		}
		return s.w.Save(ctx, img, out.Type, s.o.Names, out.W)
	}()
	step.end(ctx, err)
	if err != nil {
		return images.Image{}, fmt.Errorf("export: %w", err)
	}
	return img, nil
}

func exportName(out *Output) string {
	switch {
	case out == nil:
		return "exporting to image"
	case out.Type == "tar" || out.Type == "local":
		return "exporting to client " + out.Type
	}
	return "exporting to " + out.Type + " image format"
}
