package engine

import (
	"context"
	"fmt"
	"strings"

	"nook/images"
	"nook/internal/hint"
)

// Search lists the repositories of a registry whose names contain what stands
// behind the registry's: localhost:5000/web, or all of localhost:5000/. Without
// a registry it is docker.io. The names are whole, so that Pull takes them.
func (e *Engine) Search(ctx context.Context, term string) ([]string, error) {
	registry, part := searchTerm(term)
	if _, err := images.ParseReference(registry + "/x"); err != nil {
		return nil, hint.Errorf("a term is [REGISTRY/]PART-OF-A-NAME", "search %q: %q is no registry", term, registry)
	}
	client, _, err := remotes(nil)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	all, err := client.Catalog(ctx, registry)
	if err != nil {
		return nil, fmt.Errorf("search %s: %w", registry, err)
	}
	var found []string
	for _, path := range all {
		// What can't be a name can't be pulled.
		ref, err := images.ParseReference(registry + "/" + path)
		if err == nil && strings.Contains(strings.ToLower(path), part) {
			found = append(found, ref.FamiliarRepository())
		}
	}
	return found, nil
}

// searchTerm takes the registry off, by the rule that image names have: a first
// part with a dot or a port, or localhost.
func searchTerm(term string) (registry, part string) {
	first, rest, found := strings.Cut(term, "/")
	if found && (strings.ContainsAny(first, ".:") || first == "localhost") {
		return first, strings.ToLower(rest)
	}
	return DefaultRegistry, strings.ToLower(term)
}
