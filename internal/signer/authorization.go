package signer

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/binary"
	"io"
	"math/big"

	"github.com/writ-project/writ/internal/fw"
)

// SignAuthorization signs tbs, the CBOR Sig_structure of a COSE_Sign1 (RFC
// 9052, section 4.4), and returns the COSE signature. The permit's subject is
// the digest of the payload inside. The permit is not journalled; see the
// package comment.
func (s *Signer) SignAuthorization(p *Permit, tbs []byte) ([]byte, error) {
	grant, k, err := s.redeem(p, fw.PurposeAuthorization)
	if err != nil {
		return nil, err
	}
	payload, err := sigPayload(tbs)
	if err != nil {
		return nil, err
	}
	if fw.DigestOf(payload) != grant.Subject {
		return nil, fw.Errorf(fw.Forbidden, "permit %s is for another authorization", p.id)
	}
	return AuthorizationKey{k}.sign(tbs)
}

// sign makes a COSE signature: RFC 9053, section 2.2 for EdDSA, 2.1 for ECDSA.
func (k AuthorizationKey) sign(tbs []byte) ([]byte, error) { return coseSign(k.k, tbs) }

func coseSign(k *private, tbs []byte) ([]byte, error) {
	ec, ok := k.key.(*ecdsa.PrivateKey)
	if !ok {
		return k.key.Sign(rand.Reader, tbs, crypto.Hash(0))
	}
	sum := sha256.Sum256(tbs)
	der, err := ec.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &rs); err != nil {
		return nil, err
	}
	// r and s side by side, each as long as the curve's order.
	sig := make([]byte, 64)
	rs.R.FillBytes(sig[:32])
	rs.S.FillBytes(sig[32:])
	return sig, nil
}

// AuthorizationSigner returns a crypto.Signer that redeems p at its first use,
// for encoders that want a key rather than make a Sig_structure themselves. It
// signs Sig_structures, not digests, so for an ECDSA key the encoder must use
// SignMessage (crypto.MessageSigner); the signature is then ASN.1 DER, as
// crypto.Signer has it.
func (s *Signer) AuthorizationSigner(p *Permit) (crypto.MessageSigner, error) {
	if p == nil {
		return nil, fw.Errorf(fw.Forbidden, "no key is used without a permit")
	}
	k, err := s.ks.use(p.grant.Key, fw.PurposeAuthorization)
	if err != nil {
		return nil, err
	}
	return &authorizationSigner{s, p, k.key.Public()}, nil
}

type authorizationSigner struct {
	s   *Signer
	p   *Permit
	pub crypto.PublicKey
}

func (a *authorizationSigner) Public() crypto.PublicKey { return a.pub }

func (a *authorizationSigner) Sign(r io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != 0 {
		return nil, fw.Errorf(fw.Forbidden, "an authorization key signs authorizations, not digests")
	}
	return a.SignMessage(r, message, opts)
}

func (a *authorizationSigner) SignMessage(_ io.Reader, message []byte, _ crypto.SignerOpts) ([]byte, error) {
	sig, err := a.s.SignAuthorization(a.p, message)
	if err != nil {
		return nil, err
	}
	if _, ok := a.pub.(*ecdsa.PublicKey); ok {
		return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])})
	}
	return sig, nil
}

// sigPrefix is how every Sig_structure of a COSE_Sign1 begins: an array of
// four, then the text "Signature1" (RFC 9052, section 4.4).
var sigPrefix = append([]byte{0x84, 0x6a}, "Signature1"...)

// sigPayload returns the payload of a Sig_structure with an empty
// external_aad. It accepts only the deterministic encoding (RFC 8949, section
// 4.2.1), so that one authorization has one form.
func sigPayload(tbs []byte) ([]byte, error) {
	malformed := fw.Errorf(fw.Invalid, "not a COSE Sig_structure")
	rest, ok := bytes.CutPrefix(tbs, sigPrefix)
	if !ok {
		return nil, malformed
	}
	_, rest, ok = cutBytes(rest) // body_protected
	if !ok {
		return nil, malformed
	}
	aad, rest, ok := cutBytes(rest)
	if !ok || len(aad) > 0 {
		return nil, malformed
	}
	payload, rest, ok := cutBytes(rest)
	if !ok || len(rest) > 0 {
		return nil, malformed
	}
	return payload, nil
}

// cutBytes cuts a definite-length CBOR byte string with the shortest length
// encoding, under 4 GiB, off the front of b.
func cutBytes(b []byte) (head, rest []byte, ok bool) {
	if len(b) == 0 || b[0]>>5 != 2 { // major type 2
		return nil, nil, false
	}
	info, b := b[0]&31, b[1:]
	var n uint64
	switch {
	case info < 24:
		n = uint64(info)
	case info == 24 && len(b) >= 1 && b[0] >= 24:
		n, b = uint64(b[0]), b[1:]
	case info == 25 && len(b) >= 2 && binary.BigEndian.Uint16(b) > 0xff:
		n, b = uint64(binary.BigEndian.Uint16(b)), b[2:]
	case info == 26 && len(b) >= 4 && binary.BigEndian.Uint32(b) > 0xffff:
		n, b = uint64(binary.BigEndian.Uint32(b)), b[4:]
	default:
		return nil, nil, false
	}
	if n > uint64(len(b)) {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}
