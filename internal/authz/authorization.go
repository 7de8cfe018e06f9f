package authz

import (
	"bytes"
	"crypto"

	"github.com/writ-project/writ/internal/fw"
)

// Authorization is a decoded authorization. Decoding checks form, not
// signature: see [Authorization.Verify], [Check] and [Open].
type Authorization struct {
	Claims   Claims
	KeyID    fw.Digest // kid: the key that says it signed
	Receipts [][]byte  // unsigned

	msg  sign1
	head protected
}

// Sign signs encoded claims and returns the authorization without a receipt. The key is Ed25519 or P-256. A key that implements
// crypto.MessageSigner is given the whole Sig_structure (RFC 9052, section
// 4.4).
func Sign(p Payload, key crypto.Signer) ([]byte, error) {
	return signMessage(p.b, key, TypeAuthorization)
}

// AttachReceipt adds a COSE receipt (RFC 9942) to an authorization. Signed
// bytes do not change.
func AttachReceipt(authorization, receipt []byte) ([]byte, error) {
	if len(receipt) == 0 {
		return nil, fw.Errorf(fw.Invalid, "no receipt to attach")
	}
	m, _, err := decodeSign1(authorization, TypeAuthorization, MaxAuthorization)
	if err != nil {
		return nil, err
	}
	if len(m.Unprotected.Receipts) == MaxReceipts {
		return nil, fw.Errorf(fw.Conflict, "an authorization carries at most %d receipts", MaxReceipts)
	}
	m.Unprotected.Receipts = append(m.Unprotected.Receipts, receipt)
	b, err := encMode.Marshal(m)
	if err != nil {
		return nil, fw.Wrap(fw.Internal, err, "encoding authorization")
	}
	if len(b) >= MaxAuthorization {
		return nil, fw.Errorf(fw.TooLarge, "authorization with receipt is over the limit of %d bytes", MaxAuthorization)
	}
	return append([]byte{tagSign1}, b...), nil
}

// Decode reads an authorization. It accepts one encoding only, see the package
// comment.
func Decode(b []byte) (*Authorization, error) {
	m, h, err := decodeSign1(b, TypeAuthorization, MaxAuthorization)
	if err != nil {
		return nil, err
	}
	c, err := DecodeClaims(m.Payload)
	if err != nil {
		return nil, err
	}
	return &Authorization{Claims: c, KeyID: h.Kid, Receipts: m.Unprotected.Receipts, msg: m, head: h}, nil
}

// Payload returns the signed claims as they were received.
func (a *Authorization) Payload() []byte { return bytes.Clone(a.msg.Payload) }

// Verify checks the signature with pub.
func (a *Authorization) Verify(pub crypto.PublicKey) error { return verifySign1(a.msg, a.head, pub) }
