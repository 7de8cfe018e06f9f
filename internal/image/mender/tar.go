package mender

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/writ-project/writ/internal/image"
)

// This is the encoder's own reader and writer of tar, deliberately not the one
// that Inspect and Verify use. It knows regular files in POSIX and GNU tar.

const blockSize = 512

// tarReader reads one tar. Its Read is the content of the current file.
type tarReader struct {
	r         io.Reader
	off       int64 // bytes read from r
	left, pad int64 // of the current file
}

// next goes to the next file. It ends with io.EOF, after the two blocks of
// zeros.
func (t *tarReader) next() (string, int64, error) {
	if err := t.discard(t.left + t.pad); err != nil {
		return "", 0, err
	}
	t.left, t.pad = 0, 0
	override := int64(-1)
	for {
		var h [blockSize]byte
		if err := t.block(&h); err != nil {
			return "", 0, err
		}
		if h == ([blockSize]byte{}) {
			if err := t.block(&h); err != nil {
				return "", 0, err
			}
			if h != ([blockSize]byte{}) || override >= 0 {
				return "", 0, fmt.Errorf("tar: something follows the end: %w", image.ErrMalformed)
			}
			return "", 0, io.EOF
		}
		name, size, err := header(&h)
		if err != nil {
			return "", 0, err
		}
		switch kind := h[156]; kind {
		case '0', 0:
			if override >= 0 {
				size = override
			}
			t.left, t.pad = size, (blockSize-size%blockSize)%blockSize
			return name, size, nil
		case 'x':
			if override, err = t.extended(size); err != nil {
				return "", 0, err
			}
		default:
			return "", 0, fmt.Errorf("tar: %q is of type %q, want a regular file: %w", name, kind, image.ErrMalformed)
		}
	}
}

// header reads name and size from one block.
func header(h *[blockSize]byte) (string, int64, error) {
	sum := int64(8 * ' ')
	for i, b := range h {
		if i < 148 || i >= 156 {
			sum += int64(b)
		}
	}
	if said, err := number(h[148:156]); err != nil || said != sum {
		return "", 0, fmt.Errorf("tar: a header has the checksum %d, want %d: %w", said, sum, image.ErrMalformed)
	}
	name, _, _ := bytes.Cut(h[:100], []byte{0})
	if bytes.HasPrefix(h[257:], []byte("ustar\x00")) && h[345] != 0 {
		return "", 0, fmt.Errorf("tar: the name of %q is split over two fields: %w", name, image.ErrMalformed)
	}
	size, err := number(h[124:136])
	if err != nil || size < 0 || len(name) == 0 {
		return "", 0, fmt.Errorf("tar: %q has the size % x: %w", name, h[124:136], image.ErrMalformed)
	}
	return string(name), size, nil
}

// number reads an octal field, or a large one in binary (GNU).
func number(b []byte) (int64, error) {
	if b[0] == 0x80 {
		var n int64
		for _, v := range b[1:] {
			if n > 1<<54 {
				return 0, strconv.ErrRange
			}
			n = n<<8 | int64(v)
		}
		return n, nil
	}
	text := strings.Trim(string(b), " \x00")
	if text == "" {
		return 0, nil
	}
	return strconv.ParseInt(text, 8, 63)
}

// extended reads a PAX header for the next file: lines of length, space, key,
// "=", value and line feed. It returns the size it says, or -1.
func (t *tarReader) extended(size int64) (int64, error) {
	bad := fmt.Errorf("tar: extended header is not understood: %w", image.ErrMalformed)
	if size > 64<<10 {
		return 0, bad
	}
	b := make([]byte, size)
	if err := t.full(b); err != nil {
		return 0, err
	}
	if err := t.discard((blockSize - size%blockSize) % blockSize); err != nil {
		return 0, err
	}
	out := int64(-1)
	for len(b) > 0 {
		digits, _, ok := bytes.Cut(b, []byte(" "))
		n, err := strconv.Atoi(string(digits))
		if !ok || err != nil || n <= len(digits)+1 || n > len(b) || b[n-1] != '\n' {
			return 0, bad
		}
		key, value, _ := strings.Cut(string(b[len(digits)+1:n-1]), "=")
		b = b[n:]
		switch key {
		case "uid", "gid", "uname", "gname", "mtime", "atime", "ctime":
		case "size":
			if out, err = strconv.ParseInt(value, 10, 63); err != nil || out < 0 {
				return 0, bad
			}
		default:
			return 0, fmt.Errorf("tar: extended header %q: %w", key, image.ErrMalformed)
		}
	}
	return out, nil
}

func (t *tarReader) Read(p []byte) (int, error) {
	if t.left == 0 {
		return 0, io.EOF
	}
	n, err := t.r.Read(p[:min(int64(len(p)), t.left)])
	t.off += int64(n)
	t.left -= int64(n)
	if errors.Is(err, io.EOF) && t.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (t *tarReader) block(h *[blockSize]byte) error { return t.full(h[:]) }

func (t *tarReader) full(b []byte) error {
	n, err := io.ReadFull(t.r, b)
	t.off += int64(n)
	return noEOF(err)
}

func (t *tarReader) discard(n int64) error {
	m, err := io.CopyN(io.Discard, t.r, n)
	t.off += m
	return noEOF(err)
}

// noEOF turns an end where none belongs into an error that says so.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// entry returns a file as mender-artifact writes it: mode 0600, no owner, no
// time.
func entry(name string, content []byte) []byte {
	h := make([]byte, blockSize)
	put := func(off int, s string) { copy(h[off:], s) }
	put(0, name)
	put(100, "0000600\x00")
	put(108, "0000000\x00")
	put(116, "0000000\x00")
	put(124, fmt.Sprintf("%011o\x00", len(content)))
	put(136, "00000000000\x00")
	put(148, "        ")
	put(156, "0")
	put(257, "ustar\x0000")
	put(329, "0000000\x00")
	put(337, "0000000\x00")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	put(148, fmt.Sprintf("%06o\x00 ", sum))
	h = append(h, content...)
	return append(h, make([]byte, (blockSize-len(content)%blockSize)%blockSize)...)
}
