// Package treetar moves files between directories and tar streams while
// somebody who is not to be trusted may change the directories: the processes
// of a container.
//
//	w := treetar.NewWriter(out)
//	err := w.Tree(ctx, source, "name")    // source: an open descriptor
//	err = w.Close()
//
//	n, err := treetar.Extract(ctx, in, dir, treetar.Options{Note: note})
//
// Every file is reached from the descriptor of the directory it stands in, by
// one component, and no symlink is followed: whatever is renamed or replaced
// by a link meanwhile, nothing outside of the tree that was opened is read or
// written. Content streams; what is kept of a tree is the names of a
// directory, and the first names of files with several.
//
// It doesn't compare, and knows no layers: see images/layers.
package treetar
