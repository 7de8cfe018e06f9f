package authz

import (
	"bytes"
	"crypto"
	"crypto/ed25519"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
)

// TrustBundlePayloadType is the DSSE payload type of a trust bundle.
const TrustBundlePayloadType = "application/vnd.writ.trust-bundle.v1+json"

// SignTrust checks d and signs it with each of the Ed25519 root keys.
func SignTrust(d TrustDocument, signers ...crypto.Signer) ([]byte, error) {
	payload, err := d.Encode()
	if err != nil {
		return nil, err
	}
	return dsse.Seal(TrustBundlePayloadType, payload, signers...)
}

// JoinSignatures merges envelopes of one trust bundle that root keys in
// different places signed. The payloads must be the same bytes.
func JoinSignatures(envelopes ...[]byte) ([]byte, error) {
	return dsse.Join(TrustBundlePayloadType, trustLimits, envelopes...)
}

// trustLimits bound the envelope of a trust bundle: two sets of roots sign it.
var trustLimits = dsse.Limits{Bytes: MaxTrustBundle, Signatures: 2 * maxKeys}

func parseEnvelope(b []byte) (dsse.Envelope, []byte, error) {
	return dsse.Open(b, TrustBundlePayloadType, trustLimits)
}

// OpenTrust reads a trust bundle that is signed by a threshold of its own
// roots. That alone is no reason to believe it: it is for the bundle a device
// is given in the factory or at enrolment, and for the one it has stored. Any
// other goes through [Accept].
func OpenTrust(env []byte) (*TrustBundle, error) {
	e, payload, err := parseEnvelope(env)
	if err != nil {
		return nil, err
	}
	t, err := parseTrust(payload)
	if err != nil {
		return nil, err
	}
	t.envelope = bytes.Clone(env)
	if err := t.signedBy(e, payload, "its own"); err != nil {
		return nil, err
	}
	return t, nil
}

// Accept reads the bundle that follows current. It is signed by a threshold of
// current's roots and a threshold of its own, has exactly the next version,
// and names current's digest (The Update Framework 1.0.33, section 5.3).
// Whoever skipped versions must be given each one in between.
func Accept(current *TrustBundle, next []byte) (*TrustBundle, error) {
	if current == nil {
		return nil, fw.Errorf(fw.Invalid, "there is no trust bundle to follow")
	}
	t, err := OpenTrust(next)
	if err != nil {
		return nil, err
	}
	e, payload, err := parseEnvelope(next)
	if err != nil {
		return nil, err
	}
	if err := current.signedBy(e, payload, "the previous"); err != nil {
		return nil, err
	}
	if t.doc.Version != current.doc.Version+1 {
		return nil, fw.Errorf(fw.Conflict, "trust bundle version %d cannot follow version %d", t.doc.Version, current.doc.Version)
	}
	if t.doc.Previous != current.Digest() {
		return nil, fw.Errorf(fw.Conflict, "trust bundle version %d names another version %d as its predecessor", t.doc.Version, current.doc.Version)
	}
	return t, nil
}

// signedBy checks for valid signatures of a threshold of t's roots. Each root
// counts once.
func (t *TrustBundle) signedBy(e dsse.Envelope, payload []byte, whose string) error {
	valid := 0
	for _, root := range t.roots {
		if pub, ok := root.pub.(ed25519.PublicKey); ok && e.SignedBy(pub, payload) {
			valid++
		}
	}
	if valid < t.doc.Roots.Threshold {
		return fw.Errorf(fw.Forbidden, "trust bundle is signed by %d of %s roots, %d are needed", valid, whose, t.doc.Roots.Threshold)
	}
	return nil
}
