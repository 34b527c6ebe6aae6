package layers

// Sizes gives for each layer of an unpacked image, bottom to top, how many
// bytes its files have: what docker calls its size. The error is that of Chain.
func (s *Store) Sizes(diffIDs []string) ([]int64, error) {
	c, err := s.Chain(diffIDs)
	if err != nil {
		return nil, err
	}
	sizes := make([]int64, len(c.Keys))
	for i, key := range c.Keys {
		m, err := s.readMeta(key)
		if err != nil {
			return nil, err
		}
		sizes[i] = m.Bytes
	}
	return sizes, nil
}
