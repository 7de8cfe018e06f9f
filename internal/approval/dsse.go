package approval

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strconv"

	"github.com/writ-project/writ/internal/fw"
)

// Payload types of what the roster root key signs.
const (
	RosterPayloadType      = "application/vnd.writ.roster.v1+json"
	TrustBundlePayloadType = "application/vnd.writ.trust-bundle.v1+json"
)

const (
	maxEnvelope   = 2 << 20
	maxSignatures = 8
)

// envelope is a DSSE envelope (DSSE v1.0.2, envelope.md).
type envelope struct {
	PayloadType string              `json:"payloadType"`
	Payload     string              `json:"payload"`
	Signatures  []envelopeSignature `json:"signatures"`
}

type envelopeSignature struct {
	KeyID string `json:"keyid"`
	Sig   string `json:"sig"`
}

// PAE is DSSE's pre-authentication encoding (DSSE v1.0.2, protocol.md): the
// bytes that are signed.
func PAE(payloadType string, payload []byte) []byte {
	b := make([]byte, 0, len(payload)+len(payloadType)+40)
	b = append(b, "DSSEv1 "...)
	b = strconv.AppendInt(b, int64(len(payloadType)), 10)
	b = append(b, ' ')
	b = append(b, payloadType...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(len(payload)), 10)
	b = append(b, ' ')
	return append(b, payload...)
}

// Seal signs payload with an Ed25519 key and returns the DSSE envelope.
func Seal(payloadType string, payload []byte, root crypto.Signer) ([]byte, error) {
	pub, ok := root.Public().(ed25519.PublicKey)
	if !ok {
		return nil, fw.Errorf(fw.Invalid, "envelopes are signed with Ed25519 keys, not %T", root.Public())
	}
	id, err := keyID(pub)
	if err != nil {
		return nil, err
	}
	sig, err := root.Sign(rand.Reader, PAE(payloadType, payload), crypto.Hash(0))
	if err != nil {
		return nil, err
	}
	return json.Marshal(envelope{
		PayloadType: payloadType,
		Payload:     base64.StdEncoding.EncodeToString(payload),
		Signatures:  []envelopeSignature{{KeyID: id, Sig: base64.StdEncoding.EncodeToString(sig)}},
	})
}

// OpenEnvelope returns the payload of a DSSE envelope of the given type that
// root signed. Of several signatures one must verify; key ids are hints and
// are not trusted (DSSE v1.0.2, protocol.md).
func OpenEnvelope(env []byte, payloadType string, root ed25519.PublicKey) ([]byte, error) {
	if len(root) != ed25519.PublicKeySize {
		return nil, fw.Errorf(fw.Invalid, "no root key to verify the envelope with")
	}
	if len(env) > maxEnvelope {
		return nil, fw.Errorf(fw.TooLarge, "envelope is %d bytes, over the limit of %d", len(env), maxEnvelope)
	}
	var e envelope
	if err := Decode(env, &e); err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "malformed DSSE envelope")
	}
	if e.PayloadType != payloadType {
		return nil, fw.Errorf(fw.Invalid, "envelope holds %q, not %q", e.PayloadType, payloadType)
	}
	if len(e.Signatures) > maxSignatures {
		return nil, fw.Errorf(fw.TooLarge, "envelope has %d signatures, over the limit of %d", len(e.Signatures), maxSignatures)
	}
	payload, err := base64.StdEncoding.Strict().DecodeString(e.Payload)
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "malformed payload in DSSE envelope")
	}
	pae := PAE(payloadType, payload)
	for _, s := range e.Signatures {
		sig, err := base64.StdEncoding.Strict().DecodeString(s.Sig)
		if err == nil && ed25519.Verify(root, pae, sig) {
			return payload, nil
		}
	}
	return nil, fw.Errorf(fw.Forbidden, "the envelope is not signed by the root key")
}

// keyID is the hexadecimal SHA-256 of the SubjectPublicKeyInfo.
func keyID(pub ed25519.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}
