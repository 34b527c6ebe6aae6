// Package nearest finds the word that somebody meant who mistyped it.
//
//	nearest.Word("tagret", []string{"root", "target"}) // target
package nearest

// Word is the known word that differs from s in the fewest letters, "" when none
// is near: in two at most, and in no more than half of them.
func Word(s string, known []string) string {
	best, least := "", min(2, len(s)/2)+1
	for _, k := range known {
		if len(s) > len(k)+least || len(k) > len(s)+least {
			continue // a word may be as long as a file
		}
		if d := distance(s, k); d < least || d == least && k < best {
			best, least = k, d
		}
	}
	return best
}

// distance is Levenshtein's, with two letters that changed places as one step.
func distance(a, b string) int {
	before, above := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range above {
		above[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := above[j]
			if a[i] != b[j] {
				cost++
			}
			row[j+1] = min(cost, row[j]+1, above[j+1]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, above = above, row
	}
	return above[len(b)]
}
