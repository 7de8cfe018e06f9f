package mcuboot

import (
	"bytes"
	"context"
	"crypto"
	"crypto/cipher"
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
// 2048 and 3072 bits. Keys of other kinds never match. An encrypted image needs
// its [image.Recipient] among the keys, with ECIES on P-256 or X25519.
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
	m, err := open(ctx, r, size)
	if err != nil {
		return image.Verified{}, err
	}
	var decrypt cipher.Stream
	if m.encrypted() {
		if decrypt, err = m.decrypter(keys); err != nil {
			return image.Verified{}, err
		}
	}
	checks, message := m.signedBy(keys)
	if err := m.stream(ctx, decrypt, message...); err != nil {
		return image.Verified{}, err
	}
	switch {
	case len(m.signatures) == 0:
		return image.Verified{}, fmt.Errorf("the image has a digest and no signature: %w", image.ErrUnsigned)
	case len(checks) == 0:
		return image.Verified{}, fmt.Errorf("none of %d signatures is by one of %d given keys, the first is by %s: %w",
			len(m.signatures), len(keys), m.signatures[0].keyID(), image.ErrUnknownKey)
	}
	for _, c := range checks {
		// One bad signature by a known key refuses the image even if another
		// is good: which of them decides depends on the bootloader.
		if !c.ok() {
			return image.Verified{}, fmt.Errorf("checking signature at offset %#x by key %s: %w", c.off, c.keyID(), image.ErrBadSignature)
		}
	}
	info, err := m.info()
	if err != nil {
		return image.Verified{}, err
	}
	id, err := image.KeyID(checks[0].key)
	if err != nil {
		return image.Verified{}, err
	}
	return image.Verified{Key: checks[0].key, KeyID: id, Algorithm: m.algorithm(checks[0].signature), Info: info}, nil
}

// check is one signature by a given key. ok may be called when the image has
// been streamed.
type check struct {
	signature
	key crypto.PublicKey
	ok  func() bool
}

// signedBy returns the signatures that name one of keys, and what the signed
// region must be written to for them.
func (c *content) signedBy(keys []crypto.PublicKey) (checks []check, message []io.Writer) {
	for _, s := range c.signatures {
		key := c.keyOf(s, keys)
		if key == nil {
			continue
		}
		ok := func() bool { return c.overDigest(s, key) }
		if c.pure {
			ok = func() bool { return false }
			if p := c.overImage(s, key); p != nil {
				ok, message = p.OK, append(message, p)
			}
		}
		checks = append(checks, check{s, key, ok})
	}
	return checks, message
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

// overDigest checks one signature over the image digest. The type of the
// signature must fit the kind of the key and the hash, which are the pairings
// that MCUboot builds have.
func (c *content) overDigest(s signature, pub crypto.PublicKey) bool {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		fits := k.Curve == elliptic.P256() && c.hash == crypto.SHA256 ||
			k.Curve == elliptic.P384() && c.hash == crypto.SHA384
		return fits && s.typ == tlvECDSA && ecdsa.VerifyASN1(k, c.digest, s.value)
	case ed25519.PublicKey:
		fits := c.hash == crypto.SHA256 || c.hash == crypto.SHA512
		// The digest is the message: MCUboot does not use Ed25519ph.
		return fits && s.typ == tlvEd25519 && ed25519.Verify(k, c.digest, s.value)
	case *rsa.PublicKey:
		fits := k.N.BitLen() == 2048 && s.typ == tlvRSA2048 ||
			k.N.BitLen() == 3072 && s.typ == tlvRSA3072
		return fits && c.hash == crypto.SHA256 &&
			rsa.VerifyPSS(k, c.hash, c.digest, s.value, &rsa.PSSOptions{SaltLength: 32}) == nil
	}
	return false
}

// overImage returns the check of a pure signature, or nil when nothing can fit:
// such signatures are by Ed25519 keys, in builds with SHA-512.
func (c *content) overImage(s signature, pub crypto.PublicKey) *image.Ed25519Check {
	k, ok := pub.(ed25519.PublicKey)
	if !ok || s.typ != tlvEd25519 || c.hash != crypto.SHA512 {
		return nil
	}
	return image.NewEd25519Check(k, s.value)
}
