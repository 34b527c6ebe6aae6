package engine

import (
	"context"
	"fmt"
	"io"
)

// Export writes all files of a container as a tar stream, with the owners that
// they have inside. Volumes and other mounts are empty directories in it.
func (e *Engine) Export(ctx context.Context, nameOrID string, w io.Writer) error {
	t, err := e.tree(ctx, nameOrID)
	if err != nil {
		return err
	}
	out, err := e.treeOutput(ctx, t, e.treeJob(t, jobArchive), false, nil)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := io.Copy(w, out); err != nil {
		return fmt.Errorf("export %s: %w", t.cfg.Name, err)
	}
	e.event("export", t.cfg)
	return nil
}
