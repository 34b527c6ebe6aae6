// Package layers turns the layers of an image, tar streams, into directories
// that overlayfs stacks, and keeps them.
//
//	store := layers.NewStore(filepath.Join(root, "layers"), layers.Mapped)
//	chain, err := store.Unpack(ctx, sources, report)  // in a stage
//	chain, err := store.Chain(diffIDs)                // anywhere, one small file
//	lowerdirs := store.Dirs(chain)                    // topmost first
//
// Whatever writes runs in a stage: as uid 0 of the user namespace that the
// containers live in, with all capabilities over its ids. The package makes no
// namespace and mounts nothing; it is plain code over directories.
//
// What an image says is not believed. A name is split into components and each
// is used alone, against the descriptor of a directory that was made here, so
// that no path of an image ever reaches the kernel whole; the symlinks of a
// layer are followed by this package, inside of the layer.
//
// On disk:
//
//	layers/<diff id>/fs          the lower directory
//	layers/<diff id>/meta.json   Meta
//	layers/<diff id>/owners      what the file system can't hold, see ReadOwners
//	layers/chain-<chain id>/…    the same for a layer that needed one below it
//	layers/chains/<chain id>.json  Chain, all that starting a container needs
//	layers/.staging/…            layers being made, without an owner when no
//	                             process holds the lock of their name
//	layers/.locks/…              flock(2) files; pins/ is what processes need
//	                             that nothing refers to yet
//
// A committed layer is never written to again, by anyone: many containers and
// many images stack on it at once. Nothing but that convention keeps it so, as
// its directories have the modes that the image gave them.
//
// The way back, from a container's directory to a layer or an archive of all
// its files, is View. What unpacks to far more than it is, is refused: bomb.go.
package layers
