// Package registry speaks to image registries: the HTTP API of the OCI
// distribution specification, as far as pull, push and login need it.
//
//	client := registry.New(registry.Options{Config: config, Credentials: keys})
//	repo, err := client.Repository("localhost:5000", "app")
//	m, err := repo.Manifest(ctx, "latest")
//	err = repo.Blob(ctx, digest, size, offset, w)
//
// A call is a request with all that may lie between it and its answer:
//
//	Manifest, Blob, Upload…   endpoints: mirrors first, then the registry
//	  └─ host.do              attempts: back-off, Retry-After
//	       └─ host.try        a challenge answered once: Basic, Bearer
//	            └─ host.follow     redirects, bounded; no credentials elsewhere
//	                 └─ net/http   proxies, TLS
//
// Nothing a registry says is believed: sizes bound what is read, and digests
// are the caller's to compare, who has the bytes. Errors that may pass are
// told from those that won't: Temporary.
//
// It doesn't know what an image is; the media types of manifests are handed in
// by who does. Why it isn't a library: docs/design/registries.md.
package registry
