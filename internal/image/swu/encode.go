package swu

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/writ-project/writ/internal/image"
)

// writer writes a cpio archive with checksums.
type writer struct {
	w    io.Writer // w and hash
	hash hash.Hash // of all that was written
	n    int64     // bytes written
	ino  int       // of the next file
}

func newWriter(w io.Writer) *writer {
	h := sha256.New()
	return &writer{w: io.MultiWriter(w, h), hash: h, ino: 1}
}

func (w *writer) write(b []byte) error {
	n, err := w.w.Write(b)
	w.n += int64(n)
	if err != nil {
		return fmt.Errorf("writing archive: %w", err)
	}
	return nil
}

// pad writes zeros up to a multiple of n bytes.
func (w *writer) pad(n int64) error { return w.write(make([]byte, -w.n&(n-1))) }

// header writes a header and the name. What SWUpdate does not look at is the
// same for everybody, so that the same input gives the same archive.
func (w *writer) header(f source) error {
	fields := []int64{int64(w.ino), 0o100644, 0, 0, 1, 0, f.size, 0, 0, 0, 0, int64(len(f.name)) + 1, int64(f.sum)}
	if f.name == nameTrailer {
		fields[0], fields[1] = 0, 0
	}
	h := []byte(magicCRC)
	for _, v := range fields {
		h = fmt.Appendf(h, "%08X", v)
	}
	h = append(append(h, f.name...), 0)
	if err := w.write(h); err != nil {
		return err
	}
	w.ino++
	return w.pad(4)
}

// file writes a file, whose size and sum are known.
func (w *writer) file(f source, content io.Reader) error {
	if err := w.header(f); err != nil {
		return err
	}
	again := &summer{}
	n, err := io.Copy(io.MultiWriter(w.w, again), content)
	w.n += n
	if err != nil {
		return fmt.Errorf("writing file %q: %w", f.name, err)
	}
	if n != f.size || again.sum != f.sum {
		return fmt.Errorf("writing file %q: it was changed since it was hashed", f.name)
	}
	return w.pad(4)
}

// finish writes the trailer.
func (w *writer) finish() error {
	if err := w.header(source{name: nameTrailer}); err != nil {
		return err
	}
	return w.pad(blockSize)
}

// summer adds up bytes modulo 2^32.
type summer struct{ sum uint32 }

// Write never fails.
func (s *summer) Write(p []byte) (int, error) {
	s.sum = byteSum(s.sum, p)
	return len(p), nil
}

func byteSum(sum uint32, p []byte) uint32 {
	const lanes = 0x00ff00ff00ff00ff
	for ; len(p) >= 8; p = p[8:] {
		x := binary.LittleEndian.Uint64(p)
		// Four lanes of 16 bits with two bytes each; the product has their sum on top.
		pairs := (x & lanes) + (x >> 8 & lanes)
		sum += uint32(pairs * 0x0001000100010001 >> 48)
	}
	for _, b := range p {
		sum += uint32(b)
	}
	return sum
}

// listFiles reads the headers of a cpio archive. It is the encoder's own reader,
// not the one of Inspect and Verify, and knows only what signing needs: headers
// are written anew, so what else they hold does not matter.
func listFiles(ctx context.Context, r io.ReaderAt, size int64) ([]source, error) {
	bad := func(format string, args ...any) ([]source, error) {
		return nil, fmt.Errorf("reading input: "+format, args...)
	}
	var files []source
	names := map[string]bool{}
	for pos := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		h := make([]byte, headerSize)
		if size-pos < headerSize {
			return bad("the archive ends without a trailer: %w", image.ErrTruncated)
		}
		if err := image.ReadAt(r, h, pos); err != nil {
			return bad("%w", err)
		}
		if m := string(h[:len(magicNew)]); m != magicNew && m != magicCRC {
			return bad("magic %q at offset %#x is not that of a cpio archive: %w", m, pos, image.ErrMalformed)
		}
		mode, errMode := strconv.ParseUint(string(h[14:22]), 16, 32)
		length, errLength := strconv.ParseUint(string(h[54:62]), 16, 32)
		nameLength, errName := strconv.ParseUint(string(h[94:102]), 16, 32)
		if errMode != nil || errLength != nil || errName != nil || nameLength < 2 || nameLength > maxName+1 {
			return bad("the header at offset %#x is none: %w", pos, image.ErrMalformed)
		}
		name := make([]byte, nameLength)
		if size-pos-headerSize < int64(nameLength) {
			return bad("the archive ends within a name: %w", image.ErrTruncated)
		}
		if err := image.ReadAt(r, name, pos+headerSize); err != nil {
			return bad("%w", err)
		}
		f := source{name: strings.TrimSuffix(string(name), "\x00"), off: roundUp(pos + headerSize + int64(nameLength)), size: int64(length)}
		switch {
		case f.name == nameTrailer:
			if len(files) == 0 {
				return bad("the archive has no file: %w", image.ErrMalformed)
			}
			return files, onlyZeros(ctx, r, f.off, size)
		case size-f.off < f.size:
			return bad("file %q should have %d bytes and has %d: %w", f.name, f.size, max(0, size-f.off), image.ErrTruncated)
		case names[f.name]:
			return bad("file %q is there twice: %w", f.name, image.ErrMalformed)
		case mode>>12 != 0o10 && mode>>12 != 0:
			return bad("%q is not a plain file: %w", f.name, image.ErrMalformed)
		case len(files) == MaxFiles:
			return bad("the archive has more than %d files: %w", MaxFiles, image.ErrTooLarge)
		}
		names[f.name] = true
		files = append(files, f)
		pos = roundUp(f.off + f.size)
	}
}

func roundUp(n int64) int64 { return n + -n&3 }

// onlyZeros refuses an archive that something follows, which signing would
// drop.
func onlyZeros(ctx context.Context, r io.ReaderAt, from, to int64) error {
	if to-from > maxPadding {
		return fmt.Errorf("reading input: %d bytes follow the archive: %w", to-from, image.ErrMalformed)
	}
	rest, err := io.ReadAll(image.Section(ctx, r, from, max(0, to-from)))
	if err != nil {
		return fmt.Errorf("reading input: %w", err)
	}
	if len(bytes.Trim(rest, "\x00")) > 0 {
		return fmt.Errorf("reading input: something other than zeros follows the archive: %w", image.ErrMalformed)
	}
	return nil
}

// describe writes the description of a new image.
func (s *settings) describe(files []source) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "software =\n{\n\tversion = %s;\n", quote(s.version))
	if s.Description != "" {
		fmt.Fprintf(&b, "\tdescription = %s;\n", quote(s.Description))
	}
	if len(s.Hardware) > 0 {
		quoted := make([]string, len(s.Hardware))
		for i, h := range s.Hardware {
			quoted[i] = quote(h)
		}
		fmt.Fprintf(&b, "\thardware-compatibility: [ %s ];\n", strings.Join(quoted, ", "))
	}
	for _, section := range sections {
		sep := fmt.Sprintf("\t%s: (\n", section)
		for j := range s.Images {
			m := &s.Images[j]
			if m.Section != section {
				continue
			}
			i := slices.IndexFunc(files, func(f source) bool { return f.name == m.Filename })
			b.WriteString(sep)
			m.describe(&b, files[i].sha256)
			sep = ",\n"
		}
		if sep == ",\n" {
			b.WriteString("\n\t);\n")
		}
	}
	b.WriteString("}\n")
	return b.Bytes()
}

func (m *Image) describe(b *bytes.Buffer, sum [sha256.Size]byte) {
	b.WriteString("\t\t{\n")
	for _, f := range []struct{ name, value string }{
		{"filename", m.Filename},
		{"name", m.Name},
		{"version", m.Version},
		{"type", m.Type},
		{"device", m.Device},
		{"path", m.Path},
		{"volume", m.Volume},
		{"mtdname", m.MTDName},
		{"filesystem", m.Filesystem},
		{"offset", m.Offset},
		{"compressed", m.Compressed},
		{"data", m.Data},
		{"ivt", m.IVT},
		{"sha256", hex.EncodeToString(sum[:])},
	} {
		if f.value != "" {
			fmt.Fprintf(b, "\t\t\t%s = %s;\n", f.name, quote(f.value))
		}
	}
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"installed-directly", m.InstalledDirectly},
		{"install-if-different", m.InstallIfDifferent},
		{"install-if-higher", m.InstallIfHigher},
		{"preserve-attributes", m.PreserveAttributes},
		{"encrypted", m.Encrypted},
	} {
		if f.set {
			fmt.Fprintf(b, "\t\t\t%s = true;\n", f.name)
		}
	}
	if len(m.Properties) > 0 {
		b.WriteString("\t\t\tproperties: {")
		for _, name := range slices.Sorted(maps.Keys(m.Properties)) {
			fmt.Fprintf(b, " %s = %s;", name, quote(m.Properties[name]))
		}
		b.WriteString(" };\n")
	}
	b.WriteString("\t\t}")
}

// quote writes a string of printable text as libconfig reads it.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
