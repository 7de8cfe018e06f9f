package swu

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/writ-project/writ/internal/image"
	"github.com/writ-project/writ/internal/image/cms"
)

// Verify checks the image against keys: RSA and ECDSA keys of signers, and
// [image.CA] for CMS. Whether the device takes the signature in that form, and
// for which purpose it checks certificates, is up to its configuration; either
// of the two purposes is good here.
func (Format) Verify(ctx context.Context, r io.ReaderAt, size int64, envelope []byte, keys []crypto.PublicKey) (image.Verified, error) {
	v, err := verify(ctx, r, size, envelope, keys)
	if err != nil {
		return image.Verified{}, fmt.Errorf("verifying swu image: %w", err)
	}
	return v, nil
}

func verify(ctx context.Context, r io.ReaderAt, size int64, envelope []byte, keys []crypto.PublicKey) (image.Verified, error) {
	if len(envelope) != 0 {
		return image.Verified{}, malformed("got a detached signature of %d bytes, but swu images carry their own", len(envelope))
	}
	o, err := open(ctx, r, size)
	if err != nil {
		return image.Verified{}, err
	}
	if o.signature == nil {
		return image.Verified{}, fmt.Errorf("the second file of the archive is not %s: %w", nameSignature, image.ErrUnsigned)
	}
	v, err := o.signedBy(keys)
	if err != nil {
		return image.Verified{}, err
	}
	if err := o.stream(ctx); err != nil {
		return image.Verified{}, err
	}
	v.Info, err = o.info()
	return v, err
}

// signedBy checks the signature over the description.
func (o *opened) signedBy(keys []crypto.PublicKey) (image.Verified, error) {
	if o.cms == nil {
		return o.signedByRSA(keys)
	}
	content := o.cms.NewDigests()
	if _, err := content.Write(o.raw); err != nil {
		return image.Verified{}, err
	}
	signers, err := o.cms.Verify(content, cms.Trust{Keys: keys})
	if err != nil {
		return image.Verified{}, err
	}
	return image.Verified{Key: signers[0].Key, KeyID: signers[0].KeyID, Algorithm: signers[0].Algorithm}, nil
}

// signedByRSA checks a bare signature. It names neither key nor padding, so all
// that fit are tried. SWUpdate, like this, takes any length of salt.
func (o *opened) signedByRSA(keys []crypto.PublicKey) (image.Verified, error) {
	sum := sha256.Sum256(o.raw)
	tried := 0
	for _, key := range keys {
		k, ok := key.(*rsa.PublicKey)
		if !ok || k.Size() != len(o.signature) || k.N.BitLen() < minRSABits {
			continue
		}
		tried++
		pss := rsa.VerifyPSS(k, crypto.SHA256, sum[:], o.signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto}) == nil
		if !pss && rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], o.signature) != nil {
			continue
		}
		id, err := image.KeyID(k)
		if err != nil {
			return image.Verified{}, err
		}
		name, err := image.DigestAlgorithm(k, crypto.SHA256, pss)
		return image.Verified{Key: k, KeyID: id, Algorithm: name}, err
	}
	if tried > 0 {
		return image.Verified{}, fmt.Errorf("the signature is by none of %d given RSA keys of its size, or the description was changed: %w", tried, image.ErrBadSignature)
	}
	return image.Verified{}, fmt.Errorf("the signature has %d bytes and is not CMS, and none of %d given keys is RSA of that size: %w",
		len(o.signature), len(keys), image.ErrUnknownKey)
}
