package build

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

func TestAddOfURLs(t *testing.T) {
	modified := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/dir/file", "/", "/dir/..", "/dir/.", "/dir/a\x00b", "/dir/a/b":
			w.Header().Set("Last-Modified", modified.Format(http.TimeFormat))
			_, _ = w.Write([]byte("text"))
		case "/short":
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("cut"))
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	sum := sha256.Sum256([]byte("text"))
	good := "sha256:" + hex.EncodeToString(sum[:])
	for name, tc := range map[string]struct{ line, name, err string }{
		"into a directory": {"ADD U/dir/file /d/", "/d/file", ""},
		"to a name":        {"ADD U/dir/file /d", "/d", ""},
		"a query":          {"ADD U/dir/file?x=1 /d/", "/d/file", ""},
		"no name, a file":  {"ADD U/ /d", "/d", ""},
		"no name":          {"ADD U/ /d/", "", "names no file"},
		"dots":             {"ADD U/dir/%2e%2e /d/", "", "/dir/%2e%2e names no file"},
		"a dot":            {"ADD U/dir/%2e /d/", "", "names no file"},
		"a zero byte":      {"ADD U/dir/a%00b /d/", "", "names no file"},
		"a slash":          {"ADD U/dir/a%2fb /d/", "/d/b", ""},
		"dots to a name":   {"ADD U/dir/%2e%2e /d", "/d", ""},
		"checksum":         {"ADD --checksum=" + good + " U/dir/file /d", "/d", ""},
		"variable":         {"ARG N=file\nADD --checksum=$NO U/dir/$N /d", "/d", ""},
		"wrong checksum":   {"ADD --checksum=sha256:" + strings.Repeat("0", 64) + " U/dir/file /d", "", "its digest is " + good},
		"bad checksum":     {"ADD --checksum=md5:00 U/dir/file /d", "", "invalid checksum: md5:00"},
		"missing":          {"ADD U/none /d", "", "404 Not Found"},
		"cut short":        {"ADD U/short /d", "", "unexpected EOF"},
		"with a file":      {"ADD a U/dir/file /d/", "/d/file", ""},
		"ftp":              {"ADD ftp://h/x /d", "", "not found"},
		"copy knows none":  {"COPY U/dir/file /d", "", "is a URL"},
		"nobody listens":   {"ADD http://127.0.0.1:1/x /d", "", "connection refused"},
		"ssh":              {"ADD --checksum=" + good + " git@h:r.git /d", "", "invalid checksum: sha256:"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			_, err := f.try(t, "FROM base\n"+strings.ReplaceAll(tc.line, "U/", server.URL+"/"), map[string]string{"a": "A"}, nil)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("got %v, want %s", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			last := f.copies[len(f.copies)-1]
			if _, ok := f.files(f.made.State)[tc.name]; !ok || last.Unpack || !last.Time.Equal(modified) {
				t.Errorf("%q, %+v", f.files(f.made.State), last)
			}
			if file := last.From.Tree.Files[0]; file.Mode != 0o600 {
				t.Errorf("%+v", file)
			}
		})
	}
}

// What a build fetched is gone when its directory is; a fetch that fails says
// so at the line.
func TestFetchedFilesAreBelowTemp(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("x")) }))
	defer server.Close()
	f := newFake()
	temp := t.TempDir()
	if _, err := f.try(t, "FROM base\nADD "+server.URL+"/x /", nil, func(o *Options) { o.Temp = temp }); err != nil {
		t.Fatal(err)
	}
	if path := f.copies[0].From.Tree.Files[0].Path; !strings.HasPrefix(path, temp+string(os.PathSeparator)) {
		t.Errorf("%s is not below %s", path, temp)
	}
}

func TestRedacted(t *testing.T) {
	for text, want := range map[string]string{
		"ADD http://me:s3cret@h/f /q":             "ADD http://me:xxxxx@h/f /q",
		"ADD https://t0ken@h/f git://a:b@h:1/r#x": "ADD https://t0ken@h/f git://a:xxxxx@h:1/r#x",
		"ADD [\"http://a:p@w@h/f\", \"/q\"]":      "ADD [\"http://a:xxxxx@h/f\", \"/q\"]",
		"COPY a://b c@d":                          "COPY a://b c@d",
		"ADD http://h/a:b@c /":                    "ADD http://h/a:b@c /",
		"":                                        "",
	} {
		if got := redacted(text); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

// The password of a URL is for the server, and for nobody who has the image.
func TestHistoryHasNoPasswords(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != "s3cret" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer server.Close()
	f := newFake()
	var told strings.Builder
	_, err := f.try(t, "FROM base\nADD "+strings.Replace(server.URL, "://", "://me:s3cret@", 1)+"/f /q\n", nil, func(o *Options) {
		o.Event = func(e Event) { told.WriteString(e.Text) }
	})
	if err != nil {
		t.Fatal(err)
	}
	if all := fmt.Sprint(f.made.History, told.String()); strings.Contains(all, "s3cret") || !strings.Contains(all, "me:xxxxx@") {
		t.Error(all)
	}
}
