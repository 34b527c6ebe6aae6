package safepath

import "os"

// RootAt takes a directory that is open already, with O_PATH or not, as a
// root. Closing the root closes it.
func RootAt(dir *os.File) *Root { return &Root{dir: dir, walk: Openat2Refused()} }
