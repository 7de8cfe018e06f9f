package mender

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/writ-project/writ/internal/image"
)

// readHeader reads header.tar, which the manifest names as it is stored.
func (rd *reader) readHeader(o *outer) error {
	if o.next == nil {
		return fmt.Errorf("the artifact ends before it: %w", image.ErrTruncated)
	}
	name := o.next.Name
	ext, ok := strings.CutPrefix(name, nameHeader)
	if !ok {
		return fmt.Errorf("%s where %s belongs: %w", name, nameHeader, image.ErrMalformed)
	}
	sum := sha256.New()
	h := &headerReader{}
	limit := int64(maxHeader)
	if err := inner(io.TeeReader(o.tr, sum), ext, &limit, h.file); err != nil {
		return err
	}
	if err := rd.a.match(name, [sha256.Size]byte(sum.Sum(nil))); err != nil {
		return err
	}
	var err error
	if rd.a.head, err = h.details(); err != nil {
		return err
	}
	return o.advance()
}

// readData reads payload i.
func (rd *reader) readData(o *outer, i int) error {
	dir := fmt.Sprintf("data/%04d", i)
	if o.next == nil {
		return fmt.Errorf("the artifact ends before it: %w", image.ErrTruncated)
	}
	ext, ok := strings.CutPrefix(o.next.Name, dir+".tar")
	if !ok {
		return fmt.Errorf("%s where %s.tar belongs: %w", o.next.Name, dir, image.ErrMalformed)
	}
	p := &rd.a.head.Payloads[i]
	buf := make([]byte, 64<<10)
	err := inner(o.tr, ext, &rd.budget, func(name string, r io.Reader) error {
		if !plainName(name) {
			return fmt.Errorf("%q is no plain file name: %w", name, image.ErrMalformed)
		}
		h := sha256.New()
		n, err := io.CopyBuffer(onlyWriter{h}, r, buf)
		if err != nil {
			return err
		}
		sum := [sha256.Size]byte(h.Sum(nil))
		p.Files = append(p.Files, File{Name: name, Size: n, SHA256: hex.EncodeToString(sum[:])})
		return rd.a.match(dir+"/"+name, sum)
	})
	if err != nil {
		return err
	}
	return o.advance()
}

// onlyWriter hides other methods, so that io.CopyBuffer uses its buffer.
type onlyWriter struct{ io.Writer }

// plainName reports whether name stays in the directory it is written to.
func plainName(name string) bool {
	return name != "." && name != ".." && path.Base(name) == name &&
		!strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == '\\' || r == 0x7f })
}

// inner reads a tar inside the outer one. ext says how it is compressed, and
// limit, which is counted down, how many bytes it may decompress to.
func inner(raw io.Reader, ext string, limit *int64, file func(name string, r io.Reader) error) error {
	packed := bufio.NewReaderSize(raw, 64<<10)
	plain, closer, err := decompress(packed, ext)
	if err != nil {
		return err
	}
	defer closer()
	b := &bounded{r: plain, left: limit}
	tr := tar.NewReader(b)
	for {
		h, err := nextFile(tr)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := file(h.Name, tr); err != nil {
			return fmt.Errorf("reading %s: %w", h.Name, err)
		}
	}
	if err := onlyZeros(b); err != nil {
		return err
	}
	if _, err := packed.ReadByte(); !errors.Is(err, io.EOF) {
		if err != nil {
			return err
		}
		return fmt.Errorf("something follows the compressed data: %w", image.ErrMalformed)
	}
	return nil
}

// decompress returns the decompressed stream and a function that frees what it
// uses.
func decompress(r *bufio.Reader, ext string) (io.Reader, func(), error) {
	switch ext {
	case "":
		return r, func() {}, nil
	case ".gz":
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, nil, fmt.Errorf("reading gzip: %w", err)
		}
		z.Multistream(false) // one member, so that one file has one reading
		return z, func() {}, nil
	case ".zst":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nil, fmt.Errorf("reading zstd: %w", err)
		}
		return z, z.Close, nil
	default:
		return nil, nil, fmt.Errorf("compression %q: write the artifact with gzip, zstd or none: %w", ext, image.ErrUnsupported)
	}
}

// bounded ends a decompression bomb.
type bounded struct {
	r    io.Reader
	left *int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if *b.left < 0 {
		return 0, fmt.Errorf("it decompresses to more than the limit: %w", image.ErrTooLarge)
	}
	n, err := b.r.Read(p[:min(int64(len(p)), *b.left+1)])
	*b.left -= int64(n)
	return n, err
}
