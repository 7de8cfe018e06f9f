package mcuboot

import (
	"context"
	"fmt"
	"io"

	"github.com/writ-project/writ/internal/image"
)

// This file and check.go read images for Inspect and Verify. Sign does not use
// them: resign.go has its own reader.

// tlv is one entry of a TLV area.
type tlv struct {
	typ  uint16
	off  int64 // of the entry in the file, for messages
	data []byte
}

// layout is an image taken apart. header and protected are the very bytes that
// were interpreted; hashing those, instead of reading them a second time, means
// that what was checked is what was hashed even if the file changes meanwhile.
type layout struct {
	header    [headerSize]byte
	protected []byte // the whole protected area, empty when there is none

	hdrSize, imgSize int64
	flags            uint32
	version          Version

	protTLVs, tlvs []tlv
	end            int64 // offset of the first byte after the TLV area
	padding        int64 // bytes of 0xFF after end
}

// parse takes an image apart and checks that every length agrees with the
// others and with size.
func parse(ctx context.Context, r io.ReaderAt, size int64) (*layout, error) {
	switch {
	case size < headerSize:
		return nil, fmt.Errorf("reading header: image has %d bytes, the header alone needs %d: %w", size, headerSize, image.ErrTruncated)
	case size > MaxSize:
		return nil, fmt.Errorf("reading image: %d bytes are more than the limit of %d: %w", size, MaxSize, image.ErrTooLarge)
	}
	l := &layout{}
	if err := image.ReadAt(r, l.header[:], 0); err != nil {
		return nil, fmt.Errorf("reading header: %w", err)
	}
	h := l.header[:]
	if m := le.Uint32(h); m != imageMagic {
		return nil, fmt.Errorf("reading header: magic is %#08x, want %#08x: %w", m, uint32(imageMagic), image.ErrMalformed)
	}
	l.hdrSize, l.imgSize = int64(le.Uint16(h[8:])), int64(le.Uint32(h[12:]))
	protSize := int64(le.Uint16(h[10:]))
	l.flags = le.Uint32(h[16:])
	l.version = Version{h[20], h[21], le.Uint16(h[22:]), le.Uint32(h[24:])}

	switch {
	case l.hdrSize < headerSize:
		return nil, fmt.Errorf("reading header: header size %d is less than %d: %w", l.hdrSize, headerSize, image.ErrMalformed)
	case l.imgSize == 0:
		return nil, fmt.Errorf("reading header: payload is empty: %w", image.ErrMalformed)
	}
	off := l.hdrSize + l.imgSize
	if protSize != 0 {
		area, tlvs, err := parseArea(r, size, off, tlvProtMagic)
		if err != nil {
			return nil, fmt.Errorf("reading protected TLV area: %w", err)
		}
		if int64(len(area)) != protSize {
			return nil, fmt.Errorf("reading protected TLV area: it says it has %d bytes, the header says %d: %w",
				len(area), protSize, image.ErrMalformed)
		}
		l.protected, l.protTLVs = area, tlvs
		off += protSize
	}
	area, tlvs, err := parseArea(r, size, off, tlvInfoMagic)
	if err != nil {
		return nil, fmt.Errorf("reading TLV area: %w", err)
	}
	l.tlvs = tlvs
	l.end = off + int64(len(area))
	l.padding = size - l.end
	if err := onlyErased(image.Section(ctx, r, l.end, l.padding), l.end); err != nil {
		return nil, err
	}
	return l, nil
}

// parseArea reads the TLV area at off. The returned TLVs point into the
// returned bytes, which are at most 64 KiB.
func parseArea(r io.ReaderAt, size, off int64, magic uint16) ([]byte, []tlv, error) {
	if off+tlvInfoSize > size {
		return nil, nil, fmt.Errorf("area at offset %#x starts past the end of an image of %#x bytes: %w", off, size, image.ErrTruncated)
	}
	var info [tlvInfoSize]byte
	if err := image.ReadAt(r, info[:], off); err != nil {
		return nil, nil, err
	}
	if m := le.Uint16(info[:]); m != magic {
		return nil, nil, fmt.Errorf("magic at offset %#x is %#04x, want %#04x: %w", off, m, magic, image.ErrMalformed)
	}
	total := int64(le.Uint16(info[2:]))
	switch {
	case total < tlvInfoSize:
		return nil, nil, fmt.Errorf("area at offset %#x says it has %d bytes: %w", off, total, image.ErrMalformed)
	case off+total > size:
		return nil, nil, fmt.Errorf("area at offset %#x has %d bytes, %d are left: %w", off, total, size-off, image.ErrTruncated)
	}
	area := make([]byte, total)
	if err := image.ReadAt(r, area, off); err != nil {
		return nil, nil, err
	}
	// The info was read twice; the second reading is the one that is used.
	copy(area, info[:])

	var tlvs []tlv
	for pos := int64(tlvInfoSize); pos < total; {
		if total-pos < tlvHeadSize {
			return nil, nil, fmt.Errorf("%d stray bytes at the end of the area at offset %#x: %w", total-pos, off, image.ErrMalformed)
		}
		t := tlv{typ: le.Uint16(area[pos:]), off: off + pos}
		n := int64(le.Uint16(area[pos+2:]))
		pos += tlvHeadSize
		if n > total-pos {
			return nil, nil, fmt.Errorf("TLV %#04x at offset %#x says it has %d bytes, %d are left in its area: %w",
				t.typ, t.off, n, total-pos, image.ErrMalformed)
		}
		t.data = area[pos : pos+n]
		pos += n
		tlvs = append(tlvs, t)
		if len(tlvs) > maxTLVs {
			return nil, nil, fmt.Errorf("area at offset %#x has more than %d TLVs: %w", off, maxTLVs, image.ErrMalformed)
		}
	}
	return area, tlvs, nil
}

// onlyErased refuses any byte but 0xFF. off is where r starts, for the message.
func onlyErased(r io.Reader, off int64) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		for i, b := range buf[:n] {
			if b != 0xff {
				return fmt.Errorf("checking bytes after the TLV area: %#02x at offset %#x, only erased flash (0xff) may follow: %w",
					b, off+int64(i), image.ErrMalformed)
			}
		}
		off += int64(n)
		if err == io.EOF { // io.Reader returns it bare
			return nil
		}
		if err != nil {
			return fmt.Errorf("checking bytes after the TLV area: %w", err)
		}
	}
}
