// Package probe asks the host a question once.
//
//	var openTree probe.Question
//
//	func openTreeRefused() bool { return openTree.Ask(func() bool { ... }) }
//
// It is sync.OnceValue without a function call when the program starts: the
// zero Question is ready, so that a package that probes has no initialisation,
// which every start of nook would pay for. Ask for the absence of something, not for
// its presence: a question that met a passing fault should not be answered no.
package probe

import "sync"

// Question is asked at most once. The zero value is ready.
type Question struct {
	once   sync.Once
	answer bool
}

// Ask returns what the first call's f returned.
func (q *Question) Ask(f func() bool) bool {
	q.once.Do(func() { q.answer = f() })
	return q.answer
}
