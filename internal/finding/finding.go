// Package finding is what a check of things on disk finds.
package finding

// Finding is one thing that isn't as it should be.
type Finding struct {
	// Object is what it is about: "image busybox:latest", "blob sha256:…".
	Object string `json:"object"`
	// Fact is what is wrong with it.
	Fact string `json:"fact"`
	// Mended is what was done about it; "": nothing.
	Mended string `json:"mended,omitempty"`
	// Garbage only takes room: what nothing refers to, or a command left that
	// was killed. All else is damage.
	Garbage bool `json:"garbage,omitempty"`
	// Advice is what a person can do.
	Advice string `json:"advice,omitempty"`
}
