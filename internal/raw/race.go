//go:build race

package raw

// raceDetector: what it adds to a build can't run in a child that shares our
// memory.
const raceDetector = true
