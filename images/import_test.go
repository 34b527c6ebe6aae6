package images

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"nook/internal/testenv/testimage"
)

func TestImport(t *testing.T) {
	plain, err := small().Layers[0].Tar()
	if err != nil {
		t.Fatal(err)
	}
	for compression, mediaType := range map[string]string{
		testimage.Plain: mediaTypeLayer, testimage.Gzip: mediaTypeLayerGzip, testimage.Zstd: mediaTypeLayerZstd,
	} {
		t.Run("packed "+compression, func(t *testing.T) {
			data, err := testimage.Compress(compression, plain)
			if err != nil {
				t.Fatal(err)
			}
			s := newStore(t)
			created := time.Date(2020, 1, 2, 3, 4, 5, 6, time.UTC)
			opts := ImportOptions{
				Input: bytes.NewReader(data), Name: "root", Message: "by hand", Created: created,
				Config:      ContainerConfig{Cmd: []string{"sh"}},
				Annotations: map[string]string{"made.from": "x"},
				Unpack: func(_ context.Context, _ Image, layers []Layer) error {
					layers[0].UnpackedSize = int64(len(plain))
					return nil
				},
			}
			img, err := s.Import(t.Context(), opts)
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.Resolve("root")
			if err != nil || got.ID != img.ID || !slices.Equal(img.Names, got.Names) || got.Annotations["made.from"] != "x" ||
				got.UnpackedSize != int64(len(plain)) || !got.Created.Equal(created) {
				t.Errorf("resolved %+v, %v; imported %+v", got, err, img)
			}
			layers, err := s.Layers(got)
			if err != nil {
				t.Fatal(err)
			}
			if l := layers[0]; l.Digest != testimage.Digest(data) || l.DiffID != testimage.Digest(plain) || l.MediaType != mediaType {
				t.Errorf("got layer %+v, want what came in as %s", l, mediaType)
			}
			cfg, err := s.Config(got)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(cfg.Config.Cmd, []string{"sh"}) || cfg.Architecture != HostPlatform().Architecture || cfg.History[0].Comment != "by hand" {
				t.Errorf("got config %+v", cfg)
			}
			if CheckPlatform(cfg) != nil {
				t.Errorf("it doesn't run here: %v", CheckPlatform(cfg))
			}
			opts.Input = bytes.NewReader(data)
			if again, err := s.Import(t.Context(), opts); err != nil || again.Manifest.Digest != img.Manifest.Digest || len(list(t, s)) != 1 {
				t.Errorf("the same again is %+v, %v, want the same image", again, err)
			}
		})
	}
}

func TestImportRefuses(t *testing.T) {
	plain, err := small().Layers[0].Tar()
	if err != nil {
		t.Fatal(err)
	}
	gz, err := testimage.Compress(testimage.Gzip, plain)
	if err != nil {
		t.Fatal(err)
	}
	text, err := testimage.Compress(testimage.Gzip, []byte("no tar"))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, advice, want string
		data               []byte
		change             func(*ImportOptions)
	}{
		{"text", "reads a tar archive", "not a tar archive but a text file", []byte("hello"), nil},
		{"packed text", "reads a tar archive", "not a tar archive but a text file", text, nil},
		{"nothing", "reads a tar archive", "not a tar archive but an empty file", nil, nil},
		{"cut short", "download it again", "the archive is cut short", gz[:len(gz)-9], nil},
		{"xz", "reads a tar archive", "compressed with xz", []byte("\xfd7zXZ\x00"), nil},
		{"a bad name", "", `image name "X"`, plain, func(o *ImportOptions) { o.Name = "X" }},
		{"a bad platform", "linux/arm64", `platform "arm/" is not os/arch`, plain, func(o *ImportOptions) { o.Platform = "arm/" }},
		{"a reserved annotation", "", "can't be set", plain, func(o *ImportOptions) {
			o.Annotations = map[string]string{annotationConfig: "x"}
		}},
		{"a failing Unpack", "", "boom", plain, func(o *ImportOptions) {
			o.Unpack = func(context.Context, Image, []Layer) error { return errors.New("boom") }
		}},
		{"a year that JSON has no place for", "", "write image config", plain, func(o *ImportOptions) {
			o.Created = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newStore(t)
			opts := ImportOptions{Input: bytes.NewReader(test.data), Name: "x"}
			if test.change != nil {
				test.change(&opts)
			}
			_, err := s.Import(t.Context(), opts)
			wantError(t, err, test.want, test.advice)
			wantEmpty(t, s)
		})
	}
	s := newStore(t)
	_, err = s.Import(t.Context(), ImportOptions{Path: t.TempDir()})
	wantError(t, err, "is a directory", "tar -C DIR -c . | nook import - NAME")
	none := filepath.Join(t.TempDir(), "none")
	_, err = s.Import(t.Context(), ImportOptions{Path: none})
	if err == nil || err.Error() != "import "+none+": no such file or directory" || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
