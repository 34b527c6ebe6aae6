package testimage

import (
	"archive/tar"
	"fmt"
	"strconv"
)

const block = 512

// Hole is the blocks of a tar stream that stand for a file of size bytes which
// is all hole, as GNU tar 1.35 writes it with --sparse (its manual, "PAX Format,
// Version 1.0"). archive/tar reads such files and writes none.
func Hole(name string, size int64) []byte {
	var records string
	for _, r := range [][2]string{
		{"GNU.sparse.major", "1"}, {"GNU.sparse.minor", "0"},
		{"GNU.sparse.name", name}, {"GNU.sparse.realsize", strconv.FormatInt(size, 10)},
	} {
		records += record(r[0], r[1])
	}
	b := header("./PaxHeaders/x", tar.TypeXHeader, len(records))
	b = append(b, blocks(records)...)
	b = append(b, header("GNUSparseFile.0/x", tar.TypeReg, block)...)
	return append(b, blocks(fmt.Sprintf("1\n%d\n0\n", size))...)
}

// record is one of a PAX header: its length counts its own digits.
func record(key, value string) string {
	rest := " " + key + "=" + value + "\n"
	n := len(rest) + 1
	for len(strconv.Itoa(n))+len(rest) != n {
		n++
	}
	return strconv.Itoa(n) + rest
}

// blocks fills up the last one.
func blocks(text string) []byte {
	return append([]byte(text), make([]byte, -len(text)&(block-1))...)
}

func header(name string, kind byte, size int) []byte {
	b := make([]byte, block)
	copy(b, name)
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	copy(b[124:], fmt.Sprintf("%011o\x0000000000000\x00", size))
	b[156] = kind
	copy(b[257:], "ustar\x0000")
	copy(b[148:], "        ")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}
