package mender

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/writ-project/writ/internal/image"
)

// scan is what Sign knows of the artifact to sign.
type scan struct {
	manifest []byte
	cut      int64 // offset after manifest, where the signature goes
	resume   int64 // offset after the old signature, or cut

	name     string
	devices  []string
	payloads []Payload // types and provides only

	limit int64 // bytes that payloads may still decompress to
	lines map[string]bool
}

// failure gives an error of reading a reason, unless it has one or ctx or the
// source is to blame.
func failure(src *source, err error) error {
	if _, ok := image.ReasonOf(err); ok {
		return err
	}
	if src.err != nil {
		return src.err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %w", err, image.ErrTruncated)
	}
	return fmt.Errorf("%w: %w", err, image.ErrMalformed)
}

// scanArtifact reads an artifact to its end and checks it: a damaged one must
// not get a fresh, valid signature.
func scanArtifact(ctx context.Context, r io.ReaderAt, size int64) (*scan, error) {
	if size > MaxSize {
		return nil, fmt.Errorf("%d bytes are more than the limit of %d: %w", size, int64(MaxSize), image.ErrTooLarge)
	}
	src := &source{r: bufio.NewReaderSize(image.Section(ctx, r, 0, size), 64<<10)}
	s := &scan{limit: expansion(size), lines: map[string]bool{}}
	if err := s.outer(&tarReader{r: src}); err != nil {
		return nil, failure(src, err)
	}
	return s, nil
}

func (s *scan) outer(t *tarReader) error {
	name, size, err := t.next()
	if err != nil {
		return err
	}
	version, err := take(t, name, nameVersion, size, maxVersion)
	if err != nil {
		return err
	}
	var v struct {
		Format  string `json:"format"`
		Version int    `json:"version"`
	}
	if err := decode(version, &v); err != nil {
		return fmt.Errorf("version: %w", err)
	}
	if v.Format != "mender" {
		return fmt.Errorf("version says format %q: %w", v.Format, image.ErrMalformed)
	}
	if v.Version != 3 {
		return fmt.Errorf("artifact version %d, want 3: %w", v.Version, image.ErrUnsupported)
	}
	if name, size, err = t.next(); err != nil {
		return err
	}
	if s.manifest, err = take(t, name, nameManifest, size, maxManifest); err != nil {
		return err
	}
	if err := s.splitManifest(); err != nil {
		return err
	}
	if err := s.tick(nameVersion, sha256.Sum256(version)); err != nil {
		return err
	}
	s.cut = t.off + t.pad
	s.resume = s.cut
	if name, size, err = t.next(); err != nil {
		return err
	}
	if name == nameSignature {
		if size > maxSignature {
			return fmt.Errorf("manifest.sig has %d bytes: %w", size, image.ErrTooLarge)
		}
		s.resume += blockSize + (size+blockSize-1)/blockSize*blockSize
		if name, _, err = t.next(); err != nil {
			return err
		}
		if t.off != s.resume+blockSize { // it had an extended header
			return fmt.Errorf("manifest.sig is not a plain tar entry: %w", image.ErrMalformed)
		}
	}
	if strings.Contains(name, "augment") {
		return fmt.Errorf("%s is not signed, augmented artifacts cannot be released: %w", name, image.ErrUnsupported)
	}
	if err := s.header(t, name); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for i := range s.payloads {
		if name, _, err = t.next(); err != nil {
			return err
		}
		if err := s.data(t, name, i); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if name, _, err = t.next(); err == nil {
		return fmt.Errorf("%s follows the last payload: %w", name, image.ErrMalformed)
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	if err := nothingLeft(t.r); err != nil {
		return err
	}
	for line := range s.lines {
		return fmt.Errorf("the manifest names what is not there: %q: %w", line, image.ErrTruncated)
	}
	return nil
}

// take reads the current file, if it is the wanted one.
func take(t *tarReader, name, want string, size, limit int64) ([]byte, error) {
	if name != want {
		return nil, fmt.Errorf("%s where %s belongs: %w", name, want, image.ErrMalformed)
	}
	if size > limit {
		return nil, fmt.Errorf("%s has %d bytes, over the limit of %d: %w", name, size, limit, image.ErrTooLarge)
	}
	return io.ReadAll(t)
}

// splitManifest keeps the lines of the manifest, to tick them off one by one.
func (s *scan) splitManifest() error {
	text, ended := strings.CutSuffix(string(s.manifest), "\n")
	if !ended {
		return fmt.Errorf("the manifest does not end with a line: %w", image.ErrMalformed)
	}
	names := map[string]bool{}
	for line := range strings.SplitSeq(text, "\n") {
		if len(line) < 67 || line[64:66] != "  " || names[line[66:]] {
			return fmt.Errorf("the manifest has the line %q, again or not as a digest and a name: %w", line, image.ErrMalformed)
		}
		names[line[66:]] = true
		s.lines[line] = true
	}
	return nil
}

// tick removes the line of a file. If there is none the file is damaged or
// nobody listed it.
func (s *scan) tick(name string, sum [sha256.Size]byte) error {
	line := fmt.Sprintf("%x  %s", sum, name)
	if s.lines[line] {
		delete(s.lines, line)
		return nil
	}
	for l := range s.lines {
		if l[66:] == name {
			return fmt.Errorf("%s has sha256 %x, the manifest says %s: %w", name, sum, l[:64], image.ErrBadDigest)
		}
	}
	return fmt.Errorf("%s is not in the manifest, or a second time in the artifact: %w", name, image.ErrMalformed)
}

// unpack reads a tar inside the outer one and gives its files to file.
func unpack(raw io.Reader, suffix string, limit *int64, file func(t *tarReader, name string) error) error {
	in := bufio.NewReaderSize(raw, 64<<10)
	var plain io.Reader = in
	switch suffix {
	case ".tar":
	case ".tar.gz":
		z, err := gzip.NewReader(in)
		if err != nil {
			return fmt.Errorf("gzip: %w", err)
		}
		z.Multistream(false)
		plain = z
	case ".tar.zst":
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return fmt.Errorf("zstd: %w", err)
		}
		defer z.Close()
		plain = z
	default:
		return fmt.Errorf("%q: write the artifact with gzip, zstd or none: %w", suffix, image.ErrUnsupported)
	}
	capped := &io.LimitedReader{R: plain, N: *limit + 1}
	// An error below comes from the cap when the cap is used up.
	over := func(err error) error {
		if capped.N <= 0 {
			return fmt.Errorf("it decompresses to more than %d bytes: %w", *limit, image.ErrTooLarge)
		}
		return err
	}
	t := &tarReader{r: capped}
	for {
		name, _, err := t.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = file(t, name)
		}
		if err != nil {
			return over(err)
		}
	}
	if err := over(nothingLeft(capped)); err != nil {
		return err
	}
	*limit = capped.N - 1
	if rest, err := io.Copy(io.Discard, in); err != nil || rest != 0 {
		return errors.Join(err, fmt.Errorf("%d bytes follow the compressed data: %w", rest, image.ErrMalformed))
	}
	return nil
}

// nothingLeft reads to the end and wants zeros.
func nothingLeft(r io.Reader) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if len(bytes.Trim(buf[:n], "\x00")) != 0 {
			return fmt.Errorf("something follows the end of the tar: %w", image.ErrMalformed)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *scan) data(t *tarReader, name string, i int) error {
	dir := fmt.Sprintf("data/%04d", i)
	suffix, ok := strings.CutPrefix(name, dir)
	if !ok {
		return fmt.Errorf("it is where %s belongs: %w", dir, image.ErrMalformed)
	}
	return unpack(t, suffix, &s.limit, func(f *tarReader, name string) error {
		if name == "." || name == ".." || strings.ContainsAny(name, "/\\") {
			return fmt.Errorf("%q is no plain file name: %w", name, image.ErrMalformed)
		}
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return err
		}
		return s.tick(dir+"/"+name, [sha256.Size]byte(h.Sum(nil)))
	})
}

// typeInfo is the part of type-info, and of header-info, that Sign looks at.
type typeInfo struct {
	Type     *string           `json:"type"`
	Provides map[string]string `json:"artifact_provides"`
}

func (s *scan) header(t *tarReader, name string) error {
	suffix, ok := strings.CutPrefix(name, "header")
	if !ok {
		return fmt.Errorf("it is where the header belongs: %w", image.ErrMalformed)
	}
	var info struct {
		Payloads []typeInfo        `json:"payloads"`
		Provides map[string]string `json:"artifact_provides"`
		Depends  struct {
			Devices []string `json:"device_type"`
		} `json:"artifact_depends"`
	}
	h := sha256.New()
	first := true
	limit := int64(maxHeader)
	err := unpack(io.TeeReader(t, h), suffix, &limit, func(f *tarReader, name string) error {
		if strings.HasPrefix(name, "scripts/") || strings.HasSuffix(name, "/meta-data") {
			return nil
		}
		if f.left > maxJSON {
			return fmt.Errorf("%s has %d bytes: %w", name, f.left, image.ErrTooLarge)
		}
		b, err := io.ReadAll(f)
		if err != nil {
			return err
		}
		if first {
			if name != "header-info" {
				return fmt.Errorf("%s where header-info belongs: %w", name, image.ErrMalformed)
			}
			first = false
			return decode(b, &info)
		}
		n := len(s.payloads)
		if name != fmt.Sprintf("headers/%04d/type-info", n) || n >= len(info.Payloads) {
			return fmt.Errorf("%s does not belong there: %w", name, image.ErrMalformed)
		}
		var ti typeInfo
		if err := decode(b, &ti); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		s.payloads = append(s.payloads, Payload{Provides: ti.Provides})
		return nil
	})
	if err != nil {
		return err
	}
	s.name, s.devices = info.Provides["artifact_name"], info.Depends.Devices
	switch {
	case len(s.payloads) == 0 || len(s.payloads) != len(info.Payloads) || len(s.payloads) > maxPayloads:
		return fmt.Errorf("%d payloads, header-info says %d: %w", len(s.payloads), len(info.Payloads), image.ErrMalformed)
	case s.name == "" || len(s.devices) == 0:
		return fmt.Errorf("header-info has no artifact_name or no device_type: %w", image.ErrMalformed)
	}
	return s.tick(name, [sha256.Size]byte(h.Sum(nil)))
}

// decode decodes JSON, but not an object in which a name occurs twice.
func decode(b []byte, v any) error {
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %w", err, image.ErrMalformed)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var open []map[string]bool // names so far of each open object; nil for a list
	name := true               // in an object: a name comes next
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", err, image.ErrMalformed)
		}
		inObject := len(open) > 0 && open[len(open)-1] != nil
		text, isText := tok.(string)
		if inObject && name && isText {
			low := strings.ToLower(text)
			if open[len(open)-1][low] {
				return fmt.Errorf("%q occurs twice: %w", text, image.ErrMalformed)
			}
			open[len(open)-1][low] = true
			name = false
			continue
		}
		switch tok {
		case json.Delim('{'):
			open = append(open, map[string]bool{})
		case json.Delim('['):
			open = append(open, nil)
		case json.Delim('}'), json.Delim(']'):
			open = open[:len(open)-1]
		}
		name = true
	}
}
