package raw

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	"github.com/writ-project/writ/internal/image"
)

// Verify checks the envelope against keys, then the file against the envelope.
// Keys that are neither ECDSA P-256 nor Ed25519 never match.
func (Format) Verify(ctx context.Context, r io.ReaderAt, size int64, envelope []byte, keys []crypto.PublicKey) (image.Verified, error) {
	v, err := verify(ctx, r, size, envelope, keys)
	if err != nil {
		return image.Verified{}, fmt.Errorf("verifying raw image: %w", err)
	}
	return v, nil
}

func verify(ctx context.Context, r io.ReaderAt, size int64, envelope []byte, keys []crypto.PublicKey) (image.Verified, error) {
	if err := checkSize(size); err != nil {
		return image.Verified{}, err
	}
	payload, sigs, err := readEnvelope(envelope)
	if err != nil {
		return image.Verified{}, err
	}
	v, err := checkSignatures(payload, sigs, keys)
	if err != nil {
		return image.Verified{}, err
	}
	// From here on the payload is the key holder's word.
	c, err := readStatement(payload)
	if err != nil {
		return image.Verified{}, err
	}
	if c.size != size {
		return image.Verified{}, fmt.Errorf("checking size: image has %d bytes, the statement says %d: %w", size, c.size, image.ErrBadDigest)
	}
	h := sha256.New()
	if _, err := io.Copy(h, image.Section(ctx, r, 0, size)); err != nil {
		return image.Verified{}, fmt.Errorf("hashing image: %w", err)
	}
	sum := h.Sum(nil)
	if x := hex.EncodeToString(sum); x != c.sha256 {
		return image.Verified{}, fmt.Errorf("checking digest: image has sha256 %s, the statement says %s: %w", x, c.sha256, image.ErrBadDigest)
	}
	v.Info.Format, v.Info.Size, v.Info.Digests = Format{}.Name(), size, digests(sum)
	v.Info.Product, v.Info.Version = c.product, c.version
	v.Info.SecurityCounter, v.Info.Hardware = c.counter, c.hardware
	return v, nil
}

type envSignature struct {
	keyID string
	value []byte
}

func readEnvelope(b []byte) (payload []byte, sigs []envSignature, err error) {
	switch {
	case len(b) == 0:
		return nil, nil, fmt.Errorf("reading envelope: there is none: %w", image.ErrUnsigned)
	case len(b) > MaxEnvelope:
		return nil, nil, fmt.Errorf("reading envelope: %d bytes are over the limit of %d: %w", len(b), MaxEnvelope, image.ErrTooLarge)
	}
	o := newObject("envelope", b)
	var payload64, typ string
	var list []json.RawMessage
	o.need("payload", &payload64)
	o.need("payloadType", &typ)
	o.need("signatures", &list)
	if typ != PayloadType {
		o.fail("payload type is %.60q, want %q", typ, PayloadType)
	}
	if payload, err = decodeBase64(payload64); err != nil {
		o.fail("payload: %v", err)
	}
	if len(list) > maxSignatures {
		o.fail("%d signatures are over the limit of %d", len(list), maxSignatures)
	}
	if o.err != nil { // other members are ignored, as DSSE says
		return nil, nil, o.err
	}
	for i, raw := range list {
		so := newObject(fmt.Sprintf("signature %d", i), raw)
		var s envSignature
		var sig64 string
		so.need("sig", &sig64)
		so.take("keyid", &s.keyID) // optional in DSSE; without it nothing matches
		if s.value, err = decodeBase64(sig64); err != nil {
			so.fail("sig: %v", err)
		}
		if so.err != nil {
			return nil, nil, so.err
		}
		sigs = append(sigs, s)
	}
	if len(sigs) == 0 {
		return nil, nil, fmt.Errorf("reading envelope: no signatures: %w", image.ErrUnsigned)
	}
	return payload, sigs, nil
}

// preAuth is the DSSE pre-authentication encoding (DSSE protocol.md, "Signature
// definition").
func preAuth(typ string, payload []byte) []byte {
	return append(fmt.Appendf(nil, "DSSEv1 %d %s %d ", len(typ), typ, len(payload)), payload...)
}

func checkSignatures(payload []byte, sigs []envSignature, keys []crypto.PublicKey) (image.Verified, error) {
	byID := map[string]crypto.PublicKey{}
	for _, k := range keys {
		if der, err := x509.MarshalPKIXPublicKey(k); err == nil && usable(k) {
			byID[fmt.Sprintf("%x", sha256.Sum256(der))] = k
		}
	}
	msg := preAuth(PayloadType, payload)
	var v image.Verified
	for _, s := range sigs {
		key, ok := byID[s.keyID]
		if !ok {
			continue
		}
		alg, ok := checkSignature(key, msg, s.value)
		if !ok {
			return image.Verified{}, fmt.Errorf("checking signature by key %s: %w", s.keyID, image.ErrBadSignature)
		}
		if v.Key == nil {
			v.Key, v.KeyID, v.Algorithm = key, s.keyID, alg
		}
		v.Info.Signatures = append(v.Info.Signatures, image.SignatureInfo{Algorithm: alg, KeyID: s.keyID})
	}
	if v.Key == nil {
		return image.Verified{}, fmt.Errorf("none of %d signatures is by one of %d given keys, the first is by %.64q: %w",
			len(sigs), len(keys), sigs[0].keyID, image.ErrUnknownKey)
	}
	return v, nil
}

func usable(pub crypto.PublicKey) bool {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		return k.Curve == elliptic.P256()
	case ed25519.PublicKey:
		return len(k) == ed25519.PublicKeySize
	default:
		return false
	}
}

func checkSignature(pub crypto.PublicKey, msg, sig []byte) (alg string, ok bool) {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(msg)
		return image.AlgECDSAP256, ecdsa.VerifyASN1(k, sum[:], sig)
	case ed25519.PublicKey:
		return image.AlgEd25519, ed25519.Verify(k, msg, sig)
	default:
		return "", false
	}
}

// claims is what a statement says.
type claims struct {
	sha256           string
	product, version string
	counter          *uint64
	hardware         []string
	size             int64
}

func readStatement(b []byte) (claims, error) {
	var c claims
	var typ, predType string
	var subjects []json.RawMessage
	var pred json.RawMessage
	st := newObject("statement", b)
	st.need("_type", &typ)
	st.need("subject", &subjects)
	st.need("predicateType", &predType)
	st.need("predicate", &pred)
	if typ != StatementType || predType != PredicateType {
		st.fail("types are %.80q and %.80q, want %q and %q", typ, predType, StatementType, PredicateType)
	}
	if len(subjects) != 1 {
		st.fail("%d subjects, want 1", len(subjects))
	}
	if err := st.done(); err != nil {
		return claims{}, err
	}

	var digest json.RawMessage
	subj := newObject("subject", subjects[0])
	subj.text("name")
	subj.need("digest", &digest)
	if err := subj.done(); err != nil {
		return claims{}, err
	}
	d := newObject("subject digest", digest)
	d.need("sha256", &c.sha256)
	if sum, err := hex.DecodeString(c.sha256); err != nil || len(sum) != sha256.Size || hex.EncodeToString(sum) != c.sha256 {
		d.fail("sha256 is %.80q, want 64 lower-case hexadecimal digits", c.sha256)
	}
	if err := d.done(); err != nil {
		return claims{}, err
	}
	return c, c.readPredicate(pred)
}

func (c *claims) readPredicate(b []byte) error {
	p := newObject("predicate", b)
	c.product, c.version = p.text("product"), p.text("version")
	var counter uint64
	if p.take("security_counter", &counter) {
		c.counter = &counter
		if counter > maxCounter {
			p.fail("security_counter is %d, over %d", counter, uint64(maxCounter))
		}
	}
	// Pointers, because null in an array would decode as the empty string.
	var hardware []*string
	// An empty list could mean any hardware or none, so it means nothing.
	if p.take("hardware", &hardware) && (len(hardware) == 0 || len(hardware) > maxHardware) {
		p.fail("%d hardware ids, want 1 to %d", len(hardware), maxHardware)
	}
	for _, h := range hardware {
		if h == nil || *h == "" || len(*h) > maxText {
			p.fail("a hardware id is empty or has more than %d bytes", maxText)
			break
		}
		c.hardware = append(c.hardware, *h)
	}
	var format string
	p.need("format", &format)
	p.need("size", &c.size)
	if name := (Format{}).Name(); format != name {
		p.fail("format is %.40q, want %q", format, name)
	}
	return p.done()
}
