package containers

import (
	"math/rand/v2"
	"path/filepath"

	"nook/internal/atomicfile"
)

// RandomName makes a name for a container whose owner gave none.
func RandomName() string {
	first, second := adjectives(), nouns()
	return first[rand.IntN(len(first))] + "_" + second[rand.IntN(len(second))]
}

// Rewrite replaces the record of a container that was not started yet.
func (c Container) Rewrite(cfg *Config) error {
	return atomicfile.WriteJSON(filepath.Join(c.Path, "config.json"), cfg, 0o600, atomicfile.Durability(!cfg.Remove))
}

func adjectives() []string {
	return []string{
		"agile", "amber", "ample", "brave", "breezy", "bright", "brisk", "calm", "candid", "cheery",
		"clever", "cosy", "crisp", "curious", "dapper", "daring", "eager", "early", "earnest", "fair",
		"fleet", "fond", "frank", "fresh", "gentle", "glad", "golden", "grand", "handy", "happy",
		"hardy", "honest", "humble", "jolly", "keen", "kind", "lively", "loyal", "lucid", "lucky",
		"mellow", "merry", "mild", "modest", "neat", "nimble", "noble", "patient", "placid", "plain",
		"polite", "proud", "quick", "quiet", "ready", "robust", "serene", "sharp", "silent", "sincere",
		"smart", "snug", "sober", "solid", "spry", "stable", "steady", "still", "sturdy", "sunny",
		"swift", "tender", "tidy", "tranquil", "trusty", "upbeat", "vivid", "warm", "wise", "witty",
	}
}

func nouns() []string {
	return []string{
		"alcove", "anchor", "arbor", "attic", "awning", "barn", "basin", "bay", "beacon", "bench",
		"berth", "bower", "bridge", "burrow", "cabin", "canopy", "cave", "cellar", "chalet", "chapel",
		"cloister", "coop", "copse", "corner", "cottage", "court", "cove", "cradle", "cubby", "dell",
		"den", "dock", "drey", "eyrie", "fold", "garret", "gazebo", "glade", "glen", "grotto",
		"grove", "hamlet", "harbor", "haven", "hearth", "hedge", "hive", "hollow", "hut", "inlet",
		"kiln", "lair", "landing", "ledge", "loft", "lodge", "manger", "meadow", "mill", "mooring",
		"nest", "niche", "oasis", "parlor", "pen", "perch", "pier", "porch", "port", "recess",
		"roost", "shed", "shelter", "shelf", "stable", "studio", "tent", "terrace", "tower", "warren",
	}
}
