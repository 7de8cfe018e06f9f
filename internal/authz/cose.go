package authz

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"io"
	"math/big"

	"github.com/veraison/go-cose"

	"github.com/writ-project/writ/internal/fw"
)

// The types in the typ header (16, RFC 9596), which keep a report from ever
// being taken for an authorization.
const (
	TypeAuthorization = "application/writ-authorization+cwt"
	TypeReport        = "application/writ-report+cwt"
)

// tagSign1 begins a COSE_Sign1: tag 18 (RFC 9052, section 2).
const tagSign1 = 0xd2

// protected is the protected header: exactly these three, so that a crit
// parameter is refused whatever it lists (RFC 9052, section 3.1).
type protected struct {
	Alg int64     `cbor:"1,keyasint"`
	Kid fw.Digest `cbor:"4,keyasint"`
	Typ string    `cbor:"16,keyasint"`
}

// unprotected is the unprotected header: receipts or nothing (RFC 9942, section 2).
type unprotected struct {
	Receipts [][]byte `cbor:"394,keyasint,omitempty"`
}

// sign1 is a decoded COSE_Sign1 (RFC 9052, section 4.2).
type sign1 struct {
	_           struct{} `cbor:",toarray"`
	Protected   []byte
	Unprotected unprotected
	Payload     []byte
	Signature   []byte
}

// KeyID names a public key: the SHA-256 of its SubjectPublicKeyInfo DER (RFC
// 5280, section 4.1.2.7). It is the kid of everything signed here.
func KeyID(pub crypto.PublicKey) (fw.Digest, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return fw.Digest{}, fw.Wrap(fw.Invalid, err, "encoding public key")
	}
	return fw.DigestOf(der), nil
}

// Thumbprint returns the COSE key thumbprint of pub (RFC 9679, section 3) with
// SHA-256, which the cnf claim holds. Keys are Ed25519 and P-256.
func Thumbprint(pub crypto.PublicKey) (fw.Digest, error) {
	// The required members and no others (RFC 9679, section 4); y is the
	// coordinate, not its sign bit (section 4.2).
	type okp struct {
		Kty int64  `cbor:"1,keyasint"`
		Crv int64  `cbor:"-1,keyasint"`
		X   []byte `cbor:"-2,keyasint"`
	}
	type ec2 struct {
		Kty int64  `cbor:"1,keyasint"`
		Crv int64  `cbor:"-1,keyasint"`
		X   []byte `cbor:"-2,keyasint"`
		Y   []byte `cbor:"-3,keyasint"`
	}
	alg, err := algorithm(pub)
	if err != nil {
		return fw.Digest{}, err
	}
	var key any
	switch k := pub.(type) {
	case ed25519.PublicKey:
		key = okp{int64(cose.KeyTypeOKP), int64(cose.CurveEd25519), k}
	case *ecdsa.PublicKey:
		point, err := k.Bytes()
		if err != nil || len(point) != 65 {
			return fw.Digest{}, fw.Wrap(fw.Invalid, err, "malformed %s key", alg)
		}
		key = ec2{int64(cose.KeyTypeEC2), int64(cose.CurveP256), point[1:33], point[33:]}
	}
	b, err := encMode.Marshal(key)
	if err != nil {
		return fw.Digest{}, fw.Wrap(fw.Internal, err, "encoding key")
	}
	return fw.DigestOf(b), nil
}

// algorithm returns the algorithm of a key: EdDSA or ES256 (RFC 9053, section 2).
func algorithm(pub crypto.PublicKey) (cose.Algorithm, error) {
	switch k := pub.(type) {
	case ed25519.PublicKey:
		if len(k) == ed25519.PublicKeySize {
			return cose.AlgorithmEdDSA, nil
		}
	case *ecdsa.PublicKey:
		if k != nil && k.Curve == elliptic.P256() {
			return cose.AlgorithmES256, nil
		}
	}
	return 0, fw.Errorf(fw.Invalid, "keys are Ed25519 or ECDSA P-256, not %T", pub)
}

// messageSigner makes COSE signatures with a crypto.Signer or, for keys that
// see the whole message, a crypto.MessageSigner.
type messageSigner struct {
	key crypto.Signer
	alg cose.Algorithm
}

func (s messageSigner) Algorithm() cose.Algorithm { return s.alg }

func (s messageSigner) Sign(r io.Reader, content []byte) ([]byte, error) {
	if s.alg == cose.AlgorithmEdDSA {
		return crypto.SignMessage(s.key, r, content, crypto.Hash(0))
	}
	der, err := crypto.SignMessage(s.key, r, content, crypto.SHA256)
	if err != nil {
		return nil, err
	}
	var rs struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &rs); err != nil || len(rest) > 0 {
		return nil, errors.New("the signer returned a malformed ECDSA signature")
	}
	if rs.R.Sign() <= 0 || rs.S.Sign() <= 0 || rs.R.BitLen() > 256 || rs.S.BitLen() > 256 {
		return nil, errors.New("the signer returned an ECDSA signature out of range")
	}
	// r and s side by side, each as long as the order (RFC 9053, section 2.1).
	sig := make([]byte, 64)
	rs.R.FillBytes(sig[:32])
	rs.S.FillBytes(sig[32:])
	return sig, nil
}

func signMessage(payload []byte, key crypto.Signer, typ string) ([]byte, error) {
	if key == nil {
		return nil, fw.Errorf(fw.Invalid, "no key to sign with")
	}
	alg, err := algorithm(key.Public())
	if err != nil {
		return nil, err
	}
	kid, err := KeyID(key.Public())
	if err != nil {
		return nil, err
	}
	m := cose.Sign1Message{
		Headers: cose.Headers{
			Protected: cose.ProtectedHeader{
				cose.HeaderLabelAlgorithm: alg,
				cose.HeaderLabelKeyID:     kid[:],
				cose.HeaderLabelType:      typ,
			},
			Unprotected: cose.UnprotectedHeader{},
		},
		Payload: payload,
	}
	if err := m.Sign(rand.Reader, nil, messageSigner{key, alg}); err != nil {
		return nil, fw.Wrap(fw.KindOf(err), err, "signing")
	}
	return m.MarshalCBOR()
}

// decodeSign1 reads a COSE_Sign1 of type typ in its one encoding.
func decodeSign1(b []byte, typ string, limit int) (sign1, protected, error) {
	var m sign1
	var h protected
	if len(b) > limit {
		return m, h, fw.Errorf(fw.TooLarge, "message is %d bytes, over the limit of %d", len(b), limit)
	}
	content, ok := bytes.CutPrefix(b, []byte{tagSign1})
	if !ok {
		return m, h, fw.Errorf(fw.Invalid, "not a COSE_Sign1: it begins with tag 18")
	}
	if err := unmarshal(content, &m, limit); err != nil {
		return m, h, fw.Wrap(fw.Invalid, err, "malformed COSE_Sign1")
	}
	if err := unmarshal(m.Protected, &h, limit); err != nil {
		return m, h, fw.Wrap(fw.Invalid, err, "malformed protected header: it holds alg, kid and typ")
	}
	switch {
	case h.Typ != typ:
		return m, h, fw.Errorf(fw.Invalid, "message is of type %q, not %q", h.Typ, typ)
	case h.Alg != int64(cose.AlgorithmEdDSA) && h.Alg != int64(cose.AlgorithmES256):
		return m, h, fw.Errorf(fw.Invalid, "algorithm %d is not EdDSA (-8) or ES256 (-7)", h.Alg)
	case len(m.Signature) != 64:
		return m, h, fw.Errorf(fw.Invalid, "signature is %d bytes, not 64", len(m.Signature))
	case len(m.Payload) == 0:
		return m, h, fw.Errorf(fw.Invalid, "message has no payload")
	case len(m.Unprotected.Receipts) > MaxReceipts:
		return m, h, fw.Errorf(fw.Invalid, "message has %d receipts, at most %d", len(m.Unprotected.Receipts), MaxReceipts)
	}
	return m, h, nil
}

// verifySign1 checks the signature and that the header names this key: kid and
// alg are signed, so a message that disagrees was never meant for it.
func verifySign1(m sign1, h protected, pub crypto.PublicKey) error {
	alg, err := algorithm(pub)
	if err != nil {
		return err
	}
	kid, err := KeyID(pub)
	if err != nil {
		return err
	}
	if h.Kid != kid || h.Alg != int64(alg) {
		return fw.Errorf(fw.Forbidden, "message is signed with another key")
	}
	v, err := cose.NewVerifier(alg, pub)
	if err != nil {
		return fw.Wrap(fw.Invalid, err, "using public key")
	}
	head, err := encMode.Marshal(m.Protected)
	if err != nil {
		return fw.Wrap(fw.Internal, err, "encoding protected header")
	}
	msg := cose.Sign1Message{
		Headers: cose.Headers{
			RawProtected: head, // the bytes as received
			Protected:    cose.ProtectedHeader{cose.HeaderLabelAlgorithm: alg},
		},
		Payload:   m.Payload,
		Signature: m.Signature,
	}
	if err := msg.Verify(nil, v); err != nil {
		return fw.Wrap(fw.Forbidden, err, "the signature does not verify")
	}
	return nil
}
