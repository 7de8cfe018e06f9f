package verify

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/writ-project/writ/internal/fw"
)

// maxWindow bounds the memory that decompression takes, in bytes.
const maxWindow = 32 << 20

// reader reads the members of a bundle in their order.
type reader struct {
	z *zstd.Decoder
	t *tar.Reader
	h *tar.Header // the next member; nil at the end
}

func newReader(r io.Reader, workers int) (*reader, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(min(2, workers)), zstd.WithDecoderMaxMemory(maxWindow), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "this is not a writ bundle")
	}
	return &reader{z: z, t: tar.NewReader(z)}, nil
}

func (r *reader) close() { r.z.Close() }

// next goes to the next member.
func (r *reader) next() error {
	h, err := r.t.Next()
	if errors.Is(err, io.EOF) {
		r.h = nil
		return nil
	}
	if err != nil {
		return damaged(err, "between its members")
	}
	if h.Typeflag != tar.TypeReg || h.Size < 0 {
		return fw.Errorf(fw.Invalid, "the bundle holds %.80q, which is not a plain file", h.Name)
	}
	r.h = h
	return nil
}

// read returns the content of the current member, which must be the named one,
// and goes to the next. The result is fresh memory.
func (r *reader) read(name string, limit int64) ([]byte, error) {
	if r.h == nil {
		return nil, fw.Errorf(fw.Invalid, "the bundle ends before %s: it was cut off, get it again", name)
	}
	if r.h.Name != name {
		return nil, fw.Errorf(fw.Invalid, "the bundle holds %.80q where %s must be", r.h.Name, name)
	}
	if r.h.Size > limit {
		return nil, fw.Errorf(fw.TooLarge, "%s of the bundle has %d bytes, over the limit of %d", name, r.h.Size, limit)
	}
	b := make([]byte, r.h.Size)
	if _, err := io.ReadFull(r.t, b); err != nil {
		return nil, damaged(err, "in "+name)
	}
	return b, r.next()
}

// end checks that nothing follows the archive.
func (r *reader) end() error {
	if r.h != nil {
		return fw.Errorf(fw.Invalid, "the bundle holds %.80q, which does not belong there", r.h.Name)
	}
	rest, err := io.Copy(io.Discard, io.LimitReader(r.z, 1<<20))
	if err != nil {
		return damaged(err, "after its last member")
	}
	if rest > 64<<10 { // tar may fill up its last block
		return fw.Errorf(fw.Invalid, "the bundle has data after its end")
	}
	return nil
}

func (r *reader) json(name string, limit int64, v any) error {
	b, err := r.read(name, limit)
	if err != nil {
		return err
	}
	if err := strict(b, v); err != nil {
		return fw.Wrap(fw.Invalid, err, "%s of the bundle cannot be read", name)
	}
	return nil
}

// strict decodes one JSON value without unknown members.
func strict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the value")
	}
	return nil
}

// damaged says what is wrong with a file that cannot be read on.
func damaged(err error, where string) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return fw.Wrap(fw.Invalid, err, "the bundle ends %s: it was cut off, get it again", where)
	}
	if errors.Is(err, zstd.ErrMagicMismatch) {
		return fw.Wrap(fw.Invalid, err, "this is not a writ bundle, or its beginning is damaged")
	}
	return fw.Wrap(fw.Invalid, err, "the bundle is damaged %s: %s", where, fmt.Sprint(err))
}
