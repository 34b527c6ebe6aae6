//go:build !race

package walk

// RaceDetector is explained in race.go.
const RaceDetector = false
