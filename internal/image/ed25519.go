package image

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha512"
	"hash"

	"filippo.io/edwards25519"
)

// Ed25519Check verifies one Ed25519 signature over a message that is written to
// it. crypto/ed25519 wants the whole message in memory; a verifier does not need
// it, because R and A, which are hashed before the message, are known beforehand
// (RFC 8032, section 5.1.7, step 2).
type Ed25519Check struct {
	r, s []byte
	a    *edwards25519.Point
	k    hash.Hash // SHA-512(R || A || message)
}

// NewEd25519Check returns nil for a signature or key that no message fits.
func NewEd25519Check(pub ed25519.PublicKey, sig []byte) *Ed25519Check {
	if len(sig) != ed25519.SignatureSize || len(pub) != ed25519.PublicKeySize {
		return nil
	}
	a, err := new(edwards25519.Point).SetBytes(pub)
	if err != nil {
		return nil
	}
	c := &Ed25519Check{r: sig[:32], s: sig[32:], a: a, k: sha512.New()}
	c.k.Write(c.r)
	c.k.Write(pub)
	return c
}

// Write takes the next bytes of the message. It never fails.
func (c *Ed25519Check) Write(p []byte) (int, error) { return c.k.Write(p) }

// OK reports whether the signature is good for what was written, by the same
// rules as crypto/ed25519: S is reduced, and the encoding of [S]B - [k]A is R,
// byte for byte.
func (c *Ed25519Check) OK() bool {
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
