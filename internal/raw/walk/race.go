//go:build race

package walk

// RaceDetector: what it adds to a build can't run in a child that shares our
// memory.
const RaceDetector = true
