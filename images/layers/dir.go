package layers

// Dir is the lower directory of one layer, for who kept its key.
func (s *Store) Dir(key string) string { return s.fsPath(key) }
