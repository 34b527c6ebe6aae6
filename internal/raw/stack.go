package raw

import "nook/internal/raw/walk"

// stack makes one for each fork.
func (a *arena) stack() *walk.Stack {
	m := a.alloc(walk.Size + walk.Align)
	if a.err != nil {
		return nil
	}
	at := (addressOf(m) + walk.Align - 1) &^ (walk.Align - 1)
	s := (*walk.Stack)(walk.Pointer(uintptr(at)))
	a.stacks = append(a.stacks, s)
	return s
}

// walked tells whether a child runs steps still. The list is in the order of
// parts before wholes; the one who forks must be looked at before the forked.
func (a *arena) walked() bool {
	for i := len(a.stacks) - 1; i >= 0; i-- {
		if a.stacks[i].Living() {
			return true
		}
	}
	return false
}
