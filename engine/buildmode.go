package engine

import (
	"fmt"
	"strconv"
	"strings"

	"nook/internal/hint"
)

// parseChmod reads --chmod: octal, or symbolic as of chmod(1) without the
// letters that copy one group's bits to another. nil: "".
func parseChmod(spec string) (func(mode uint32, dir bool) uint32, error) {
	if spec == "" {
		return nil, nil
	}
	if n, err := strconv.ParseUint(spec, 8, 32); err == nil && n <= 0o7777 {
		return func(uint32, bool) uint32 { return uint32(n) }, nil
	}
	wrong := func() error {
		return hint.Errorf("--chmod takes octal digits, or clauses such as u=rwX,go=rX", "--chmod %s: not a mode", spec)
	}
	var clauses []chmodClause
	for text := range strings.SplitSeq(spec, ",") {
		c, ok := parseClause(text)
		if !ok {
			return nil, fmt.Errorf("%w", wrong())
		}
		clauses = append(clauses, c...)
	}
	return func(mode uint32, dir bool) uint32 {
		for _, c := range clauses {
			mode = c.apply(mode, dir)
		}
		return mode
	}, nil
}

// chmodClause is one of who, how and what: u=rwX.
type chmodClause struct {
	who   string // of u, g and o
	how   byte   // + - =
	perms string // of r, w, x, X, s and t
}

func parseClause(text string) ([]chmodClause, bool) {
	at := strings.IndexAny(text, "+-=")
	if at < 0 {
		return nil, false
	}
	who := text[:at]
	if strings.Trim(who, "ugoa") != "" {
		return nil, false
	}
	if who == "" || strings.Contains(who, "a") {
		who = "ugo"
	}
	var list []chmodClause
	for rest := text[at:]; rest != ""; {
		how := rest[0]
		rest = rest[1:]
		end := strings.IndexAny(rest, "+-=")
		if end < 0 {
			end = len(rest)
		}
		if strings.Trim(rest[:end], "rwxXst") != "" {
			return nil, false
		}
		list = append(list, chmodClause{who, how, rest[:end]})
		rest = rest[end:]
	}
	return list, true
}

func (c chmodClause) apply(mode uint32, dir bool) uint32 {
	var bits, mask uint32
	for _, who := range c.who {
		shift := map[rune]uint{'u': 6, 'g': 3, 'o': 0}[who]
		mask |= 7 << shift
		for _, p := range c.perms {
			switch p {
			case 'r':
				bits |= 4 << shift
			case 'w':
				bits |= 2 << shift
			case 'x':
				bits |= 1 << shift
			case 'X':
				if dir || mode&0o111 != 0 {
					bits |= 1 << shift
				}
			case 's':
				bits |= map[rune]uint32{'u': 0o4000, 'g': 0o2000}[who]
			case 't':
				bits |= 0o1000
			}
		}
		mask |= map[rune]uint32{'u': 0o4000, 'g': 0o2000}[who]
	}
	switch c.how {
	case '+':
		return mode | bits
	case '-':
		return mode &^ bits
	}
	return mode&^mask | bits
}
