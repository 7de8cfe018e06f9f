package minisign

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"slices"

	"golang.org/x/crypto/blake2b"

	"github.com/writ-project/writ/internal/image"
)

// Verify checks the signature file envelope against keys, of which it takes
// [ed25519.PublicKey] and [PublicKey], and the image against it.
func (f Format) Verify(ctx context.Context, r io.ReaderAt, size int64, envelope []byte, keys []crypto.PublicKey) (image.Verified, error) {
	return verify(ctx, f.Name(), r, size, envelope, keys)
}

// Verify is as for [Format].
func (f Signify) Verify(ctx context.Context, r io.ReaderAt, size int64, envelope []byte, keys []crypto.PublicKey) (image.Verified, error) {
	return verify(ctx, f.Name(), r, size, envelope, keys)
}

func verify(ctx context.Context, format string, r io.ReaderAt, size int64, env []byte, keys []crypto.PublicKey) (image.Verified, error) {
	e, err := openEnvelope(format, size, env)
	if err != nil {
		return image.Verified{}, fmt.Errorf("verifying %s image: %w", format, err)
	}
	v, err := e.verify(image.Section(ctx, r, 0, size), size, keys)
	if err != nil {
		return image.Verified{}, fmt.Errorf("verifying %s image: %w", format, err)
	}
	return v, nil
}

func openEnvelope(format string, size int64, env []byte) (*envelope, error) {
	if err := checkSize(size); err != nil {
		return nil, err
	}
	e, err := readEnvelope(env)
	if err != nil {
		return nil, err
	}
	// The two are not interchangeable: what signify signs says nothing of what
	// it is, and a release that asks for minisign asks for more.
	if e.format != format {
		return nil, malformed("it is one of %s", e.format)
	}
	return e, nil
}

func (e *envelope) verify(r io.Reader, size int64, keys []crypto.PublicKey) (image.Verified, error) {
	possible, named := candidates(keys, e.number)
	if e.global != nil {
		// The trusted comment first: it tells who signed before the image is read.
		msg := slices.Concat(e.sig, []byte(e.trusted))
		possible = slices.DeleteFunc(possible, func(k ed25519.PublicKey) bool { return !ed25519.Verify(k, msg, e.global) })
	}
	if len(possible) == 0 {
		return image.Verified{}, e.refuse(named, len(keys))
	}
	sum, key, err := e.checkImage(r, possible)
	if err != nil {
		return image.Verified{}, err
	}
	if key == nil {
		// Who signed the comment signed another image.
		return image.Verified{}, e.refuse(named || e.global != nil, len(keys))
	}
	v := image.Verified{Key: key, Algorithm: image.AlgEd25519, Info: image.Info{Size: size, Digests: digests(sum)}}
	if v.KeyID, err = keyID(key); err != nil {
		return image.Verified{}, err
	}
	return v, e.describe(&v.Info)
}

// refuse says why no key fits. known is set when the signer is sure to be one
// of the keys.
func (e *envelope) refuse(known bool, keys int) error {
	if known {
		return fmt.Errorf("checking signature by key number %s: image or comment are not what was signed: %w", e.number, image.ErrBadSignature)
	}
	return fmt.Errorf("the signature names key number %s and fits none of %d given keys with this image: %w", e.number, keys, image.ErrUnknownKey)
}

// checkImage reads the image once. It returns its SHA-256 and the key that
// signed it, or nil if none of possible did.
func (e *envelope) checkImage(r io.Reader, possible []ed25519.PublicKey) (sum []byte, key ed25519.PublicKey, err error) {
	digest := sha256.New()
	if e.format == (Format{}).Name() {
		pre, err := blake2b.New512(nil)
		if err != nil {
			return nil, nil, fmt.Errorf("starting BLAKE2b: %w", err)
		}
		if _, err := io.Copy(io.MultiWriter(digest, pre), r); err != nil {
			return nil, nil, fmt.Errorf("hashing image: %w", err)
		}
		for _, k := range possible {
			if ed25519.Verify(k, pre.Sum(nil), e.sig) {
				return digest.Sum(nil), k, nil
			}
		}
		return digest.Sum(nil), nil, nil
	}
	type check struct {
		*image.Ed25519Check
		pub ed25519.PublicKey
	}
	var checks []check
	writers := []io.Writer{digest}
	for _, k := range possible {
		if c := image.NewEd25519Check(k, e.sig); c != nil {
			checks, writers = append(checks, check{c, k}), append(writers, c)
		}
	}
	if _, err := io.Copy(io.MultiWriter(writers...), r); err != nil {
		return nil, nil, fmt.Errorf("hashing image: %w", err)
	}
	for _, c := range checks {
		if c.OK() {
			return digest.Sum(nil), c.pub, nil
		}
	}
	return digest.Sum(nil), nil, nil
}

func keyID(pub ed25519.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("naming key: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}
