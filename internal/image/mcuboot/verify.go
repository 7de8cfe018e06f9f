package mcuboot

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"

	"github.com/writ-project/writ/internal/image"
)

// Verify checks the image against keys: ECDSA P-256 and P-384, Ed25519, RSA of
// 2048 and 3072 bits. Keys of other kinds never match.
func (Format) Verify(ctx context.Context, r io.ReaderAt, size int64, envelope []byte, keys []crypto.PublicKey) (image.Verified, error) {
	v, err := verify(ctx, r, size, envelope, keys)
	if err != nil {
		return image.Verified{}, fmt.Errorf("verifying mcuboot image: %w", err)
	}
	return v, nil
}

func verify(ctx context.Context, r io.ReaderAt, size int64, envelope []byte, keys []crypto.PublicKey) (image.Verified, error) {
	if len(envelope) != 0 {
		return image.Verified{}, fmt.Errorf("got a detached signature of %d bytes, but mcuboot images carry their own: %w", len(envelope), image.ErrMalformed)
	}
	c, info, err := read(ctx, r, size)
	switch {
	case err != nil:
		return image.Verified{}, err
	case c.encrypted:
		return image.Verified{}, fmt.Errorf("the signature covers the plaintext, decrypt the image first: %w", image.ErrEncrypted)
	case c.pure:
		return image.Verified{}, fmt.Errorf("the signature is pure Ed25519 over the whole image (TLV %#04x): %w", tlvSigPure, image.ErrUnsupported)
	case len(c.signatures) == 0:
		return image.Verified{}, fmt.Errorf("the image has a digest and no signature: %w", image.ErrUnsigned)
	}

	var found crypto.PublicKey
	var alg string
	for i, s := range c.signatures {
		key := c.keyOf(s, keys)
		if key == nil {
			continue
		}
		// One bad signature by a known key refuses the image even if another
		// is good: which of them decides depends on the bootloader.
		if err := c.checkSignature(s, key); err != nil {
			return image.Verified{}, fmt.Errorf("checking signature at offset %#x by key %s: %w", s.off, info.Signatures[i].KeyID, err)
		}
		if found == nil {
			found, alg = key, info.Signatures[i].Algorithm
		}
	}
	if found == nil {
		return image.Verified{}, fmt.Errorf("none of %d signatures is by one of %d given keys, the first is by %s: %w",
			len(c.signatures), len(keys), info.Signatures[0].KeyID, image.ErrUnknownKey)
	}
	id, err := image.KeyID(found)
	if err != nil {
		return image.Verified{}, err
	}
	return image.Verified{Key: found, KeyID: id, Algorithm: alg, Info: info}, nil
}

// keyOf returns the given key that a signature names, or nil.
func (c *content) keyOf(s signature, keys []crypto.PublicKey) crypto.PublicKey {
	for _, key := range keys {
		der, err := embedded(key)
		if err != nil {
			continue
		}
		if s.pubKey != nil {
			if bytes.Equal(der, s.pubKey) {
				return key
			}
			continue
		}
		h := c.hash.New()
		h.Write(der)
		if bytes.Equal(h.Sum(nil), s.keyHash) {
			return key
		}
	}
	return nil
}

// embedded returns the bytes of a public key as the bootloader embeds and
// hashes it: SubjectPublicKeyInfo for EC and Ed25519, PKCS #1 RSAPublicKey (RFC
// 8017, appendix A.1.1) for RSA.
func embedded(pub crypto.PublicKey) ([]byte, error) {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		return x509.MarshalPKCS1PublicKey(k), nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() {
			return x509.MarshalPKIXPublicKey(k)
		}
	case ed25519.PublicKey:
		if len(k) == ed25519.PublicKeySize {
			return x509.MarshalPKIXPublicKey(k)
		}
	}
	return nil, errors.New("no MCUboot image is signed with a key of this kind")
}

// checkSignature checks one signature over the image digest. The type of the
// signature must fit the kind of the key and the hash, which are the pairings
// that MCUboot builds have.
func (c *content) checkSignature(s signature, pub crypto.PublicKey) error {
	ok := false
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		fits := k.Curve == elliptic.P256() && c.hash == crypto.SHA256 ||
			k.Curve == elliptic.P384() && c.hash == crypto.SHA384
		ok = fits && s.typ == tlvECDSA && ecdsa.VerifyASN1(k, c.digest, s.value)
	case ed25519.PublicKey:
		fits := c.hash == crypto.SHA256 || c.hash == crypto.SHA512
		// The digest is the message: MCUboot does not use Ed25519ph.
		ok = fits && s.typ == tlvEd25519 && ed25519.Verify(k, c.digest, s.value)
	case *rsa.PublicKey:
		fits := k.N.BitLen() == 2048 && s.typ == tlvRSA2048 ||
			k.N.BitLen() == 3072 && s.typ == tlvRSA3072
		ok = fits && c.hash == crypto.SHA256 &&
			rsa.VerifyPSS(k, c.hash, c.digest, s.value, &rsa.PSSOptions{SaltLength: 32}) == nil
	}
	if !ok {
		return image.ErrBadSignature
	}
	return nil
}
