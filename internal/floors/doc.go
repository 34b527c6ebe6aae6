// Package floors has no code, only the test that holds the house together: it
// parses the sources of the whole tree and checks that a package imports only
// packages of lower floors, that what runs inside a container reaches no
// server, command line or template, that only the command prints and exits,
// and that nothing runs before main.
//
//	go test ./internal/floors
//
// The table of floors stands in table_test.go. A new package needs a line
// there, which is the moment to ask whether it is on the right floor.
package floors
