package mcuboot

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"slices"

	"github.com/writ-project/writ/internal/image"
)

// This is the encoder's own reader of images, deliberately not the one that
// Inspect and Verify use. It knows only what re-signing needs.

// resign copies the signed region of an image and signs it anew. The old TLV
// area is replaced as a whole: signatures, and anything else in it, go.
func (s *sealer) resign(ctx context.Context, r io.ReaderAt, size int64, opt image.SignOptions) (image.SignResult, error) {
	bad := func(format string, args ...any) (image.SignResult, error) {
		return image.SignResult{}, fmt.Errorf("reading image to sign: "+format, args...)
	}
	var h [headerSize]byte
	if err := image.ReadAt(r, h[:], 0); err != nil {
		return bad("%w", err)
	}
	hdr, img, protSize := int64(le.Uint16(h[8:])), int64(le.Uint32(h[12:])), int64(le.Uint16(h[10:]))
	tail := hdr + img + protSize // where the unprotected area starts
	switch {
	case le.Uint32(h[16:])&flagsEncrypted != 0:
		return bad("decrypt it first: %w", image.ErrEncrypted)
	case hdr < headerSize || img == 0 || (protSize != 0 && protSize < tlvInfoSize):
		return bad("header size %d, payload size %d, protected size %d: %w", hdr, img, protSize, image.ErrMalformed)
	case tail+tlvInfoSize > size:
		return bad("%d bytes, its header says more than %d: %w", size, tail, image.ErrTruncated)
	}
	prot := make([]byte, protSize)
	if err := image.ReadAt(r, prot, hdr+img); err != nil {
		return bad("%w", err)
	}
	protTLVs, err := splitArea(prot, tlvProtMagic)
	if err != nil {
		return bad("protected area: %w", err)
	}
	for i, t := range protTLVs {
		single := t.typ == tlvSecCnt || t.typ == tlvBootRec || t.typ == tlvUUIDVid || t.typ == tlvUUIDCid
		again := slices.ContainsFunc(protTLVs[:i], func(o entry) bool { return o.typ == t.typ })
		if t.typ < firstProtTLV || single && again {
			return bad("protected TLV %#04x is ambiguous to a bootloader: %w", t.typ, image.ErrMalformed)
		}
	}
	digest, err := oldDigest(ctx, r, size, tail)
	if err != nil {
		return bad("%w", err)
	}
	v := Version{h[20], h[21], le.Uint16(h[22:]), le.Uint32(h[24:])}
	if err := agree(opt, v, int(hdr), protTLVs); err != nil {
		return image.SignResult{}, err
	}
	if err := s.checkSize(tail, opt); err != nil {
		return image.SignResult{}, err
	}
	// A damaged image must not get a fresh, valid signature.
	s.expected = digest
	err = s.region(
		bytes.NewReader(h[:]),
		image.Section(ctx, r, headerSize, hdr+img-headerSize),
		bytes.NewReader(prot),
	)
	if err != nil {
		return image.SignResult{}, err
	}
	return s.seal()
}

// entry is one TLV of the image to sign.
type entry struct {
	typ  uint16
	data []byte
}

// splitArea splits a TLV area. An empty one has no entries.
func splitArea(area []byte, magic uint16) ([]entry, error) {
	if len(area) == 0 {
		return nil, nil
	}
	if le.Uint16(area) != magic || int(le.Uint16(area[2:])) != len(area) {
		return nil, fmt.Errorf("starts with % x, want magic %#04x and size %d: %w", area[:tlvInfoSize], magic, len(area), image.ErrMalformed)
	}
	var out []entry
	for rest := area[tlvInfoSize:]; len(rest) > 0; {
		if len(rest) < tlvHeadSize || len(rest)-tlvHeadSize < int(le.Uint16(rest[2:])) {
			return nil, fmt.Errorf("last TLV needs more than the %d bytes left: %w", len(rest), image.ErrMalformed)
		}
		n := tlvHeadSize + int(le.Uint16(rest[2:]))
		out = append(out, entry{le.Uint16(rest), rest[tlvHeadSize:n]})
		rest = rest[n:]
	}
	return out, nil
}

// oldDigest returns the SHA-256 digest in the unprotected area at off, and
// checks that only padding, which is dropped, follows that area.
func oldDigest(ctx context.Context, r io.ReaderAt, size, off int64) ([]byte, error) {
	var info [tlvInfoSize]byte
	if err := image.ReadAt(r, info[:], off); err != nil {
		return nil, err
	}
	total := int64(le.Uint16(info[2:]))
	if total < tlvInfoSize || total > size-off {
		return nil, fmt.Errorf("TLV area of %d bytes where %d are left: %w", total, size-off, image.ErrTruncated)
	}
	area := make([]byte, total)
	if err := image.ReadAt(r, area, off); err != nil {
		return nil, err
	}
	tlvs, err := splitArea(area, tlvInfoMagic)
	if err != nil {
		return nil, fmt.Errorf("TLV area: %w", err)
	}
	var digest []byte
	for _, t := range tlvs {
		switch {
		case t.typ == tlvSHA256 && len(t.data) == 32 && digest == nil:
			digest = t.data
		case t.typ >= tlvSHA256 && t.typ <= tlvSHA512:
			return nil, fmt.Errorf("digest TLV %#04x with %d bytes, want one SHA-256: %w", t.typ, len(t.data), image.ErrUnsupported)
		case t.typ >= tlvEncFirst && t.typ <= tlvEncLast:
			return nil, fmt.Errorf("decrypt it first: %w", image.ErrEncrypted)
		}
	}
	if digest == nil {
		return nil, fmt.Errorf("TLV area has no digest: %w", image.ErrMalformed)
	}
	buf := make([]byte, 32<<10)
	for pos := off + total; pos < size; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b := buf[:min(int64(len(buf)), size-pos)]
		if err := image.ReadAt(r, b, pos); err != nil {
			return nil, err
		}
		if bytes.Count(b, []byte{0xff}) != len(b) {
			return nil, fmt.Errorf("something other than erased flash follows the TLV area: %w", image.ErrMalformed)
		}
		pos += int64(len(b))
	}
	return digest, nil
}

// agree checks that the options that are set say what the image says already.
func agree(opt image.SignOptions, v Version, hdr int, prot []entry) error {
	differ := func(what string, want, got any) error {
		return fmt.Errorf("comparing options with the image: %s is %v, the image says %v: %w", what, want, got, image.ErrBadOptions)
	}
	if opt.Version != "" {
		want, err := ParseVersion(opt.Version)
		if err != nil {
			return err
		}
		if want != v {
			return differ("version", want, v)
		}
	}
	if opt.HeaderSize != 0 && opt.HeaderSize != hdr {
		return differ("header size", opt.HeaderSize, hdr)
	}
	// What the options would put into the protected area must be in there.
	area, err := protectedArea(opt)
	if err != nil {
		return err
	}
	wanted, err := splitArea(area, tlvProtMagic)
	if err != nil {
		return err
	}
	for _, want := range wanted {
		found := "nothing"
		for _, t := range prot {
			if t.typ == want.typ {
				found = hex.EncodeToString(t.data)
				break
			}
		}
		if w := hex.EncodeToString(want.data); w != found {
			return differ(fmt.Sprintf("TLV %#04x", want.typ), w, found)
		}
	}
	return nil
}
