package rauc

import (
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/writ-project/writ/internal/image"
)

// Compressors of squashfs. XZ, LZO and LZMA have no reader here: none that is
// maintained was to be had, and a manifest in another compression can be made.
const (
	compGzip = 1 // a zlib stream (RFC 1950), whatever its name says
	compLZ4  = 5
	compZstd = 6
)

var compNames = map[uint16]string{2: "lzma", 3: "lzo", 4: "xz"}

// decompress returns what a block of at most limit bytes was compressed to.
func decompress(comp uint16, b []byte, limit int64) ([]byte, error) {
	var out []byte
	var err error
	switch comp {
	case compGzip:
		out, err = inflate(b, limit)
	case compZstd:
		out, err = unzstd(b, limit)
	case compLZ4:
		out, err = unlz4(b, int(limit))
	default:
		name := compNames[comp]
		if name == "" {
			name = fmt.Sprintf("number %d", comp)
		}
		return nil, fmt.Errorf("compressed with %s: build the bundle with --mksquashfs-args='-comp zstd', or in the verity format: %w", name, image.ErrUnsupported)
	}
	if err != nil {
		return nil, malformed("decompressing %d bytes into at most %d: %v", len(b), limit, err)
	}
	return out, nil
}

var errBomb = errors.New("it does not fit")

func inflate(b []byte, limit int64) ([]byte, error) {
	z, err := zlib.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return readUpTo(z, limit)
}

func unzstd(b []byte, limit int64) ([]byte, error) {
	// The window, too, is at most a block, so that memory is.
	z, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(1<<20), zstd.WithDecoderMaxMemory(1<<20))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	return readUpTo(z, limit)
}

func readUpTo(r io.Reader, limit int64) ([]byte, error) {
	out, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(out)) > limit {
		err = errBomb
	}
	return out, err
}

var errLZ4 = errors.New("lz4 block is broken")

// unlz4 reads one LZ4 block (lz4 doc/lz4_Block_format.md): sequences of a
// token, literals, and a match in what is already there.
func unlz4(b []byte, limit int) ([]byte, error) {
	var out []byte
	for len(b) > 0 {
		token := b[0]
		b = b[1:]
		n, rest, ok := lz4Length(int(token>>4), b, limit)
		if !ok || n > len(rest) || n > limit-len(out) {
			return nil, errLZ4
		}
		out, b = append(out, rest[:n]...), rest[n:]
		if len(b) == 0 { // the last sequence has no match
			return out, nil
		}
		if len(b) < 2 {
			return nil, errLZ4
		}
		back := int(b[0]) | int(b[1])<<8
		if n, b, ok = lz4Length(int(token&15), b[2:], limit); !ok {
			return nil, errLZ4
		}
		n += 4 // the shortest match
		if back == 0 || back > len(out) || n > limit-len(out) {
			return nil, errLZ4
		}
		for range n { // byte by byte: a match may overlap what it makes
			out = append(out, out[len(out)-back])
		}
	}
	return nil, errLZ4
}

// lz4Length finishes a length that began with four bits of the token.
func lz4Length(n int, b []byte, limit int) (int, []byte, bool) {
	if n < 15 {
		return n, b, true
	}
	for i, c := range b {
		if n += int(c); n > limit {
			return 0, nil, false
		}
		if c != 255 {
			return n, b[i+1:], true
		}
	}
	return 0, nil, false
}
