package dsse

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"

	"filippo.io/mldsa"
	mldsax509 "filippo.io/mldsa/x509"

	"github.com/writ-project/writ/internal/fw"
)

// MarshalPublicKey returns the SubjectPublicKeyInfo DER of a key, of an ML-DSA
// key as RFC 9881 has it.
func MarshalPublicKey(pub crypto.PublicKey) ([]byte, error) {
	der, err := mldsax509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "encoding public key")
	}
	return der, nil
}

// ParsePublicKey reads a SubjectPublicKeyInfo of any kind of key that the
// standard library knows, or ML-DSA.
func ParsePublicKey(der []byte) (crypto.PublicKey, error) {
	pub, err := mldsax509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "malformed public key")
	}
	return pub, nil
}

// IsPostQuantum reports whether a key is of a kind that a quantum computer is
// not known to break: ML-DSA-65.
func IsPostQuantum(pub crypto.PublicKey) bool {
	k, ok := pub.(*mldsa.PublicKey)
	return ok && k.Parameters() == mldsa.MLDSA65()
}

// sign signs msg in the way of the key's kind.
func sign(key crypto.Signer, msg []byte) ([]byte, error) {
	switch k := key.Public().(type) {
	case ed25519.PublicKey:
		return key.Sign(rand.Reader, msg, crypto.Hash(0))
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			digest := sha256.Sum256(msg)
			return key.Sign(rand.Reader, digest[:], crypto.SHA256)
		}
	case *mldsa.PublicKey:
		if IsPostQuantum(k) {
			return key.Sign(rand.Reader, msg, crypto.Hash(0))
		}
	}
	return nil, fw.Errorf(fw.Invalid, "envelopes are signed with Ed25519, ECDSA P-256 and ML-DSA-65 keys, not %T", key.Public())
}

// verify is the other side of sign.
func verify(pub crypto.PublicKey, msg, sig []byte) bool {
	switch k := pub.(type) {
	case ed25519.PublicKey:
		return len(k) == ed25519.PublicKeySize && ed25519.Verify(k, msg, sig)
	case *ecdsa.PublicKey:
		digest := sha256.Sum256(msg)
		return k.Curve == elliptic.P256() && ecdsa.VerifyASN1(k, digest[:], sig)
	case *mldsa.PublicKey:
		return IsPostQuantum(k) && mldsa.Verify(k, msg, sig, nil) == nil
	}
	return false
}
