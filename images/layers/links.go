package layers

import (
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"
)

// link is a hard link to a file of a layer below.
type link struct {
	dir     *dir
	name    string
	target  string
	dropped bool
}

// hardLink links to a file of this layer, or leaves it to Finish.
func (l *Layer) hardLink(d *dir, name, unsafeTarget string) error {
	target, err := cleanName(unsafeTarget)
	if err != nil {
		return fmt.Errorf("a hard link to %s: %w", printable(unsafeTarget), err)
	}
	if kind, _, err := parseMarker(target); kind != noMarker || err != nil || target == "." {
		return fmt.Errorf("a hard link to %s, which is no file", printable(unsafeTarget))
	}
	above, base := path.Split(target)
	from, err := l.tree.walk(l.tree.root, above, false)
	if errors.Is(err, errAbsent) {
		return l.later(d, name, target)
	}
	if err != nil {
		return fmt.Errorf("a hard link to %s: %w", printable(unsafeTarget), err)
	}
	if from == d && base == name {
		return nil
	}
	fromFD, err := l.tree.handle(from)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	err = unix.Fstatat(fromFD, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT) && !from.gone[base], err == nil && from.waits[base] != nil:
		return l.later(d, name, target)
	case errors.Is(err, unix.ENOENT), err == nil && whiteoutStat(&st):
		return fmt.Errorf("a hard link to %s, which the layer removes", printable(unsafeTarget))
	case err != nil:
		return fmt.Errorf("fstatat: %w", err)
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return fmt.Errorf("a hard link to %s, which is a directory", printable(unsafeTarget))
	}
	return l.linkTo(from, base, d, name)
}

// linkTo links a file of this layer.
func (l *Layer) linkTo(from *dir, base string, d *dir, name string) error {
	if target, ok := from.links[base]; ok {
		defer func() { // after put, which forgets what had the name
			if d.links == nil {
				d.links = map[string]string{}
			}
			d.links[name] = target
		}()
	}
	err := l.put(d, name, func(fd int) error {
		// put may have closed the descriptor that was open before.
		fromFD, err := l.tree.handle(from)
		if err != nil {
			return err
		}
		if err := unix.Linkat(fromFD, base, fd, name, 0); err != nil {
			return fmt.Errorf("link: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if o, ok := from.owners[base]; ok {
		if d.owners == nil {
			d.owners = map[string]Owner{}
		}
		d.owners[name] = o
	}
	return nil
}

// later notes a hard link for Finish. What has its name is replaced now.
func (l *Layer) later(d *dir, name, target string) error {
	if err := l.tree.clear(d, name); err != nil {
		return err
	}
	w := &link{dir: d, name: name, target: target}
	if d.waits == nil {
		d.waits = map[string]*link{}
	}
	d.waits[name] = w
	l.links = append(l.links, w)
	return nil
}
