package esp

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/writ-project/writ/internal/image"
)

// This is the encoder's own reader of images, deliberately not the one that
// Inspect and Verify use. It walks the headers by offset.

// survey is where the parts of the image to sign are, and what it says.
type survey struct {
	segments []span // of segment data
	checksum int64  // offset of the checksum byte
	appended bool   // a digest follows the checksum
	end      int64  // of the image proper
	padded   int64  // end, rounded up to a sector

	chip    uint16
	desc    bool
	counter uint32
	version string

	sector []byte // the old signature sector, or nil
}

type span struct{ from, to int64 }

func surveyImage(ctx context.Context, r io.ReaderAt, size int64) (*survey, error) {
	if size > MaxSize {
		return nil, fmt.Errorf("%d bytes are more than the limit of %d: %w", size, int64(MaxSize), image.ErrTooLarge)
	}
	var h [headerSize]byte
	if err := readInside(r, size, h[:], 0); err != nil {
		return nil, err
	}
	n := int(h[1])
	if h[0] != imageMagic || n == 0 || n > maxSegments || h[23] > 1 {
		return nil, fmt.Errorf("the header % x is not that of an ESP-IDF image: %w", h, image.ErrMalformed)
	}
	v := &survey{chip: le.Uint16(h[12:]), appended: h[23] == 1}
	off := int64(headerSize)
	for i := range n {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var sh [segHeadSize]byte
		if err := readInside(r, size, sh[:], off); err != nil {
			return nil, err
		}
		off += segHeadSize
		length := int64(le.Uint32(sh[4:]))
		if length%4 != 0 {
			return nil, fmt.Errorf("segment %d has %d bytes, not a multiple of 4: %w", i, length, image.ErrMalformed)
		}
		v.segments = append(v.segments, span{off, off + length})
		off += length
	}
	v.checksum = off | 15
	v.end = v.checksum + 1
	if v.appended {
		v.end += digestSize
	}
	if v.end > size {
		return nil, fmt.Errorf("the segments need %d bytes, the image has %d: %w", v.end, size, image.ErrTruncated)
	}
	v.padded = (v.end + sectorSize - 1) / sectorSize * sectorSize
	if err := v.readTail(r, size); err != nil {
		return nil, err
	}
	return v, v.readDescription(r, size)
}

// readTail checks what follows the image proper: padding, of an unsigned image
// possibly less than all of it, and one sector or nothing.
func (v *survey) readTail(r io.ReaderAt, size int64) error {
	pad := make([]byte, min(v.padded, size)-v.end)
	if err := image.ReadAt(r, pad, v.end); err != nil {
		return err
	}
	if bytes.Count(pad, []byte{0xff}) != len(pad) {
		return fmt.Errorf("what follows the image at offset %#x is not padding with 0xff: %w", v.end, image.ErrMalformed)
	}
	switch {
	case size <= v.padded:
		return nil
	case size != v.padded+sectorSize:
		return fmt.Errorf("%d bytes follow the padded image, want none or a signature sector of %d: %w",
			size-v.padded, sectorSize, image.ErrMalformed)
	}
	v.sector = make([]byte, sectorSize)
	return image.ReadAt(r, v.sector, v.padded)
}

func (v *survey) readDescription(r io.ReaderAt, size int64) error {
	first := v.segments[0]
	var magic [4]byte
	if first.to-first.from < int64(len(magic)) {
		return nil
	}
	if err := readInside(r, size, magic[:], first.from); err != nil {
		return err
	}
	if le.Uint32(magic[:]) != descMagic {
		return nil
	}
	d := make([]byte, descSize)
	if first.to-first.from < descSize {
		return fmt.Errorf("the first segment is too short for an application description: %w", image.ErrTruncated)
	}
	if err := readInside(r, size, d, first.from); err != nil {
		return err
	}
	v.desc, v.counter = true, le.Uint32(d[4:])
	for _, field := range [][]byte{d[16:48], d[48:80], d[80:96], d[96:112], d[112:144]} {
		text, _, ended := strings.Cut(string(field), "\x00")
		if !ended || strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c > '~' }) {
			return fmt.Errorf("the text %q in the application description is not printable ASCII that ends with a zero byte: %w", text, image.ErrMalformed)
		}
	}
	v.version, _, _ = strings.Cut(string(d[16:48]), "\x00")
	return nil
}

// readInside is [image.ReadAt] that does not read past size, whatever r holds.
func readInside(r io.ReaderAt, size int64, b []byte, off int64) error {
	if off+int64(len(b)) > size {
		return fmt.Errorf("%d bytes at offset %#x of an image of %#x: %w", len(b), off, size, image.ErrTruncated)
	}
	return image.ReadAt(r, b, off)
}

// agree checks that the options say what the image says already.
func (v *survey) agree(opt image.SignOptions) error {
	differ := func(what string, want, got any) error {
		return fmt.Errorf("comparing options with the image: %s is %v, the image says %v; build it again or correct the release: %w",
			what, want, got, image.ErrBadOptions)
	}
	if opt.HeaderSize != 0 || opt.HeaderInPlace || opt.Vendor != "" {
		return fmt.Errorf("comparing options with the image: header size and vendor have no place in an esp image: %w", image.ErrBadOptions)
	}
	switch {
	case v.desc && opt.Version != "" && opt.Version != v.version:
		return differ("version", opt.Version, fmt.Sprintf("%q", v.version))
	case v.desc && opt.SecurityCounter != nil && *opt.SecurityCounter != uint64(v.counter):
		return differ("security counter", *opt.SecurityCounter, fmt.Sprintf("secure_version %d", v.counter))
	case !v.desc && opt.SecurityCounter != nil && *opt.SecurityCounter != 0:
		return differ("security counter", *opt.SecurityCounter, "nothing, for it has no application description")
	}
	chip := chipName(v.chip)
	var named []string
	for _, h := range opt.Hardware {
		if c, ok := namedChip(h); ok {
			if c == chip {
				return nil
			}
			named = append(named, c)
		}
	}
	if named != nil {
		return differ("hardware", strings.Join(named, ", "), chip)
	}
	return nil
}
