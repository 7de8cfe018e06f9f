package image

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
)

// Names of signature algorithms. The hash is the one the format applies to the
// signed region; Ed25519's own inner SHA-512 is not named.
const (
	AlgECDSAP256 = "ecdsa-p256-sha256"
	AlgECDSAP384 = "ecdsa-p384-sha384"
	AlgEd25519   = "ed25519"
	// AlgEd25519Pure signs the region itself where AlgEd25519 signs its digest,
	// in formats that have both.
	AlgEd25519Pure = "ed25519-pure"
	AlgRSA2048     = "rsa2048-pss-sha256"
	AlgRSA3072     = "rsa3072-pss-sha256"
)

// CA stands among the keys given to [Format.Verify] for every key that it
// certified. Formats whose signatures carry certificates (CMS) take it; the
// others pass over it.
type CA struct{ *x509.Certificate }

// Recipient stands among the keys given to [Format.Verify] for the private key
// that an encrypted image was encrypted to. It decrypts; it does not vouch for
// anything.
type Recipient struct{ *ecdh.PrivateKey }

// SignHash signs a digest of hash h: PKCS #1 v1.5 or, with pss, PSS with a salt
// as long as the digest for RSA keys, DER (RFC 3279 section 2.2.3) for ECDSA.
// As with [MakeSignature], the result is checked before it is returned. Ed25519
// keys are [ErrUnsupported]: they sign messages.
func SignHash(key crypto.Signer, h crypto.Hash, digest []byte, pss bool) ([]byte, error) {
	var opts crypto.SignerOpts = h
	var check func(sig []byte) bool
	switch k := key.Public().(type) {
	case *ecdsa.PublicKey:
		check = func(sig []byte) bool { return ecdsa.VerifyASN1(k, digest, sig) }
	case *rsa.PublicKey:
		check = func(sig []byte) bool { return rsa.VerifyPKCS1v15(k, h, digest, sig) == nil }
		if pss {
			o := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: h}
			opts, check = o, func(sig []byte) bool { return rsa.VerifyPSS(k, h, digest, sig, o) == nil }
		}
	default:
		return nil, fmt.Errorf("signing a digest: not with a key of type %T: %w", k, ErrUnsupported)
	}
	sig, err := key.Sign(rand.Reader, digest, opts)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	if !check(sig) {
		return nil, errors.New("checking new signature: the signer returned one that its own public key refuses")
	}
	return sig, nil
}

// DigestAlgorithm names what a key of pub's kind makes of a digest of hash h with
// [SignHash], whatever the curve or size: "ecdsa-p384-sha384",
// "rsa4096-pkcs1-sha256", "rsa3072-pss-sha256". Other kinds are [ErrUnsupported].
func DigestAlgorithm(pub crypto.PublicKey, h crypto.Hash, pss bool) (string, error) {
	name := map[crypto.Hash]string{crypto.SHA256: "sha256", crypto.SHA384: "sha384", crypto.SHA512: "sha512"}[h]
	if name == "" {
		return "", fmt.Errorf("naming signature algorithm: not with hash %v: %w", h, ErrUnsupported)
	}
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		return fmt.Sprintf("ecdsa-p%d-%s", k.Curve.Params().BitSize, name), nil
	case *rsa.PublicKey:
		padding := "pkcs1"
		if pss {
			padding = "pss"
		}
		return fmt.Sprintf("rsa%d-%s-%s", k.N.BitLen(), padding, name), nil
	default:
		return "", fmt.Errorf("naming signature algorithm: a key of type %T signs no digest: %w", pub, ErrUnsupported)
	}
}

// KeyID names a public key: the SHA-256 of its SubjectPublicKeyInfo DER (RFC
// 5280, section 4.1.2.7) in hexadecimal.
func KeyID(pub crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("encoding public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// SigningAlgorithm returns the algorithm a key of pub's kind signs images with.
// Images are signed with ECDSA P-256 and Ed25519 only; other kinds are
// [ErrUnsupported].
func SigningAlgorithm(pub crypto.PublicKey) (string, error) {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k != nil && k.Curve == elliptic.P256() {
			return AlgECDSAP256, nil
		}
		return "", fmt.Errorf("choosing signature algorithm: ecdsa key is not on P-256: %w", ErrUnsupported)
	case ed25519.PublicKey:
		if len(k) == ed25519.PublicKeySize {
			return AlgEd25519, nil
		}
		return "", fmt.Errorf("choosing signature algorithm: ed25519 key has %d bytes: %w", len(k), ErrUnsupported)
	default:
		return "", fmt.Errorf("choosing signature algorithm: no image is signed with a key of type %T: %w", pub, ErrUnsupported)
	}
}

// MakeSignature signs with key: an ECDSA key signs digest (the result is DER,
// RFC 3279 section 2.2.3), an Ed25519 key signs message (RFC 8032).
//
// The result is checked before it is returned. A fault in an HSM or on its way
// back must not become a release that devices refuse, and a faulty ECDSA
// signature can leak the key.
func MakeSignature(key crypto.Signer, digest [sha256.Size]byte, message []byte) ([]byte, error) {
	pub := key.Public()
	alg, err := SigningAlgorithm(pub)
	if err != nil {
		return nil, err
	}
	var sig []byte
	var ok bool
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if sig, err = key.Sign(rand.Reader, digest[:], crypto.SHA256); err == nil {
			ok = ecdsa.VerifyASN1(k, digest[:], sig)
		}
	case ed25519.PublicKey:
		if sig, err = key.Sign(rand.Reader, message, crypto.Hash(0)); err == nil {
			ok = ed25519.Verify(k, message, sig)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("signing with %s key: %w", alg, err)
	}
	if !ok {
		return nil, errors.New("checking new signature: the signer returned one that its own public key refuses")
	}
	return sig, nil
}
