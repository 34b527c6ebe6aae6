package layers

import "fmt"

// maxNotes is how many notes of one layer are kept word for word.
const maxNotes = 50

// notes are what a person should know of a layer and no error is.
type notes struct {
	texts []string
	more  int
}

func (n *notes) add(format string, args ...any) {
	if len(n.texts) == maxNotes {
		n.more++
		return
	}
	n.texts = append(n.texts, fmt.Sprintf(format, args...))
}

func (n *notes) list() []string {
	if n.more == 0 {
		return n.texts
	}
	return append(n.texts[:len(n.texts):len(n.texts)], fmt.Sprintf("and %d more of the kind", n.more))
}
