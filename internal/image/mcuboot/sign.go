package mcuboot

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"hash"
	"io"

	"github.com/writ-project/writ/internal/image"
)

// Sign signs a raw binary, giving it a header, or an existing MCUboot image,
// replacing its signatures. The key is ECDSA P-256 or Ed25519.
//
// An existing image keeps its header and protected TLVs. Options that are set
// must agree with them, since changing what an image says about itself is the
// business of whoever built it.
func (Format) Sign(ctx context.Context, w io.Writer, r io.ReaderAt, size int64, key crypto.Signer, opt image.SignOptions) (image.SignResult, error) {
	res, err := sign(ctx, w, r, size, key, opt)
	if err != nil {
		return image.SignResult{}, fmt.Errorf("signing mcuboot image: %w", err)
	}
	return res, nil
}

func sign(ctx context.Context, w io.Writer, r io.ReaderAt, size int64, key crypto.Signer, opt image.SignOptions) (image.SignResult, error) {
	if size <= 0 {
		return image.SignResult{}, fmt.Errorf("reading input: it is empty: %w", image.ErrTruncated)
	}
	if size > MaxSize {
		return image.SignResult{}, fmt.Errorf("reading input: %d bytes are over the limit of %d: %w", size, MaxSize, image.ErrTooLarge)
	}
	s, err := newSealer(w, key)
	if err != nil {
		return image.SignResult{}, err
	}
	var first [4]byte
	if err := image.ReadAt(r, first[:min(4, size)], 0); err != nil {
		return image.SignResult{}, fmt.Errorf("reading input: %w", err)
	}
	if le.Uint32(first[:]) == imageMagic {
		return s.resign(ctx, r, size, opt)
	}
	return s.create(ctx, r, size, opt)
}

// create makes an image of a raw binary.
func (s *sealer) create(ctx context.Context, r io.ReaderAt, size int64, opt image.SignOptions) (image.SignResult, error) {
	v, err := ParseVersion(opt.Version)
	if err != nil {
		return image.SignResult{}, err
	}
	hdr := defaultHeaderSize
	if opt.HeaderSize != 0 {
		hdr = opt.HeaderSize
	}
	if hdr < headerSize || hdr > 0xffff {
		return image.SignResult{}, fmt.Errorf("checking header size: %d is not within %d and 65535: %w", hdr, headerSize, image.ErrBadOptions)
	}
	prot, err := protectedArea(opt)
	if err != nil {
		return image.SignResult{}, err
	}

	fill, start := byte(0xff), int64(0)
	if opt.HeaderInPlace {
		if err := onlyZeros(r, size, hdr); err != nil {
			return image.SignResult{}, err
		}
		fill, start = 0x00, int64(hdr)
	}
	payload := size - start
	if payload == 0 {
		return image.SignResult{}, fmt.Errorf("reading input: nothing follows the space for the header: %w", image.ErrTruncated)
	}
	if err := s.checkSize(int64(hdr)+payload+int64(len(prot)), opt); err != nil {
		return image.SignResult{}, err
	}

	// The header fixes the size of the protected area before anything is
	// hashed, because it is hashed itself. The sizes were checked to fit.
	h := make([]byte, 0, headerSize)
	h = le.AppendUint32(h, imageMagic)
	h = le.AppendUint32(h, 0)                 // load address
	h = le.AppendUint16(h, uint16(hdr))       // checked above
	h = le.AppendUint16(h, uint16(len(prot))) //nolint:gosec // G115: at most 56 bytes
	h = le.AppendUint32(h, uint32(payload))   //nolint:gosec // G115: less than MaxSize
	h = le.AppendUint32(h, 0)                 // flags
	h = append(h, v.Major, v.Minor)
	h = le.AppendUint16(h, v.Revision)
	h = le.AppendUint32(h, v.Build)
	h = le.AppendUint32(h, 0)

	err = s.region(
		bytes.NewReader(h),
		bytes.NewReader(bytes.Repeat([]byte{fill}, hdr-headerSize)),
		image.Section(ctx, r, start, payload),
		bytes.NewReader(prot),
	)
	if err != nil {
		return image.SignResult{}, err
	}
	return s.seal()
}

// protectedArea encodes the protected TLVs in imgtool's order, or nothing when
// there are none.
func protectedArea(opt image.SignOptions) ([]byte, error) {
	var tlvs []byte
	if c := opt.SecurityCounter; c != nil {
		if *c > 0xffffffff {
			return nil, fmt.Errorf("checking security counter: %d does not fit 32 bits: %w", *c, image.ErrBadOptions)
		}
		tlvs = appendTLV(tlvs, tlvSecCnt, le.AppendUint32(nil, uint32(*c)))
	}
	if opt.Vendor != "" {
		if len(opt.Hardware) != 1 {
			return nil, fmt.Errorf("checking hardware: an image can be bound to one class, got %d: %w", len(opt.Hardware), image.ErrBadOptions)
		}
		vid, err := vendorUUID(opt.Vendor)
		if err != nil {
			return nil, err
		}
		cid, err := nameUUID(vid, opt.Hardware[0])
		if err != nil {
			return nil, err
		}
		tlvs = appendTLV(tlvs, tlvUUIDVid, vid[:])
		tlvs = appendTLV(tlvs, tlvUUIDCid, cid[:])
	}
	if len(tlvs) == 0 {
		return nil, nil
	}
	return append(areaInfo(tlvProtMagic, len(tlvs)), tlvs...), nil
}

func areaInfo(magic uint16, tlvs int) []byte {
	info := le.AppendUint16(nil, magic)
	return le.AppendUint16(info, uint16(tlvInfoSize+tlvs)) //nolint:gosec // G115: a few hundred bytes
}

func appendTLV(b []byte, typ uint16, data []byte) []byte {
	b = le.AppendUint16(b, typ)
	b = le.AppendUint16(b, uint16(len(data))) //nolint:gosec // G115: a few hundred bytes
	return append(b, data...)
}

func onlyZeros(r io.ReaderAt, size int64, n int) error {
	if size < int64(n) {
		return fmt.Errorf("checking space for the header: input has %d bytes, want %d: %w", size, n, image.ErrTruncated)
	}
	space := make([]byte, n)
	if err := image.ReadAt(r, space, 0); err != nil {
		return fmt.Errorf("checking space for the header: %w", err)
	}
	for i, b := range space {
		if b != 0 {
			return fmt.Errorf("checking space for the header: %#02x at offset %#x, want zeros: %w", b, i, image.ErrBadOptions)
		}
	}
	return nil
}

// sealer writes one image: the signed region, then the TLVs that sign it.
type sealer struct {
	key      crypto.Signer
	alg      string
	spki     []byte
	w        io.Writer
	file     hash.Hash // of everything written
	digest   hash.Hash // of the signed region
	size     int64
	maxTLVs  int64
	expected []byte // the digest a re-signed image carried
}

func newSealer(w io.Writer, key crypto.Signer) (*sealer, error) {
	alg, err := image.SigningAlgorithm(key.Public())
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("encoding public key: %w", err)
	}
	// A DER signature on P-256 has at most 72 bytes. The check of the slot
	// takes the most, so that it does not depend on the luck of the nonce.
	const maxTLVs = tlvInfoSize + 3*tlvHeadSize + 2*sha256.Size + 72
	return &sealer{key: key, alg: alg, spki: spki, w: w, file: sha256.New(), digest: sha256.New(), maxTLVs: maxTLVs}, nil
}

func (s *sealer) checkSize(region int64, opt image.SignOptions) error {
	total := region + s.maxTLVs
	if total > MaxSize {
		return fmt.Errorf("checking size: image of %d bytes is over the limit of %d: %w", total, MaxSize, image.ErrTooLarge)
	}
	if opt.SlotSize != 0 && total+trailerSize > opt.SlotSize {
		return fmt.Errorf("checking size: image of %d bytes and trailer of %d do not fit a slot of %d: %w",
			total, trailerSize, opt.SlotSize, image.ErrTooLarge)
	}
	return nil
}

// region writes and hashes the signed part.
func (s *sealer) region(parts ...io.Reader) error {
	n, err := io.Copy(io.MultiWriter(s.w, s.file, s.digest), io.MultiReader(parts...))
	s.size += n
	if err != nil {
		return fmt.Errorf("copying image: %w", err)
	}
	return nil
}

// seal writes digest, key hash and signature.
func (s *sealer) seal() (image.SignResult, error) {
	digest := [sha256.Size]byte(s.digest.Sum(nil))
	if s.expected != nil && !bytes.Equal(s.expected, digest[:]) {
		return image.SignResult{}, fmt.Errorf("checking input: content has sha256 %x, the image says %x: %w", digest, s.expected, image.ErrBadDigest)
	}
	sig, err := image.MakeSignature(s.key, digest, digest[:])
	if err != nil {
		return image.SignResult{}, err
	}
	typ := uint16(tlvECDSA)
	if s.alg == image.AlgEd25519 {
		typ = tlvEd25519
	}
	keyHash := sha256.Sum256(s.spki)

	tlvs := appendTLV(nil, tlvSHA256, digest[:])
	tlvs = appendTLV(tlvs, tlvKeyHash, keyHash[:])
	tlvs = appendTLV(tlvs, typ, sig)
	tlvs = append(areaInfo(tlvInfoMagic, len(tlvs)), tlvs...)
	n, err := io.MultiWriter(s.w, s.file).Write(tlvs)
	s.size += int64(n)
	if err != nil {
		return image.SignResult{}, fmt.Errorf("writing TLV area: %w", err)
	}
	return image.SignResult{
		Size:   s.size,
		SHA256: [sha256.Size]byte(s.file.Sum(nil)),
		Image:  image.Digest{Scope: image.ScopeImage, Algorithm: "sha256", Hex: hex.EncodeToString(digest[:])},
		KeyID:  hex.EncodeToString(keyHash[:]),
	}, nil
}
