package esp

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io"

	"github.com/writ-project/writ/internal/image"
)

// This file and block.go read images for Inspect and Verify. Sign does not use
// them: survey.go has its own reader.

// content is an image taken apart. It is read once from front to back, so that
// what was interpreted is what was hashed even if the file changes meanwhile.
type content struct {
	chip           uint16
	minRev, maxRev uint16
	app            *description // nil when there is none

	end    int64  // of the image proper; padding follows
	sha256 []byte // of the image with its padding
	sha384 []byte // the same; only with P-384 blocks
	file   []byte // SHA-256 of the whole file
	blocks []block
}

// description is what an application says of itself (esp_app_desc_t).
type description struct {
	secureVersion           uint32
	version, project        string
	time, date, idf, elfSHA string
}

// parse takes an image apart and checks every length, the checksum and the
// appended digest, but no signature.
func parse(ctx context.Context, r io.ReaderAt, size int64) (*content, error) {
	switch {
	case size < headerSize:
		return nil, fmt.Errorf("reading header: image has %d bytes, the header alone needs %d: %w", size, headerSize, image.ErrTruncated)
	case size > MaxSize:
		return nil, fmt.Errorf("reading image: %d bytes are more than the limit of %d: %w", size, int64(MaxSize), image.ErrTooLarge)
	}
	s := &scanner{r: image.Section(ctx, r, 0, size), left: size, sum: sha256.New()}
	if wide, err := hasP384(r, size); err != nil {
		return nil, err
	} else if wide {
		s.wide = sha512.New384()
	}
	c := &content{}
	appended, err := c.readHeader(s)
	if err != nil {
		return nil, err
	}
	if err := c.readEnd(s, appended); err != nil {
		return nil, err
	}
	c.end = s.off
	if err := c.readPadding(s); err != nil {
		return nil, err
	}
	if err := c.readSector(s); err != nil {
		return nil, fmt.Errorf("reading signature sector: %w", err)
	}
	if c.file == nil {
		c.file = s.sum.Sum(nil)
	}
	return c, nil
}

// hasP384 looks ahead at the first block, so that SHA-384 is not computed in
// vain. It is a hint: a P-384 block found without it is refused.
func hasP384(r io.ReaderAt, size int64) (bool, error) {
	if size <= sectorSize || size%sectorSize != 0 {
		return false, nil
	}
	var b [3]byte
	if err := image.ReadAt(r, b[:], size-sectorSize); err != nil {
		return false, fmt.Errorf("looking for a signature: %w", err)
	}
	return b == [3]byte{blockMagic, versionECDSA, hashSHA384}, nil
}

// readHeader reads header and segments, and says whether a digest is appended.
func (c *content) readHeader(s *scanner) (bool, error) {
	h, err := s.bytes(headerSize)
	if err != nil {
		return false, fmt.Errorf("reading header: %w", err)
	}
	segments := int(h[1])
	switch {
	case h[0] != imageMagic:
		return false, fmt.Errorf("reading header: magic is %#02x, want %#02x: %w", h[0], imageMagic, image.ErrMalformed)
	case segments < 1 || segments > maxSegments:
		return false, fmt.Errorf("reading header: %d segments, want 1 to %d: %w", segments, maxSegments, image.ErrMalformed)
	case h[23] > 1:
		return false, fmt.Errorf("reading header: hash_appended is %#02x, want 0 or 1: %w", h[23], image.ErrMalformed)
	}
	c.chip, c.minRev, c.maxRev = le.Uint16(h[12:]), le.Uint16(h[15:]), le.Uint16(h[17:])
	appended := h[23] == 1
	for i := range segments {
		if err := c.readSegment(s, i); err != nil {
			return false, fmt.Errorf("reading segment %d: %w", i, err)
		}
	}
	return appended, nil
}

func (c *content) readSegment(s *scanner, i int) error {
	h, err := s.bytes(segHeadSize)
	if err != nil {
		return err
	}
	n := int64(le.Uint32(h[4:]))
	switch {
	case n%4 != 0: // the bootloader refuses it too
		return fmt.Errorf("length %d at offset %#x is not a multiple of 4: %w", n, s.off-4, image.ErrMalformed)
	case n > s.left:
		return fmt.Errorf("it says it has %d bytes, %d are left: %w", n, s.left, image.ErrTruncated)
	}
	if i == 0 && n >= 4 {
		head, err := s.data(min(n, descSize))
		if err != nil {
			return err
		}
		n -= int64(len(head))
		if le.Uint32(head) == descMagic {
			if c.app, err = readDescription(head); err != nil {
				return fmt.Errorf("reading application description: %w", err)
			}
		}
	}
	return s.skipData(n)
}

func readDescription(b []byte) (*description, error) {
	if len(b) < descSize {
		return nil, fmt.Errorf("the segment has %d bytes, want at least %d: %w", len(b), descSize, image.ErrTruncated)
	}
	d := &description{secureVersion: le.Uint32(b[4:]), elfSHA: hex.EncodeToString(b[144:176])}
	for _, f := range []struct {
		name     string
		from, to int
		text     *string
	}{
		{"version", 16, 48, &d.version},
		{"project name", 48, 80, &d.project},
		{"build time", 80, 96, &d.time},
		{"build date", 96, 112, &d.date},
		{"ESP-IDF version", 112, 144, &d.idf},
	} {
		n := f.from
		for n < f.to && b[n] != 0 {
			if b[n] < ' ' || b[n] > '~' {
				return nil, fmt.Errorf("byte %#02x in the %s, want printable ASCII: %w", b[n], f.name, image.ErrMalformed)
			}
			n++
		}
		if n == f.to { // a reader in C would run into the next field
			return nil, fmt.Errorf("the %s does not end with a zero byte: %w", f.name, image.ErrMalformed)
		}
		*f.text = string(b[f.from:n])
	}
	return d, nil
}

// readEnd reads checksum and appended digest.
func (c *content) readEnd(s *scanner, appended bool) error {
	// The checksum is the last byte of a block of 16.
	n := 16 - s.off%16
	b, err := s.bytes(n)
	if err != nil {
		return fmt.Errorf("reading checksum: %w", err)
	}
	if got, want := s.xor^checksumIV, b[n-1]; got != want {
		return fmt.Errorf("checking checksum: the segments have %#02x, the image says %#02x: %w", got, want, image.ErrBadDigest)
	}
	if !appended {
		return nil
	}
	got := s.sum.Sum(nil)
	want, err := s.bytes(digestSize)
	if err != nil {
		return fmt.Errorf("reading appended digest: %w", err)
	}
	if string(got) != string(want) {
		return fmt.Errorf("checking appended digest: content has sha256 %x, the image says %x: %w", got, want, image.ErrBadDigest)
	}
	return nil
}

// readPadding reads the rest of an unsigned image, or what is between image and
// signature sector. It leaves the digests of the padded image in c, which an
// unsigned file need not have reached.
func (c *content) readPadding(s *scanner) error {
	pad := (sectorSize - s.off%sectorSize) % sectorSize
	have := min(pad, s.left)
	b, err := s.bytes(have)
	if err != nil {
		return fmt.Errorf("reading padding: %w", err)
	}
	for i, v := range b {
		if v != 0xff {
			return fmt.Errorf("checking padding: %#02x at offset %#x, want 0xff: %w", v, s.off-have+int64(i), image.ErrMalformed)
		}
	}
	if have == pad {
		c.sha256 = s.sum.Sum(nil)
		if s.wide != nil {
			c.sha384 = s.wide.Sum(nil)
		}
		return nil
	}
	c.file = s.sum.Sum(nil) // nothing follows
	rest := make([]byte, pad-have)
	for i := range rest {
		rest[i] = 0xff
	}
	_, _ = s.sum.Write(rest) // never fails
	c.sha256 = s.sum.Sum(nil)
	return nil
}

// scanner reads an image from front to back and hashes all that it reads.
type scanner struct {
	r         io.Reader
	off, left int64
	sum       hash.Hash // SHA-256
	wide      hash.Hash // SHA-384, or nil
	xor       byte      // of segment data
	buf       []byte
}

// bytes reads the next n bytes; n is small.
func (s *scanner) bytes(n int64) ([]byte, error) {
	if n > s.left {
		return nil, fmt.Errorf("%d bytes at offset %#x, %d are left: %w", n, s.off, s.left, image.ErrTruncated)
	}
	b := make([]byte, n)
	if err := s.fill(b); err != nil {
		return nil, err
	}
	return b, nil
}

// data is bytes for segment data.
func (s *scanner) data(n int64) ([]byte, error) {
	b, err := s.bytes(n)
	s.checksum(b)
	return b, err
}

func (s *scanner) skipData(n int64) error {
	if s.buf == nil {
		s.buf = make([]byte, 32<<10)
	}
	for n > 0 {
		b := s.buf[:min(n, int64(len(s.buf)))]
		if err := s.fill(b); err != nil {
			return err
		}
		s.checksum(b)
		n -= int64(len(b))
	}
	return nil
}

func (s *scanner) fill(b []byte) error {
	if _, err := io.ReadFull(s.r, b); err != nil {
		return err // with its reason: image.Section gives it
	}
	_, _ = s.sum.Write(b) // never fails
	if s.wide != nil {
		_, _ = s.wide.Write(b) // never fails
	}
	s.off += int64(len(b))
	s.left -= int64(len(b))
	return nil
}

func (s *scanner) checksum(b []byte) {
	x := s.xor
	for _, v := range b {
		x ^= v
	}
	s.xor = x
}
