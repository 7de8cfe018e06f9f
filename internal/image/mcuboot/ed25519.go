package mcuboot

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha512"
	"hash"

	"filippo.io/edwards25519"
)

// pureCheck verifies one Ed25519 signature over a message that is written to it.
// crypto/ed25519 wants the whole message in memory; a verifier does not need it,
// because R and A, which are hashed before the message, are known beforehand
// (RFC 8032, section 5.1.7, step 2).
type pureCheck struct {
	r, s []byte
	a    *edwards25519.Point
	k    hash.Hash // SHA-512(R || A || message)
}

// newPureCheck returns nil for a signature or key that no message fits.
func newPureCheck(pub ed25519.PublicKey, sig []byte) *pureCheck {
	if len(sig) != ed25519.SignatureSize || len(pub) != ed25519.PublicKeySize {
		return nil
	}
	a, err := new(edwards25519.Point).SetBytes(pub)
	if err != nil {
		return nil
	}
	c := &pureCheck{r: sig[:32], s: sig[32:], a: a, k: sha512.New()}
	c.k.Write(c.r)
	c.k.Write(pub)
	return c
}

func (c *pureCheck) Write(p []byte) (int, error) { return c.k.Write(p) }

// ok reports whether the signature is good for what was written, by the same
// rules as crypto/ed25519: S is reduced, and the encoding of [S]B - [k]A is R.
func (c *pureCheck) ok() bool {
	k, err := edwards25519.NewScalar().SetUniformBytes(c.k.Sum(nil))
	if err != nil {
		return false
	}
	s, err := edwards25519.NewScalar().SetCanonicalBytes(c.s)
	if err != nil {
		return false
	}
	minusA := new(edwards25519.Point).Negate(c.a)
	r := new(edwards25519.Point).VarTimeDoubleScalarBaseMult(k, minusA, s)
	return bytes.Equal(r.Bytes(), c.r)
}
