package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"nook/build/dockerfile"
	"nook/internal/hint"
)

// remote is a source of ADD that is a URL: a file, or a git repository.
func (c *chain) remote(ctx context.Context, cmd *dockerfile.Copy, source string, common CopySpec) (part, error) {
	dir, err := os.MkdirTemp(c.s.o.Temp, "add")
	if err != nil {
		return part{}, err
	}
	if isGit(source) {
		if cmd.Checksum != "" && (len(cmd.Checksum) < 7 || strings.Trim(cmd.Checksum, "0123456789abcdef") != "") {
			return part{}, hint.Errorf("of a repository it is a commit, or seven letters of one or more", "invalid checksum: %s", cmd.Checksum)
		}
		step := c.s.begin("[internal] load git source " + redacted(source))
		tree, err := cloneGit(ctx, gitSource{source, cmd.KeepGitDir, cmd.Checksum}, filepath.Join(dir, "git"), step)
		step.end(ctx, err)
		if err != nil {
			return part{}, err
		}
		return part{tree: Tree{Dir: tree}, copy: common, spec: SelectSpec{Sources: []string{"."}, Exclude: cmd.Exclude, Literal: true}}, nil
	}
	if !strings.HasPrefix(source, "http://") && !strings.HasPrefix(source, "https://") {
		return part{}, hint.Errorf("http, https and git are known", "unknown kind of source: %s", source)
	}
	step := c.s.begin("[internal] load remote source " + redacted(source))
	file, err := download(ctx, source, filepath.Join(dir, "file"), cmd.Checksum)
	step.end(ctx, err)
	if err != nil {
		return part{}, err
	}
	if common.ToDir && file.Name == "" {
		return part{}, hint.Errorf("name the file in the destination", "%s names no file", source)
	}
	if file.Name == "" {
		file.Name = path.Base(common.Dest)
	}
	one := filesPart([]File{file}, common)
	one.copy.Unpack = cmd.Unpack != nil && *cmd.Unpack
	one.copy.Time = file.Time
	return one, nil
}

// nameIn is the file that a URL's path names, without its escapes; "": none
// that could be made.
func nameIn(unsafePath string) string {
	switch base := path.Base(unsafePath); {
	case base == "/", base == ".", base == "..", strings.HasSuffix(unsafePath, "/"), strings.Contains(base, "\x00"):
		return ""
	default:
		return base
	}
}

// download gets a file into dst and checks it.
func download(ctx context.Context, source, dst, checksum string) (File, error) {
	u, err := url.Parse(source)
	if err != nil {
		return File{}, err
	}
	algorithm, want, _ := strings.Cut(checksum, ":")
	if checksum != "" && (algorithm != "sha256" || len(want) != sha256.Size*2) {
		return File{}, hint.Errorf("write it like sha256:HEX", "invalid checksum: %s", checksum)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, source, nil)
	if err != nil {
		return File{}, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		if inner, ok := errors.AsType[*url.Error](err); ok {
			err = inner.Err
		}
		return File{}, fmt.Errorf("get %s: %w", u.Redacted(), err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return File{}, fmt.Errorf("get %s: %s", u.Redacted(), res.Status)
	}
	f, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(f, h), res.Body); err != nil {
		return File{}, fmt.Errorf("get %s: %w", u.Redacted(), err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); checksum != "" && got != want {
		return File{}, fmt.Errorf("get %s: its digest is sha256:%s, not %s", u.Redacted(), got, checksum)
	}
	file := File{Path: dst, Mode: 0o600}
	file.Name = nameIn(u.Path)
	// Docker gives the file the time that the server says.
	if t, err := http.ParseTime(res.Header.Get("Last-Modified")); err == nil {
		file.Time = t
	} else {
		file.Time = time.Unix(0, 0)
	}
	return file, f.Close()
}
