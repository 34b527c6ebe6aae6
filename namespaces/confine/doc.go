// Package confine takes from the process that becomes an entrypoint what a
// container must not have: capabilities, system calls, the host's keyrings and
// other users' ids.
//
//	u, err := confine.LookupUser(root, "www-data", open)
//	confine.Confinement{User: u, Caps: confine.DefaultCaps, Filter: confine.Filter(false)}.Steps(p)
//
// Deciding is plain code over tables; applying is a list of steps that a raw
// child runs (internal/raw), right before execve. Namespaces and mounts are
// other packages' business.
package confine
