package mcuboot

import (
	"bytes"
	"context"
	"crypto"
	"fmt"
	"io"

	"github.com/writ-project/writ/internal/image"
)

// Sign signs a raw binary, giving it a header, or an existing MCUboot image,
// replacing its signatures or adding one. The key is ECDSA P-256 or P-384,
// Ed25519, or RSA of 2048 or 3072 bits. Options that only this format has are in
// [Layout].
//
// An existing image keeps its header and protected TLVs. Options that are set
// must agree with them, since changing what an image says about itself is the
// business of whoever built it. Encrypting it is the one exception: that marks
// the header and pads the payload.
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
	set, err := readOptions(opt)
	if err != nil {
		return image.SignResult{}, err
	}
	s, err := newSealer(w, key, set)
	if err != nil {
		return image.SignResult{}, err
	}
	var first [4]byte
	if err := image.ReadAt(r, first[:min(4, size)], 0); err != nil {
		return image.SignResult{}, fmt.Errorf("reading input: %w", err)
	}
	if le.Uint32(first[:]) == imageMagic {
		return s.resign(ctx, r, size)
	}
	return s.create(ctx, r, size)
}

// create makes an image of a raw binary.
func (s *sealer) create(ctx context.Context, r io.ReaderAt, size int64) (image.SignResult, error) {
	v, err := ParseVersion(s.set.version)
	if err != nil {
		return image.SignResult{}, err
	}
	hdr := defaultHeaderSize
	if s.set.HeaderSize != 0 {
		hdr = s.set.HeaderSize
	}
	if hdr < headerSize || hdr > 0xffff {
		return image.SignResult{}, fmt.Errorf("checking header size: %d is not within %d and 65535: %w", hdr, headerSize, image.ErrBadOptions)
	}
	if s.set.Signatures == addSignatures {
		return image.SignResult{}, badOptions("signatures: a raw binary has none to add to")
	}
	if err := s.choose(nil); err != nil {
		return image.SignResult{}, err
	}
	prot, err := s.newProtected(v)
	if err != nil {
		return image.SignResult{}, err
	}

	fill, start := byte(0xff), int64(0)
	if s.set.HeaderInPlace {
		if err := onlyZeros(r, size, hdr); err != nil {
			return image.SignResult{}, err
		}
		fill, start = 0x00, int64(hdr)
	}
	payload := size - start
	if payload == 0 {
		return image.SignResult{}, fmt.Errorf("reading input: nothing follows the space for the header: %w", image.ErrTruncated)
	}
	flags, blocks := uint32(0), 0
	if e := s.set.Encryption; e != nil {
		flags, blocks = e.flag(), toBlock(int64(hdr)+payload)
	}
	if err := s.begin(int64(hdr) + payload + int64(blocks+len(prot))); err != nil {
		return image.SignResult{}, err
	}

	// The header fixes the size of the protected area before anything is
	// hashed, because it is hashed itself. The sizes were checked to fit.
	h := make([]byte, 0, headerSize)
	h = le.AppendUint32(h, imageMagic)
	h = le.AppendUint32(h, 0)                              // load address
	h = le.AppendUint16(h, uint16(hdr))                    // checked above
	h = le.AppendUint16(h, uint16(len(prot)))              //nolint:gosec // G115: encodeArea checked
	h = le.AppendUint32(h, uint32(payload)+uint32(blocks)) //nolint:gosec // G115: less than MaxSize
	h = le.AppendUint32(h, flags)
	h = append(h, v.Major, v.Minor)
	h = le.AppendUint16(h, v.Revision)
	h = le.AppendUint32(h, v.Build)
	h = le.AppendUint32(h, 0)

	err = s.region(region{
		header:  h,
		padding: bytes.NewReader(bytes.Repeat([]byte{fill}, hdr-headerSize)),
		payload: image.Section(ctx, r, start, payload),
		blocks:  blocks,
		prot:    prot,
	})
	if err != nil {
		return image.SignResult{}, err
	}
	return s.seal()
}

// newProtected encodes the protected area of a new image.
func (s *sealer) newProtected(v Version) ([]byte, error) {
	var record []byte
	if s.set.BootRecord != "" {
		record = bootRecord(s.set.BootRecord, v, s.hash, s.keyHash())
	}
	entries, err := s.set.protected(record)
	if err != nil {
		return nil, err
	}
	return encodeArea(tlvProtMagic, entries)
}

// toBlock is how many bytes are missing to a whole number of AES blocks.
func toBlock(n int64) int { return int(-n & 15) }

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
