package mcuboot

import (
	"bytes"
	"context"
	"crypto"
	"encoding/hex"
	"fmt"
	"io"
	"slices"

	"github.com/writ-project/writ/internal/image"
)

// This is the encoder's own reader of images, deliberately not the one that
// Inspect and Verify use. It knows only what re-signing needs.

// resign copies the signed region of an image and signs it anew. Of the old TLV
// area the signatures of other keys stay if they were asked to; nothing else
// does.
func (s *sealer) resign(ctx context.Context, r io.ReaderAt, size int64) (image.SignResult, error) {
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
	case hdr < headerSize || img == 0 || (protSize != 0 && protSize < tlvInfoSize):
		return bad("header size %d, payload size %d, protected size %d: %w", hdr, img, protSize, image.ErrMalformed)
	case tail+tlvInfoSize > size:
		return bad("%d bytes, its header says more than %d: %w", size, tail, image.ErrTruncated)
	case le.Uint32(h[16:])&flagsCompressed != 0:
		return bad("its payload is compressed, and what it expands to is signed as well, inside: build it again with the new key: %w", image.ErrUnsupported)
	}
	prot := make([]byte, protSize)
	if err := image.ReadAt(r, prot, hdr+img); err != nil {
		return bad("%w", err)
	}
	protTLVs, err := splitArea(prot, tlvProtMagic)
	if err != nil {
		return bad("protected area: %w", err)
	}
	if err := unambiguous(protTLVs); err != nil {
		return bad("%w", err)
	}
	old, err := readOld(ctx, r, size, tail)
	if err != nil {
		return bad("%w", err)
	}
	if err := s.succeed(old, protTLVs); err != nil {
		return image.SignResult{}, err
	}
	header, blocks, err := s.encryptOld(h, old, hdr+img)
	if err != nil {
		return image.SignResult{}, err
	}
	v := Version{h[20], h[21], le.Uint16(h[22:]), le.Uint32(h[24:])}
	if err := s.set.agree(v, int(hdr), protTLVs); err != nil {
		return image.SignResult{}, err
	}
	if err := s.begin(tail + int64(blocks)); err != nil {
		return image.SignResult{}, err
	}
	s.expected = old.digest
	if s.hash != old.hash || header != h {
		s.was = old.hash.New()
	}
	err = s.region(region{
		old:     h[:],
		header:  header[:],
		padding: image.Section(ctx, r, headerSize, hdr-headerSize),
		payload: image.Section(ctx, r, hdr, img),
		blocks:  blocks,
		prot:    prot,
	})
	if err != nil {
		return image.SignResult{}, err
	}
	return s.seal()
}

// succeed settles how the new signature relates to the old ones.
func (s *sealer) succeed(old *oldArea, prot []entry) error {
	if err := s.choose(old); err != nil {
		return err
	}
	if s.set.Key == "" && len(old.pairs) > 0 {
		s.inFull = old.pairs[0].typ == tlvPubKey
	}
	record := slices.ContainsFunc(prot, func(e entry) bool { return e.typ == tlvBootRec })
	if record && s.hash != old.hash {
		return badOptions("hash: the boot record has room for a digest by %v and the new signature needs %v", old.hash, s.hash)
	}
	if s.set.Signatures != addSignatures {
		return nil
	}
	if old.foreign != nil {
		return fmt.Errorf("adding a signature: TLV %#04x is not allowed among signatures: %w", old.foreign.typ, image.ErrMalformed)
	}
	// A signature by the same key is replaced.
	own := s.keyHash()
	for i := 0; i < len(old.pairs); i += 2 {
		if name := old.pairs[i].data; !bytes.Equal(name, own) && !bytes.Equal(name, s.embedded) {
			s.kept = append(s.kept, old.pairs[i], old.pairs[i+1])
		}
	}
	if len(s.kept)/2 >= maxSignatures {
		return badOptions("signatures: the image has %d by other keys, and the limit is %d", len(s.kept)/2, maxSignatures)
	}
	return nil
}

// encryptOld returns the header and how many bytes to add to the payload, for
// an image whose region ends, without protected area, at end.
func (s *sealer) encryptOld(h [headerSize]byte, old *oldArea, end int64) (header [headerSize]byte, blocks int, err error) {
	e, flags := s.set.Encryption, le.Uint32(h[16:])
	header = h
	switch {
	case old.encrypted:
		return h, 0, fmt.Errorf("reading image to sign: it is encrypted; sign it before it is, see the deferred encryption of the layout: %w", image.ErrEncrypted)
	case flags&flagsEncrypted != 0 && e == nil:
		return h, 0, fmt.Errorf("reading image to sign: it is to be encrypted; give the recipient, or deferred if more signatures follow: %w", image.ErrEncrypted)
	case flags&flagsEncrypted != 0:
		if flags&flagsEncrypted != e.flag() || toBlock(end) != 0 {
			return h, 0, badOptions("encryption: the image is prepared with flags %#x and size %d, which does not fit AES-%d", flags, end, e.AES)
		}
		return h, 0, nil
	case e == nil:
		return h, 0, nil
	case s.set.Signatures == addSignatures:
		return h, 0, badOptions("encryption: it changes the header, which the signatures that stay cover: the first signer prepares it with deferred")
	}
	blocks = toBlock(end)
	le.PutUint32(header[12:], le.Uint32(h[12:])+uint32(blocks)) //nolint:gosec // G115: less than 16
	le.PutUint32(header[16:], flags|e.flag())
	return header, blocks, nil
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
	if len(out) > maxTLVs {
		return nil, fmt.Errorf("has %d TLVs, the limit is %d: %w", len(out), maxTLVs, image.ErrMalformed)
	}
	return out, nil
}

// unambiguous refuses protected TLVs that bootloaders would read differently.
func unambiguous(prot []entry) error {
	for i, t := range prot {
		single := t.typ == tlvSecCnt || t.typ == tlvBootRec || t.typ == tlvUUIDVid || t.typ == tlvUUIDCid
		again := slices.ContainsFunc(prot[:i], func(o entry) bool { return o.typ == t.typ })
		if t.typ < firstProtTLV || single && again {
			return fmt.Errorf("protected TLV %#04x is ambiguous to a bootloader: %w", t.typ, image.ErrMalformed)
		}
	}
	return nil
}

// oldArea is the unprotected TLV area of an image to be re-signed.
type oldArea struct {
	hash      crypto.Hash
	digest    []byte
	pure      bool
	pairs     []entry // key, signature, key, signature, …
	encrypted bool    // it has the key of an encrypted payload
	foreign   *entry  // one that has no place there
}

// readOld reads the unprotected area at off, and checks that only padding,
// which is dropped, follows it.
func readOld(ctx context.Context, r io.ReaderAt, size, off int64) (*oldArea, error) {
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
	old := &oldArea{}
	for len(tlvs) > 0 {
		n, err := old.take(tlvs)
		if err != nil {
			return nil, err
		}
		tlvs = tlvs[n:]
	}
	if old.digest == nil {
		return nil, fmt.Errorf("TLV area has no digest: %w", image.ErrMalformed)
	}
	return old, onlyPadding(ctx, r, size, off+total)
}

// take reads the next TLV, or the next two, and returns how many.
func (old *oldArea) take(tlvs []entry) (int, error) {
	t := tlvs[0]
	switch t.typ {
	case tlvSHA256, tlvSHA384, tlvSHA512:
		h := map[uint16]crypto.Hash{tlvSHA256: crypto.SHA256, tlvSHA384: crypto.SHA384, tlvSHA512: crypto.SHA512}[t.typ]
		if old.digest != nil || len(t.data) != h.Size() {
			return 0, fmt.Errorf("digest TLV %#04x with %d bytes, want one with %d: %w", t.typ, len(t.data), h.Size(), image.ErrMalformed)
		}
		old.hash, old.digest = h, t.data
	case tlvSigPure:
		old.pure = true
	case tlvKeyHash, tlvPubKey:
		if len(tlvs) < 2 || !isSignature(tlvs[1].typ) {
			return 0, fmt.Errorf("TLV %#04x names a key, and no signature follows: %w", t.typ, image.ErrMalformed)
		}
		old.pairs = append(old.pairs, t, tlvs[1])
		return 2, nil
	case tlvEncRSA, tlvEncKW, tlvEncEC256, tlvEncX25519, tlvEncX25519SHA512:
		old.encrypted = true
	default:
		old.foreign = &t
	}
	return 1, nil
}

func isSignature(typ uint16) bool {
	return typ == tlvECDSA || typ == tlvEd25519 || typ == tlvRSA2048 || typ == tlvRSA3072
}

func onlyPadding(ctx context.Context, r io.ReaderAt, size, pos int64) error {
	buf := make([]byte, 32<<10)
	for pos < size {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := buf[:min(int64(len(buf)), size-pos)]
		if err := image.ReadAt(r, b, pos); err != nil {
			return err
		}
		if bytes.Count(b, []byte{0xff}) != len(b) {
			return fmt.Errorf("something other than erased flash follows the TLV area: %w", image.ErrMalformed)
		}
		pos += int64(len(b))
	}
	return nil
}

// agree checks that the options that are set say what the image says already.
func (s *settings) agree(v Version, hdr int, prot []entry) error {
	differ := func(what string, want, got any) error {
		return fmt.Errorf("comparing options with the image: %s is %v, the image says %v: %w", what, want, got, image.ErrBadOptions)
	}
	if s.version != "" {
		want, err := ParseVersion(s.version)
		if err != nil {
			return err
		}
		if want != v {
			return differ("version", want, v)
		}
	}
	if s.HeaderSize != 0 && s.HeaderSize != hdr {
		return differ("header size", s.HeaderSize, hdr)
	}
	// What the options would put into the protected area must be in there. The
	// boot record may name another signer; only the type of software is asked.
	if s.BootRecord != "" && !slices.ContainsFunc(prot, func(e entry) bool {
		return e.typ == tlvBootRec && bytes.HasPrefix(e.data, recordPrefix(s.BootRecord))
	}) {
		return differ("software type of the boot record", s.BootRecord, "something else")
	}
	wanted, err := s.protected(nil)
	if err != nil {
		return err
	}
	for _, want := range wanted {
		found := "nothing"
		for _, t := range prot {
			if t.typ == want.typ {
				found = hex.EncodeToString(t.data)
				if bytes.Equal(t.data, want.data) {
					break
				}
			}
		}
		if w := hex.EncodeToString(want.data); w != found {
			return differ(fmt.Sprintf("TLV %#04x", want.typ), w, found)
		}
	}
	return nil
}
