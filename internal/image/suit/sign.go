package suit

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"

	"github.com/veraison/go-cose"

	"github.com/writ-project/writ/internal/image"
)

// Sign makes an envelope for the image. It writes the image unchanged to w and
// returns the envelope or, when the [Layout] says integrated, writes the
// envelope with the image in it. The key is ECDSA P-256 or Ed25519.
//
// The image is read twice when it is integrated: its digest stands before it.
func (f Format) Sign(ctx context.Context, w io.Writer, r io.ReaderAt, size int64, key crypto.Signer, opt image.SignOptions) (image.SignResult, error) {
	res, err := f.sign(ctx, w, r, size, key, opt)
	if err != nil {
		return image.SignResult{}, fmt.Errorf("signing SUIT image: %w", err)
	}
	return res, nil
}

func (f Format) sign(ctx context.Context, w io.Writer, r io.ReaderAt, size int64, key crypto.Signer, opt image.SignOptions) (image.SignResult, error) {
	switch {
	case size <= 0:
		return image.SignResult{}, fmt.Errorf("checking size: image is empty: %w", image.ErrTruncated)
	case size > MaxSize-MaxEnvelope:
		return image.SignResult{}, fmt.Errorf("checking size: %d bytes are over the limit of %d: %w", size, MaxSize-MaxEnvelope, image.ErrTooLarge)
	}
	s, err := readOptions(size, key, opt)
	if err != nil {
		return image.SignResult{}, err
	}
	prefix := make([]byte, min(size, 4))
	if err := image.ReadAt(r, prefix, 0); err != nil {
		return image.SignResult{}, fmt.Errorf("reading image: %w", err)
	}
	if f.Detect(prefix) {
		return image.SignResult{}, fmt.Errorf("reading image: it is a SUIT envelope already, give the image that it is about: %w", image.ErrUnsupported)
	}
	id, err := image.KeyID(key.Public())
	if err != nil {
		return image.SignResult{}, err
	}
	// Detached, the image is written while it is read for its digest.
	first := io.Discard
	if !s.Integrated {
		first = w
	}
	img := imageOf{size: size}
	if img.sha256, err = copyImage(ctx, first, r, size); err != nil {
		return image.SignResult{}, err
	}
	env, err := s.envelope(img, key, id)
	if err != nil {
		return image.SignResult{}, err
	}
	res := image.SignResult{
		Size: size, SHA256: img.sha256, KeyID: id,
		Image: image.Digest{Scope: image.ScopeImage, Algorithm: "sha256", Hex: hex.EncodeToString(img.sha256[:])},
	}
	if !s.Integrated {
		res.Envelope = env
		return res, nil
	}
	file := sha256.New()
	w = io.MultiWriter(w, file)
	if _, err := w.Write(env); err != nil {
		return image.SignResult{}, fmt.Errorf("writing envelope: %w", err)
	}
	again, err := copyImage(ctx, w, r, size)
	if err != nil {
		return image.SignResult{}, err
	}
	if again != img.sha256 {
		return image.SignResult{}, errors.New("writing image: it changed while it was signed, sign it again")
	}
	res.Size += int64(len(env))
	res.SHA256 = [sha256.Size]byte(file.Sum(nil))
	return res, nil
}

func copyImage(ctx context.Context, w io.Writer, r io.ReaderAt, size int64) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(w, h), image.Section(ctx, r, 0, size)); err != nil {
		return sum, fmt.Errorf("copying image: %w", err)
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// envelope returns the envelope or, integrated, all of it that stands before
// the image.
func (s *settings) envelope(img imageOf, key crypto.Signer, keyID string) ([]byte, error) {
	e := &encoder{}
	manifest, severed := e.manifest(s, img)
	digest := e.encode(digestOf(e.encode(manifest)))
	if e.err != nil {
		return nil, e.err
	}
	sig, err := s.sign1(digest, key, keyID)
	if err != nil {
		return nil, err
	}
	members := append([]member{
		{keyAuthentication, e.encode([]any{digest, sig})},
		{keyManifest, manifest},
	}, severed...)
	slices.SortFunc(members, func(a, b member) int { return int(a.key - b.key) })

	n := uint64(len(members))
	if s.Integrated {
		n++
	}
	// By hand, because the image does not fit in memory.
	out := appendHead([]byte{majorTag<<5 | 24, tagEnvelope}, majorMap, n)
	for _, m := range members {
		out = append(append(out, e.encode(m.key)...), e.encode(m.body)...)
	}
	if s.Integrated {
		out = append(out, e.encode(s.URI)...)
		out = appendHead(out, majorBytes, uint64(img.size)) //nolint:gosec // G115: checked to be positive
	}
	if len(out) > MaxEnvelope {
		return nil, badOptions("the envelope would have %d bytes without the image, over the limit of %d: give less text or hardware", len(out), MaxEnvelope)
	}
	return out, e.err
}

// appendHead appends the head of an item in its shortest form.
func appendHead(out []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(out, major<<5|byte(n))
	case n < 1<<8:
		return append(out, major<<5|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(out, major<<5|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(out, major<<5|26), uint32(n))
	default:
		return binary.BigEndian.AppendUint64(append(out, major<<5|27), n)
	}
}

// sign1 returns the COSE_Sign1 over the encoded manifest digest, which is
// detached from it.
func (s *settings) sign1(digest []byte, key crypto.Signer, keyID string) ([]byte, error) {
	protected := cose.ProtectedHeader{cose.HeaderLabelAlgorithm: cose.Algorithm(s.alg)}
	if s.KeyID != keyIDNone {
		kid, err := hex.DecodeString(keyID)
		if err != nil {
			return nil, fmt.Errorf("naming key: %w", err)
		}
		protected[cose.HeaderLabelKeyID] = kid
	}
	m := cose.Sign1Message{
		Headers: cose.Headers{Protected: protected, Unprotected: cose.UnprotectedHeader{}},
		Payload: digest,
	}
	if err := m.Sign(rand.Reader, nil, coseSigner{key, cose.Algorithm(s.alg)}); err != nil {
		return nil, fmt.Errorf("signing manifest: %w", err)
	}
	m.Payload = nil
	b, err := m.MarshalCBOR()
	if err != nil {
		return nil, fmt.Errorf("encoding signature: %w", err)
	}
	return b, nil
}

// coseSigner adapts a [crypto.Signer] to [cose.Signer]. The library knows
// neither ESP256 nor Ed25519 by their own numbers, but it does not have to.
type coseSigner struct {
	key crypto.Signer
	alg cose.Algorithm
}

func (s coseSigner) Algorithm() cose.Algorithm { return s.alg }

func (s coseSigner) Sign(_ io.Reader, content []byte) ([]byte, error) {
	sig, err := image.MakeSignature(s.key, sha256.Sum256(content), content)
	if err != nil {
		return nil, err
	}
	if _, ok := s.key.Public().(*ecdsa.PublicKey); !ok {
		return sig, nil
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(sig, &rs); err != nil { // MakeSignature verified it
		return nil, fmt.Errorf("reading signature: %w", err)
	}
	// r and s side by side, each as long as the order (RFC 9053, section 2.1).
	out := make([]byte, 64)
	rs.R.FillBytes(out[:32])
	rs.S.FillBytes(out[32:])
	return out, nil
}
