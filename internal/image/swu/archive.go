package swu

import (
	"context"
	"fmt"
	"io"
	"unicode"
	"unicode/utf8"

	"github.com/writ-project/writ/internal/image"
)

// entry is a file in the archive as Inspect and Verify see it.
type entry struct {
	name    string
	off     int64 // of its content
	size    int64
	checked bool   // the header has a checksum
	sum     uint32 // the sum of all bytes
}

// archive is a cpio archive whose structure is understood.
type archive struct {
	entries []entry
	padding int64 // zero bytes at the end of the file
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %w", fmt.Errorf(format, args...), image.ErrMalformed)
}

// readArchive reads the headers. Content is not looked at, but padding is: it
// must be zeros, as SWUpdate skips it unread.
func readArchive(ctx context.Context, r io.ReaderAt, size int64) (*archive, error) {
	a := &archive{}
	seen := map[string]bool{}
	pos := int64(0)
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		e, err := readEntry(r, size, pos)
		if err != nil {
			return nil, fmt.Errorf("reading file %d of the archive: %w", len(a.entries), err)
		}
		if e.name == nameTrailer {
			if e.size != 0 {
				return nil, malformed("the trailer of the archive has %d bytes of content", e.size)
			}
			a.padding = size - e.off
			return a, checkPadding(ctx, r, size, e.off)
		}
		if err := checkName(e.name); err != nil {
			return nil, err
		}
		if seen[e.name] {
			return nil, malformed("file %q is in the archive twice", e.name)
		}
		if len(a.entries) == MaxFiles {
			return nil, fmt.Errorf("the archive has more than %d files: %w", MaxFiles, image.ErrTooLarge)
		}
		seen[e.name] = true
		a.entries = append(a.entries, e)
		pos = align(e.off + e.size)
		if err := zeros(r, size, e.off+e.size, pos); err != nil {
			return nil, fmt.Errorf("padding after file %q: %w", e.name, err)
		}
	}
}

func align(n int64) int64 { return (n + 3) &^ 3 }

// readEntry reads the header at pos, its name and the padding after it.
func readEntry(r io.ReaderAt, size, pos int64) (entry, error) {
	var h [headerSize]byte
	if pos+headerSize > size {
		return entry{}, fmt.Errorf("the archive ends at %d without a trailer: %w", size, image.ErrTruncated)
	}
	if err := image.ReadAt(r, h[:], pos); err != nil {
		return entry{}, err
	}
	magic := string(h[:6])
	if magic != magicNew && magic != magicCRC {
		return entry{}, malformed("magic %q at offset %#x, want %s or %s", magic, pos, magicNew, magicCRC)
	}
	var fields [13]uint32
	for i := range fields {
		for _, c := range h[6+8*i : 14+8*i] {
			digit, ok := hexDigit(c)
			if !ok {
				return entry{}, malformed("byte %#02x in the header at offset %#x, want hexadecimal digits", c, pos)
			}
			fields[i] = fields[i]<<4 | digit
		}
	}
	mode, content, nameSize, sum := fields[1], int64(fields[6]), int64(fields[11]), fields[12]
	if nameSize < 2 || nameSize > maxName+1 {
		return entry{}, malformed("name of %d bytes at offset %#x, want 1 to %d and a zero", nameSize, pos, maxName)
	}
	name := make([]byte, nameSize)
	if pos+headerSize+nameSize > size {
		return entry{}, fmt.Errorf("the archive ends at %d within a name: %w", size, image.ErrTruncated)
	}
	if err := image.ReadAt(r, name, pos+headerSize); err != nil {
		return entry{}, err
	}
	if name[nameSize-1] != 0 {
		return entry{}, malformed("name %q does not end with a zero", name)
	}
	e := entry{name: string(name[:nameSize-1]), off: align(pos + headerSize + nameSize), size: content, checked: magic == magicCRC, sum: sum}
	if err := zeros(r, size, pos+headerSize+nameSize, e.off); err != nil {
		return entry{}, fmt.Errorf("padding after name %q: %w", e.name, err)
	}
	switch kind := mode & 0o170000; {
	case e.size > size-e.off:
		return entry{}, fmt.Errorf("file %q should have %d bytes, and the archive has %d more: %w", e.name, e.size, max(0, size-e.off), image.ErrTruncated)
	case e.name != nameTrailer && kind != 0o100000 && kind != 0:
		return entry{}, malformed("%q is not a plain file: mode %o", e.name, mode)
	case magic == magicNew && sum != 0:
		return entry{}, malformed("file %q has a checksum where its header has no room for one", e.name)
	}
	return e, nil
}

func hexDigit(c byte) (uint32, bool) {
	switch {
	case c >= '0' && c <= '9':
		return uint32(c - '0'), true
	case c >= 'a' && c <= 'f':
		return uint32(c-'a') + 10, true
	case c >= 'A' && c <= 'F':
		return uint32(c-'A') + 10, true
	}
	return 0, false
}

// checkName refuses names that are more than a name. SWUpdate puts files into a
// folder under it.
func checkName(name string) error {
	if name == "." || name == ".." || !utf8.ValidString(name) {
		return malformed("file name %q is not allowed", name)
	}
	for _, c := range name {
		if c == '/' || c == '\\' || !unicode.IsPrint(c) {
			return malformed("file name %q is not allowed: it has %q in it", name, c)
		}
	}
	return nil
}

// zeros checks that the bytes from pos to end, at most three, are zeros. Those
// past the end of the file are missing.
func zeros(r io.ReaderAt, size, pos, end int64) error {
	var b [3]byte
	if end > size {
		return fmt.Errorf("the archive ends at %d: %w", size, image.ErrTruncated)
	}
	if err := image.ReadAt(r, b[:end-pos], pos); err != nil {
		return err
	}
	if b != [3]byte{} {
		return malformed("it is % x, want zeros", b[:end-pos])
	}
	return nil
}

// checkPadding checks what follows the trailer.
func checkPadding(ctx context.Context, r io.ReaderAt, size, pos int64) error {
	if size-pos > maxPadding {
		return malformed("%d bytes follow the archive, the limit is %d", size-pos, maxPadding)
	}
	rest, err := io.ReadAll(image.Section(ctx, r, pos, size-pos))
	if err != nil {
		return err
	}
	for i, c := range rest {
		if c != 0 {
			return malformed("something other than zeros follows the archive, at offset %#x", pos+int64(i))
		}
	}
	return nil
}
