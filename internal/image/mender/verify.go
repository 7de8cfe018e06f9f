package mender

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"slices"

	"github.com/writ-project/writ/internal/image"
)

// Inspect reports what the artifact claims. The hardware is the device types,
// see the package comment for version and security counter.
func (Format) Inspect(ctx context.Context, r io.ReaderAt, size int64) (image.Info, error) {
	a, err := read(ctx, r, size, func(*artifact) error { return nil })
	if err != nil {
		return image.Info{}, fmt.Errorf("inspecting mender artifact: %w", err)
	}
	info, err := a.info(size)
	if err != nil {
		return image.Info{}, fmt.Errorf("inspecting mender artifact: %w", err)
	}
	return info, nil
}

func (a *artifact) info(size int64) (image.Info, error) {
	sum := sha256.Sum256(a.manifest)
	info := image.Info{
		Format: Format{}.Name(), Hardware: slices.Clone(a.head.Depends["device_type"]), Size: size,
		Digests: []image.Digest{
			{Scope: image.ScopeFile, Algorithm: "sha256", Hex: hex.EncodeToString(a.file[:])},
			{Scope: image.ScopeImage, Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])},
		},
	}
	// Several versions are as good as none: nobody could say which it is.
	if said := versions(a.head.ArtifactName, a.head.Payloads); len(said) == 1 {
		info.Version = said[0]
	}
	if a.signed {
		alg := algRSA(8 * len(a.sig))
		if len(a.sig) == 64 {
			alg = image.AlgECDSAP256
		}
		info.Signatures = []image.SignatureInfo{{Algorithm: alg}}
	}
	var err error
	if info.SecurityCounter, err = counter(a.head.Payloads); err != nil {
		return info, err
	}
	info.Details, err = json.Marshal(a.head)
	return info, err
}

// readSignature decodes manifest.sig.
func readSignature(text []byte) ([]byte, error) {
	sig, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil || base64.StdEncoding.EncodeToString(sig) != string(text) {
		return nil, fmt.Errorf("it is not base64 on one line: %w", image.ErrMalformed)
	}
	if n := len(sig); n != 64 && (n < minRSA/8 || n > maxRSA/8) {
		return nil, fmt.Errorf("signature has %d bytes, want 64 (r and s of P-256, not DER) or %d to %d (RSA): %w", n, minRSA/8, maxRSA/8, image.ErrUnsupported)
	}
	return sig, nil
}

// Verify checks the artifact against keys: RSA of 2048 to 8192 bits and ECDSA
// P-256. Keys of other kinds never match.
func (Format) Verify(ctx context.Context, r io.ReaderAt, size int64, envelope []byte, keys []crypto.PublicKey) (image.Verified, error) {
	v, err := verify(ctx, r, size, envelope, keys)
	if err != nil {
		return image.Verified{}, fmt.Errorf("verifying mender artifact: %w", err)
	}
	return v, nil
}

func verify(ctx context.Context, r io.ReaderAt, size int64, envelope []byte, keys []crypto.PublicKey) (image.Verified, error) {
	if len(envelope) != 0 {
		return image.Verified{}, fmt.Errorf("got a detached signature of %d bytes, but mender artifacts carry their own: %w", len(envelope), image.ErrMalformed)
	}
	var v image.Verified
	a, err := read(ctx, r, size, func(a *artifact) error {
		if !a.signed {
			return fmt.Errorf("the artifact has no manifest.sig: %w", image.ErrUnsigned)
		}
		sum := sha256.Sum256(a.manifest)
		for _, key := range keys {
			if !signedBy(key, sum[:], a.sig) {
				continue
			}
			var err error
			v.Key = key
			if v.Algorithm, err = algorithm(key); err != nil {
				return err
			}
			v.KeyID, err = image.KeyID(key)
			return err
		}
		// The signature names no key, so these two cannot be told apart.
		return fmt.Errorf("manifest.sig is by none of %d given keys, or the manifest was changed: %w", len(keys), image.ErrUnknownKey)
	})
	if err != nil {
		return image.Verified{}, err
	}
	if v.Info, err = a.info(size); err != nil {
		return image.Verified{}, err
	}
	v.Info.Signatures[0].KeyID = v.KeyID
	return v, nil
}

func signedBy(key crypto.PublicKey, digest, sig []byte) bool {
	if _, err := algorithm(key); err != nil {
		return false
	}
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return len(sig) == 64 && ecdsa.Verify(k, digest, new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:]))
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, crypto.SHA256, digest, sig) == nil
	}
	return false
}
