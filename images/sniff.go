package images

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// magics are the first bytes of what people take for an image archive.
var magics = []struct{ magic, name string }{
	{"\x7fELF", "an ELF executable"},
	{"PK\x03\x04", "a zip archive"},
	{"PK\x05\x06", "a zip archive"},
	{"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"},
	{"\xfd7zXZ\x00", "compressed with xz"},
	{"BZh", "compressed with bzip2"},
	{"\x04\x22\x4d\x18", "compressed with lz4"},
	{"hsqs", "a squashfs file system"},
	{"QFI\xfb", "a qcow2 disk image"},
	{"!<arch>\n", "a Debian package or ar archive"},
	{"\xed\xab\xee\xdb", "an RPM package"},
	{"070701", "a cpio archive"},
	{"%PDF-", "a PDF document"},
	{"\x89PNG", "a PNG picture"},
	{"#!", "a script"},
}

// whatIs says in a few words what begins with head, which isn't a tar archive;
// "" when it can't tell.
func whatIs(head []byte) string {
	if len(head) == 0 {
		return "an empty file"
	}
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return m.name
		}
	}
	// The last character may have been cut in two.
	for range utf8.UTFMax {
		if !utf8.Valid(head) {
			head = head[:len(head)-1]
		}
	}
	if utf8.Valid(head) && !bytes.ContainsRune(head, 0) {
		if trimmed := bytes.TrimSpace(head); bytes.HasPrefix(trimmed, []byte("{")) || bytes.HasPrefix(trimmed, []byte("[")) {
			return "a JSON text"
		}
		if bytes.HasPrefix(bytes.ToLower(bytes.TrimSpace(head)), []byte("<")) {
			return "an HTML or XML page"
		}
		return "a text file"
	}
	return ""
}

// foreignAdvice is what to do with what whatIs found.
func foreignAdvice(what string) string {
	if tool, found := strings.CutPrefix(what, "compressed with "); found {
		return "decompress it first: " + tool + " -dc FILE | nook load"
	}
	return "nook load reads what docker save, podman save, skopeo or buildah wrote: a tar archive or an OCI layout directory"
}

// layerTypeOf tells the media type of a layer from its first bytes; "" when
// they are those of a compression that images don't have.
func layerTypeOf(head []byte) string {
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		return mediaTypeLayerGzip
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")), isSkippableFrame(head):
		return mediaTypeLayerZstd
	case strings.HasPrefix(whatIs(head), "compressed with "):
		return ""
	}
	return mediaTypeLayer
}

// isSkippableFrame knows the frame that zstd:chunked and pzstd may begin with
// (RFC 8878, 3.1.2: 0x184D2A50 to 0x184D2A5F, little endian).
func isSkippableFrame(head []byte) bool {
	return len(head) >= 4 && head[0]&0xf0 == 0x50 && head[1] == 0x2a && head[2] == 0x4d && head[3] == 0x18
}
