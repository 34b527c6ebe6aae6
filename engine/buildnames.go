package engine

import (
	"encoding/json"
	"strings"
)

// names are file names on their way to a stage. A JSON string has UTF-8 only,
// a file name anything but NUL.
type names []string

// MarshalJSON writes them as bytes, with a NUL between two.
func (n names) MarshalJSON() ([]byte, error) {
	if n == nil {
		return []byte("null"), nil
	}
	return json.Marshal([]byte(strings.Join(n, "\x00")))
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (n *names) UnmarshalJSON(data []byte) error {
	var text []byte
	if err := json.Unmarshal(data, &text); err != nil || text == nil {
		*n = nil
		return err
	}
	*n = names{}
	if len(text) > 0 {
		*n = strings.Split(string(text), "\x00")
	}
	return nil
}

// itemOnTheWay is a copyItem as JSON has it.
type itemOnTheWay struct {
	Names names `json:"names"` // From, Name, Pivot
	Above names `json:"above"`
	Dir   bool  `json:"dir,omitempty"`
}

// MarshalJSON keeps names that aren't UTF-8.
func (item copyItem) MarshalJSON() ([]byte, error) {
	return json.Marshal(itemOnTheWay{names{item.From, item.Name, item.Pivot}, item.Above, item.Dir})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (item *copyItem) UnmarshalJSON(data []byte) error {
	var way itemOnTheWay
	if err := json.Unmarshal(data, &way); err != nil {
		return err
	}
	*item = copyItem{Above: way.Above, Dir: way.Dir}
	if len(way.Names) == 3 {
		item.From, item.Name, item.Pivot = way.Names[0], way.Names[1], way.Names[2]
	}
	return nil
}
