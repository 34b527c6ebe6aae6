package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/images/layers"
	"nook/internal/atomicfile"
	"nook/internal/hint"
	"nook/rootfs/volumes"
)

// volumeTarJob writes a volume's files to the pipe, or reads them from there.
type volumeTarJob struct {
	Name   string `json:"name"`
	Dir    string `json:"dir,omitempty"` // where the files are; "": in the volume's own directory
	Import bool   `json:"import,omitempty"`
}

// ExportVolume writes all files of a volume as a tar stream, with the owners
// that they have in containers. Those who use it may write meanwhile: stop
// them first for a state of one moment.
func (e *Engine) ExportVolume(ctx context.Context, name string, w io.Writer) error {
	v, err := e.ownVolume(name)
	if err != nil {
		return err
	}
	job := &volumeTarJob{Name: name}
	switch v.Options["type"] {
	case "":
	case "tmpfs":
		return hint.Errorf("use nook cp with the container that has it", "export volume %s: it is in memory, while a container runs", name)
	default:
		job.Dir = v.Options["device"]
	}
	if err := e.exportVolume(ctx, job, w); err != nil {
		return fmt.Errorf("export volume %s: %w", name, err)
	}
	// Files that were removed meanwhile are no errors, and these would be all.
	if after, err := e.volumes.Get(name); err != nil || !after.Created.Equal(v.Created) {
		return hint.Errorf("what was written is not all of it", "export volume %s: it was removed meanwhile", name)
	}
	return nil
}

func (e *Engine) exportVolume(ctx context.Context, job *volumeTarJob, w io.Writer) error {
	var f fds
	defer f.close()
	r, pipe := f.pipe()
	if f.err != nil {
		return f.err
	}
	widen(r)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in := f.file(r, "files of volume "+job.Name)
	pipe = f.take(pipe)
	done := make(chan error, 1)
	go func() {
		done <- e.stageWith(ctx, request{VolumeTar: job}, outfitted{files: []int{pipe}}, e.tellNotes)
	}()
	_, err := io.Copy(w, in)
	if err != nil {
		cancel()
	}
	_ = in.Close()
	if serr := <-done; err == nil {
		err = serr
	}
	return err
}

func (e *Engine) tellNotes(ev event) {
	if ev.Note != "" {
		e.note("%s", ev.Note)
	}
}

// ownVolume finds a volume of this mode of ids.
func (e *Engine) ownVolume(name string) (volumes.Volume, error) {
	v, err := e.volumes.Get(name)
	if err == nil && v.IDs != "" && v.IDs != string(e.ids.Mode) {
		err = hint.Errorf("use --ids "+v.IDs, "volume %s was made with %s ids, and these are %s", name, v.IDs, e.ids.Mode)
	}
	return v, err
}

// ImportVolume unpacks a tar stream, packed or not, into a volume, which is
// made where it isn't there and else must be empty (volumes.ErrHasFiles). It is
// all there afterwards, or none of it, with the owners that the stream tells, as
// far as they exist.
func (e *Engine) ImportVolume(ctx context.Context, name string, tarStream io.Reader) error {
	made, err := e.volumeForImport(ctx, name)
	if err != nil {
		return fmt.Errorf("import volume %s: %w", name, e.noRoom(err))
	}
	err = e.importVolume(ctx, &volumeTarJob{Name: name, Import: true}, tarStream)
	if err == nil {
		return nil
	}
	if made {
		_ = e.RemoveVolume(context.WithoutCancel(ctx), name, RemoveVolumeOptions{Force: true})
	}
	return fmt.Errorf("import volume %s: %w", name, e.noRoom(err))
}

// volumeForImport finds or makes a volume whose files are in its directory.
func (e *Engine) volumeForImport(ctx context.Context, name string) (made bool, err error) {
	done, err := e.volumes.Use(ctx)
	if err != nil {
		return false, err
	}
	defer done()
	_, made, err = e.volumes.Create(volumes.Volume{Name: name, IDs: string(e.ids.Mode)}, atomicfile.Durable)
	if err != nil {
		return made, err
	}
	if made {
		e.volumeEvent("create", name)
	}
	v, err := e.ownVolume(name)
	if err != nil {
		return made, err
	}
	if len(v.Options) > 0 {
		return made, hint.Errorf("unpack it where its files are", "it is a mount of type %s", v.Options["type"])
	}
	if empty, err := e.volumes.Empty(name); err == nil && !empty {
		return made, hint.Errorf("import into a new one, or remove this one first: nook volume rm "+name, "%w", volumes.ErrHasFiles)
	}
	return made, nil
}

func (e *Engine) importVolume(ctx context.Context, job *volumeTarJob, tarStream io.Reader) error {
	var f fds
	defer f.close()
	r, w := f.pipe()
	if f.err != nil {
		return f.err
	}
	widen(w)
	pipe := f.file(w, "files of volume "+job.Name)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	fed, over := make(chan error, 1), make(chan struct{})
	go func() {
		err := feedTar(pipe, tarStream)
		fed <- err
		if err != nil && !errors.Is(err, unix.EPIPE) {
			// The stage must not take what it got for all: it sees no end.
			cancel()
			<-over
		}
		_ = pipe.Close()
	}()
	err := e.stageWith(ctx, request{VolumeTar: job}, outfitted{files: []int{f.take(r)}}, e.tellNotes)
	close(over)
	// One that waits for its input is not waited for: the stage has ended.
	select {
	case cause := <-fed:
		if cause != nil && !errors.Is(cause, unix.EPIPE) {
			return cause
		}
	default:
	}
	return err
}

// feedTar unpacks a stream and refuses one without the zeros that a tar stream
// ends with (tar(5)): it was cut short.
func feedTar(w io.Writer, stream io.Reader) error {
	in, _, err := layers.Decompress(stream)
	if err != nil {
		return err
	}
	defer in.Close()
	t := &tail{w: w}
	if _, err := io.Copy(t, in); err != nil {
		return err
	}
	if t.last != [tarBlock]byte{} || t.n < tarBlock {
		return fmt.Errorf("the tar stream was cut short: %w", io.ErrUnexpectedEOF)
	}
	return nil
}

// tarBlock is the unit of tar streams.
const tarBlock = 512

// tail keeps the last block of what is written.
type tail struct {
	w    io.Writer
	last [tarBlock]byte
	n    int64
}

func (t *tail) Write(p []byte) (int, error) {
	n, err := t.w.Write(p)
	t.n += int64(n)
	if p = p[:n]; n >= tarBlock {
		copy(t.last[:], p[n-tarBlock:])
	} else {
		copy(t.last[:], t.last[n:])
		copy(t.last[tarBlock-n:], p)
	}
	return n, err
}

// volumeTar is the stage's part.
func (s *stageRun) volumeTar(ctx context.Context) error {
	job := s.req.VolumeTar
	const fd = stageFD + 1
	unix.CloseOnExec(fd)
	// Non-blocking, so that Close ends a read that waits.
	_ = unix.SetNonblock(fd, true)
	data := os.NewFile(fd, "pipe")
	defer data.Close()
	stop := context.AfterFunc(ctx, func() { _ = data.Close() })
	defer stop()
	note := func(text string) { s.tell(event{Note: text}) }
	store := containers.Open(containersDir(s.req.Root)).Volumes()
	if job.Import {
		return firstErr(ctx.Err, store.Import(ctx, job.Name, data, note))
	}
	if store.Pending(job.Name) {
		if err := store.Finish(ctx, job.Name); err != nil {
			return err
		}
	}
	if job.Dir == "" {
		return firstErr(ctx.Err, store.Export(ctx, job.Name, data, note))
	}
	return firstErr(ctx.Err, volumes.Export(ctx, job.Dir, data, note))
}

// firstErr gives the cause of an error that came with the end of a context.
func firstErr(cause func() error, err error) error {
	if err != nil && cause() != nil {
		return cause()
	}
	return err
}
