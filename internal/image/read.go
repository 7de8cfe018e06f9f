package image

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// ReadAt fills buf from offset off. An image that ends too early is
// [ErrTruncated]; any other failure is the reader's own error.
func ReadAt(r io.ReaderAt, buf []byte, off int64) error {
	if len(buf) == 0 {
		return nil
	}
	n, err := r.ReadAt(buf, off)
	switch {
	case n == len(buf): // ReadAt may return io.EOF with the last byte
		return nil
	case err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("reading %d bytes at offset %#x, got %d: %w", len(buf), off, n, ErrTruncated)
	default:
		return fmt.Errorf("reading %d bytes at offset %#x: %w", len(buf), off, err)
	}
}

// Section returns a reader of exactly the n bytes at off. It stops with the
// context's error when ctx ends, and with [ErrTruncated] when r does.
func Section(ctx context.Context, r io.ReaderAt, off, n int64) io.Reader {
	// The context lives no longer than the call that streams.
	return readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if n <= 0 {
			return 0, io.EOF
		}
		p = p[:min(int64(len(p)), n)]
		if err := ReadAt(r, p, off); err != nil {
			return 0, err
		}
		off += int64(len(p))
		n -= int64(len(p))
		return len(p), nil
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
