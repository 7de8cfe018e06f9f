package mender

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/writ-project/writ/internal/image"
)

// This file, part.go and header.go read artifacts for Inspect and Verify. Sign
// does not use them: scan.go and tar.go are its own reader.

// artifact is an artifact taken apart. It is read once from front to back, so
// that what was interpreted is what was hashed even if the file changes
// meanwhile.
type artifact struct {
	manifest []byte
	sums     map[string][sha256.Size]byte // what the manifest says
	seen     map[string]bool
	signed   bool
	sig      []byte // decoded

	head Details
	file [sha256.Size]byte
}

// reader streams an artifact.
type reader struct {
	src    *source
	file   hash.Hash // of every byte
	n      int64     // bytes read
	budget int64     // bytes that may still come out of decompressors
	a      *artifact
}

// source remembers its own errors, so that a failing disk is not taken for a
// malformed artifact.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// explain gives err a reason, unless it has one or is the source's.
func (rd *reader) explain(err error) error {
	if _, ok := image.ReasonOf(err); ok {
		return err
	}
	switch {
	case rd.src.err != nil:
		return rd.src.err
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return fmt.Errorf("%w: %w", err, image.ErrTruncated)
	default:
		return fmt.Errorf("%w: %w", err, image.ErrMalformed)
	}
}

// Read counts and hashes what is read.
func (rd *reader) Read(p []byte) (int, error) {
	n, err := rd.src.Read(p)
	_, _ = rd.file.Write(p[:n]) // never fails
	rd.n += int64(n)
	return n, err
}

// read takes an artifact apart and checks all digests. It calls signature as
// soon as manifest and signature are known, and stops if that fails.
func read(ctx context.Context, r io.ReaderAt, size int64, signature func(*artifact) error) (*artifact, error) {
	switch {
	case size < 512:
		return nil, fmt.Errorf("reading artifact: %d bytes are no tar: %w", size, image.ErrTruncated)
	case size > MaxSize:
		return nil, fmt.Errorf("reading artifact: %d bytes are more than the limit of %d: %w", size, int64(MaxSize), image.ErrTooLarge)
	}
	rd := &reader{
		src:  &source{r: bufio.NewReaderSize(image.Section(ctx, r, 0, size), 64<<10)},
		file: sha256.New(), budget: expansion(size),
		a: &artifact{seen: map[string]bool{}},
	}
	if err := rd.run(signature); err != nil {
		return nil, rd.explain(err)
	}
	copy(rd.a.file[:], rd.file.Sum(nil))
	return rd.a, nil
}

// outer is the outer tar with one file of look-ahead.
type outer struct {
	rd   *reader
	tr   *tar.Reader
	next *tar.Header // nil at the end
}

func (o *outer) advance() error {
	if _, err := io.Copy(io.Discard, o.tr); o.next != nil && err != nil {
		return err
	}
	end := (o.rd.n + 511) / 512 * 512
	h, err := nextFile(o.tr)
	if errors.Is(err, io.EOF) {
		o.next = nil
		// The tar ends with two blocks of zeros; without them it was cut off.
		if o.rd.n < end+1024 {
			return fmt.Errorf("the end of the tar is missing: %w", image.ErrTruncated)
		}
		return nil
	}
	o.next = h
	return err
}

// nextFile returns the next file of a tar, which must be a regular one without
// anything that readers of tar disagree about. It ends with io.EOF.
func nextFile(tr *tar.Reader) (*tar.Header, error) {
	h, err := tr.Next()
	if err != nil {
		return nil, err
	}
	if h.Typeflag != tar.TypeReg {
		return nil, fmt.Errorf("tar entry %q is of type %q, want a regular file: %w", h.Name, h.Typeflag, image.ErrMalformed)
	}
	if h.Name == "" || len(h.Name) > maxName || !utf8.ValidString(h.Name) {
		return nil, fmt.Errorf("tar entry has the name %q, want 1 to %d bytes of UTF-8: %w", h.Name, maxName, image.ErrMalformed)
	}
	for key := range h.PAXRecords {
		switch key {
		case "uid", "gid", "uname", "gname", "mtime", "atime", "ctime", "size":
		default:
			return nil, fmt.Errorf("tar entry %q has the extended header %q: %w", h.Name, key, image.ErrMalformed)
		}
	}
	return h, nil
}

func (rd *reader) run(signature func(*artifact) error) error {
	o := &outer{rd: rd, tr: tar.NewReader(rd)}
	if err := o.advance(); err != nil {
		return fmt.Errorf("reading tar: %w", err)
	}
	version, err := o.small(nameVersion, maxVersion)
	if err != nil {
		return err
	}
	if err := readVersion(version); err != nil {
		return fmt.Errorf("reading version: %w", err)
	}
	if rd.a.manifest, err = o.small(nameManifest, maxManifest); err != nil {
		return err
	}
	if rd.a.sums, err = readManifest(rd.a.manifest); err != nil {
		return fmt.Errorf("reading manifest: %w", err)
	}
	if err := rd.a.match(nameVersion, sha256.Sum256(version)); err != nil {
		return err
	}
	if o.next != nil && o.next.Name == nameSignature {
		text, err := o.small(nameSignature, maxSignature)
		if err != nil {
			return err
		}
		rd.a.signed = true
		if rd.a.sig, err = readSignature(text); err != nil {
			return fmt.Errorf("reading manifest.sig: %w", err)
		}
	}
	if err := signature(rd.a); err != nil {
		return err
	}
	if o.next != nil && strings.Contains(o.next.Name, "augment") {
		return fmt.Errorf("reading artifact: %s is not signed, augmented artifacts cannot be released: %w", o.next.Name, image.ErrUnsupported)
	}
	if err := rd.readHeader(o); err != nil {
		return fmt.Errorf("reading header: %w", err)
	}
	for i := range rd.a.head.Payloads {
		if err := rd.readData(o, i); err != nil {
			return fmt.Errorf("reading payload %d: %w", i, err)
		}
	}
	if o.next != nil {
		return fmt.Errorf("reading artifact: %s after the last payload: %w", o.next.Name, image.ErrMalformed)
	}
	if err := onlyZeros(rd); err != nil {
		return fmt.Errorf("reading end of artifact: %w", err)
	}
	return rd.a.complete()
}

// small reads the next file, which must have that name, whole.
func (o *outer) small(name string, limit int64) ([]byte, error) {
	switch {
	case o.next == nil:
		return nil, fmt.Errorf("reading artifact: it ends before %s: %w", name, image.ErrTruncated)
	case o.next.Name != name:
		return nil, fmt.Errorf("reading artifact: %s where %s belongs: %w", o.next.Name, name, image.ErrMalformed)
	case o.next.Size > limit:
		return nil, fmt.Errorf("reading artifact: %s has %d bytes, over the limit of %d: %w", name, o.next.Size, limit, image.ErrTooLarge)
	}
	b, err := io.ReadAll(o.tr)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if err := o.advance(); err != nil {
		return nil, fmt.Errorf("reading tar: %w", err)
	}
	return b, nil
}

// readManifest reads lines of digest, two spaces and name.
func readManifest(b []byte) (map[string][sha256.Size]byte, error) {
	sums := map[string][sha256.Size]byte{}
	for len(b) > 0 {
		line, rest, ended := bytes.Cut(b, []byte("\n"))
		b = rest
		digest, name, ok := bytes.Cut(line, []byte("  "))
		var sum [sha256.Size]byte
		if !ended || !ok || len(digest) != 2*sha256.Size || len(name) == 0 || !bytes.Equal(digest, bytes.ToLower(digest)) {
			return nil, fmt.Errorf("line %q, want a sha256, two spaces and a name: %w", line, image.ErrMalformed)
		}
		if _, err := hex.Decode(sum[:], digest); err != nil {
			return nil, fmt.Errorf("line %q: %w: %w", line, err, image.ErrMalformed)
		}
		if _, ok := sums[string(name)]; ok {
			return nil, fmt.Errorf("%s occurs twice: %w", name, image.ErrMalformed)
		}
		sums[string(name)] = sum
	}
	return sums, nil
}

// match compares the digest of a file with the manifest.
func (a *artifact) match(name string, sum [sha256.Size]byte) error {
	want, ok := a.sums[name]
	switch {
	case !ok:
		return fmt.Errorf("comparing %s with the manifest: it is not in there: %w", name, image.ErrMalformed)
	case a.seen[name]:
		return fmt.Errorf("comparing %s with the manifest: it occurs twice: %w", name, image.ErrMalformed)
	case want != sum:
		return fmt.Errorf("comparing %s with the manifest: content has sha256 %x, the manifest says %x: %w", name, sum, want, image.ErrBadDigest)
	}
	a.seen[name] = true
	return nil
}

// complete checks that nothing in the manifest is missing.
func (a *artifact) complete() error {
	for name := range a.sums {
		if !a.seen[name] {
			return fmt.Errorf("comparing with the manifest: %s is missing: %w", name, image.ErrTruncated)
		}
	}
	return nil
}

// onlyZeros reads r to its end.
func onlyZeros(r io.Reader) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		for _, b := range buf[:n] {
			if b != 0 {
				return fmt.Errorf("%#02x after the end of the tar, want zeros: %w", b, image.ErrMalformed)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
