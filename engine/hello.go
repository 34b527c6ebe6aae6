package engine

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"nook/images"
)

// hello is the built-in image: one layer that holds nook's own executable as
// /hello. It is made on first use and is from then on an image as any other.

const (
	helloName = "hello"
	// helloFrom on the image's entry says which executable it was made from.
	// The store keeps names that begin with "nook." to itself.
	helloFrom = "hello.made.from"
)

// ensureHello makes the built-in image when name means it and it isn't there,
// or was made from another build of nook, whose image then goes.
func (e *Engine) ensureHello(ctx context.Context, name string) error {
	ref, err := images.ParseReference(name)
	if err != nil || ref.Familiar() != helloName {
		return nil //nolint:nilerr // what isn't a name is refused by whoever resolves it
	}
	from, err := identity()
	if err != nil {
		return fmt.Errorf("make the built-in image: %w", err)
	}
	old, err := e.images.Resolve(helloName)
	switch {
	case err == nil && (old.Annotations[helloFrom] == from || old.Annotations[helloFrom] == ""):
		return nil // ours of today, or an image that a person called hello
	case err != nil && !errors.Is(err, images.ErrNotFound):
		return err
	}
	img, err := e.makeHello(ctx, from)
	if err != nil {
		return fmt.Errorf("make the built-in image: %w", err)
	}
	if old.ID == "" || old.ID == img.ID {
		return nil
	}
	// The name has moved; without one the older build's image would stay for
	// ever. A container that still uses it keeps it until it goes itself.
	if _, err := e.RemoveImage(ctx, old.ID, false); err != nil && !errors.Is(err, images.ErrInUse) && !errors.Is(err, images.ErrNotFound) {
		return fmt.Errorf("remove the older built-in image: %w", err)
	}
	return nil
}

// identity is cheap and differs for each build: device, inode, size and the
// times of the executable. The same file under another name is the same.
func identity() (string, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/exe", &st); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x-%x-%x-%x", st.Dev, st.Ino, st.Size, st.Mtim.Nano()), nil
}

func (e *Engine) makeHello(ctx context.Context, from string) (images.Image, error) {
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		return images.Image{}, err
	}
	defer exe.Close()
	st, err := exe.Stat()
	if err != nil {
		return images.Image{}, err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(helloLayer(w, exe, st.Size())) }()
	defer r.Close()
	pins := e.pins(ctx)
	defer pins.release()
	return e.images.Import(ctx, images.ImportOptions{
		Input: r, Name: helloName, Message: "nook's own executable",
		// The same executable makes the same image, whenever it does.
		Created: time.Unix(0, 0).UTC(),
		Config: images.ContainerConfig{
			Entrypoint: []string{"/hello"}, WorkingDir: "/",
			Env:    []string{"PATH=/"},
			Labels: map[string]string{"org.opencontainers.image.title": "hello, from nook"},
		},
		Annotations: map[string]string{helloFrom: from},
		Progress:    e.progress(), Unpack: pins.unpack,
	})
}

func helloLayer(w io.Writer, exe io.Reader, size int64) error {
	tw := tar.NewWriter(w)
	for _, dir := range []struct {
		name string
		mode int64
	}{{"./", 0o755}, {"etc/", 0o755}, {"tmp/", 0o1777}} {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir.name, Mode: dir.mode}); err != nil {
			return err
		}
	}
	for name, content := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/:/hello\n",
	} {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
			return err
		}
		if _, err := io.WriteString(tw, content); err != nil {
			return err
		}
	}
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "hello", Mode: 0o755, Size: size}); err != nil {
		return err
	}
	if _, err := io.Copy(tw, exe); err != nil {
		return err
	}
	return tw.Close()
}
