package mcuboot

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"

	"github.com/writ-project/writ/internal/image"
)

// sealer writes one image: the signed region, then the TLVs that sign it.
type sealer struct {
	key crypto.Signer
	set *settings
	*scheme

	out  io.Writer
	file hash.Hash // of everything written
	size int64

	hash    crypto.Hash
	digest  hash.Hash     // of the signed region
	message *bytes.Buffer // the signed region, for a pure signature
	pure    bool
	inFull  bool // the signature carries the key, not its hash

	// Of an image to be re-signed:
	kept     []entry   // pairs of key and signature that stay
	was      hash.Hash // of the region as it came, when that differs
	expected []byte    // the digest it came with

	envelope *envelope // nil leaves the payload clear
}

func newSealer(w io.Writer, key crypto.Signer, set *settings) (*sealer, error) {
	k, err := schemeOf(key.Public())
	if err != nil {
		return nil, err
	}
	s := &sealer{key: key, set: set, scheme: k, file: sha256.New(), inFull: set.Key == keyInFull}
	if set.recipient != nil {
		if err := k.pairs(set.recipient); err != nil {
			return nil, err
		}
		if s.envelope, err = set.Encryption.seal(set.recipient); err != nil {
			return nil, err
		}
	}
	s.out = io.MultiWriter(w, s.file)
	return s, nil
}

// choose settles on the mode. old is nil for a new image.
func (s *sealer) choose(old *oldArea) (err error) {
	s.hash, s.pure, err = s.scheme.choose(s.set, old)
	if err != nil {
		return err
	}
	if s.hash == crypto.SHA256 && s.envelope == nil {
		s.digest = s.file // the region is how the file begins: hash it once
		return nil
	}
	s.digest = s.hash.New()
	return nil
}

func (s *sealer) keyHash() []byte {
	h := s.hash.New()
	h.Write(s.embedded)
	return h.Sum(nil)
}

// begin checks that an image with a signed region of this size fits. It takes
// the most that a signature can have, so that the answer does not depend on the
// luck of the nonce.
func (s *sealer) begin(region int64) error {
	total := region + 2*tlvInfoSize + 2*tlvHeadSize + int64(s.hash.Size())
	total += int64(tlvHeadSize + max(len(s.embedded), s.hash.Size()) + s.maxSig)
	for _, e := range s.kept {
		total += int64(tlvHeadSize + len(e.data))
	}
	trailer := int64(trailerSize)
	if e := s.set.Encryption; e != nil {
		total += int64(e.maxSize())
		trailer += 2 * int64(e.AES/8) // the key of each slot
	}
	if total > MaxSize {
		return fmt.Errorf("checking size: image of %d bytes is over the limit of %d: %w", total, MaxSize, image.ErrTooLarge)
	}
	if s.set.SlotSize != 0 && total+trailer > s.set.SlotSize {
		return fmt.Errorf("checking size: image of %d bytes and trailer of %d do not fit a slot of %d: %w",
			total, trailer, s.set.SlotSize, image.ErrTooLarge)
	}
	if !s.pure {
		return nil
	}
	if region > MaxPureSign {
		return fmt.Errorf("checking size: a pure signature is made over all %d bytes at once, and the limit is %d; sign the digest instead (pure: false): %w",
			region, MaxPureSign, image.ErrTooLarge)
	}
	s.message = bytes.NewBuffer(make([]byte, 0, region))
	return nil
}

// region is the signed part of an image.
type region struct {
	old     []byte // the header as it came, when it changes
	header  []byte
	padding io.Reader
	payload io.Reader
	blocks  int // zeros that fill the payload up to a whole AES block
	prot    []byte
}

// region writes and hashes the signed part. What is hashed is always clear.
func (s *sealer) region(g region) error {
	var also []io.Writer
	if s.digest != s.file {
		also = append(also, s.digest)
	}
	if s.message != nil {
		also = append(also, s.message)
	}
	hashed := io.MultiWriter(also...)
	was := io.Discard
	if s.was != nil {
		was = s.was
	}
	if g.old == nil {
		g.old = g.header
	}
	file, payload := io.Writer(counter{s.out, &s.size}), s.envelope.writer(counter{s.out, &s.size})
	for _, part := range []struct {
		from io.Reader
		to   []io.Writer
	}{
		{bytes.NewReader(g.old), []io.Writer{was}},
		{bytes.NewReader(g.header), []io.Writer{file, hashed}},
		{g.padding, []io.Writer{file, hashed, was}},
		{g.payload, []io.Writer{payload, hashed, was}},
		{bytes.NewReader(make([]byte, g.blocks)), []io.Writer{payload, hashed}},
		{bytes.NewReader(g.prot), []io.Writer{file, hashed, was}},
	} {
		if _, err := io.Copy(io.MultiWriter(part.to...), part.from); err != nil {
			return fmt.Errorf("copying image: %w", err)
		}
	}
	return nil
}

// seal writes digest, mark of a pure signature, keys and signatures, and the
// encrypted key.
func (s *sealer) seal() (image.SignResult, error) {
	digest := s.digest.Sum(nil)
	if s.expected != nil {
		got := digest
		if s.was != nil {
			got = s.was.Sum(nil)
		}
		// A damaged image must not get a fresh, valid signature.
		if !bytes.Equal(s.expected, got) {
			return image.SignResult{}, fmt.Errorf("checking input: content has digest %x, the image says %x: %w", got, s.expected, image.ErrBadDigest)
		}
	}
	sig, err := s.sign(digest)
	if err != nil {
		return image.SignResult{}, err
	}
	entries := []entry{{digestTLV(s.hash), digest}}
	if s.pure {
		entries = append(entries, entry{tlvSigPure, []byte{1}})
	}
	entries = append(entries, s.kept...)
	if s.inFull {
		entries = append(entries, entry{tlvPubKey, s.embedded})
	} else {
		entries = append(entries, entry{tlvKeyHash, s.keyHash()})
	}
	entries = append(entries, entry{s.typ, sig})
	if s.envelope != nil {
		entries = append(entries, s.envelope.tlv)
	}
	area, err := encodeArea(tlvInfoMagic, entries)
	if err != nil {
		return image.SignResult{}, err
	}
	if _, err := (counter{s.out, &s.size}).Write(area); err != nil {
		return image.SignResult{}, fmt.Errorf("writing TLV area: %w", err)
	}
	id, err := image.KeyID(s.key.Public())
	if err != nil {
		return image.SignResult{}, err
	}
	return image.SignResult{
		Size:   s.size,
		SHA256: [sha256.Size]byte(s.file.Sum(nil)),
		Image:  image.Digest{Scope: image.ScopeImage, Algorithm: fmt.Sprintf("sha%d", s.hash.Size()*8), Hex: hex.EncodeToString(digest)},
		KeyID:  id,
	}, nil
}

func (s *sealer) sign(digest []byte) ([]byte, error) {
	switch {
	case s.pure:
		return image.MakeSignature(s.key, [sha256.Size]byte{}, s.message.Bytes())
	case s.alg == image.AlgEd25519:
		return image.MakeSignature(s.key, [sha256.Size]byte{}, digest)
	default:
		return image.SignHash(s.key, s.hash, digest, true)
	}
}

// digestTLV is the type of the TLV that holds a digest by h.
func digestTLV(h crypto.Hash) uint16 {
	switch h { // the three that scheme chooses from
	case crypto.SHA384:
		return tlvSHA384
	case crypto.SHA512:
		return tlvSHA512
	default:
		return tlvSHA256
	}
}

// counter counts what passes to w.
type counter struct {
	w io.Writer
	n *int64
}

func (c counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	*c.n += int64(n)
	return n, err
}
