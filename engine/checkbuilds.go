package engine

import (
	"context"
	"path/filepath"

	"nook/internal/finding"
)

// checkBuilds finds, or with repair removes, the steps of builds that were
// killed.
func (e *Engine) checkBuilds(ctx context.Context, repair bool) (list []finding.Finding, err error) {
	err = e.deadSteps(ctx, func(dirs []string) error {
		for _, dir := range dirs {
			f := finding.Finding{Object: "directory build/.staging/" + filepath.Base(dir), Fact: "was left by a command that was killed", Garbage: true}
			if repair {
				f.Mended = "removed"
			} else {
				f.Advice = "nook system check --repair"
			}
			list = append(list, f)
		}
		if !repair {
			return nil
		}
		return e.removeTrees(ctx, dirs...)
	})
	return list, err
}
