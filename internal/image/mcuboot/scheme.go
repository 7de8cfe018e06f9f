package mcuboot

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"slices"

	"github.com/writ-project/writ/internal/image"
)

// scheme is how Sign uses a kind of key.
type scheme struct {
	alg    string
	typ    uint16
	hashes []crypto.Hash // that MCUboot builds combine with it, the usual one first
	maxSig int           // bytes
	// embedded is the key as bootloaders embed and hash it.
	embedded []byte
}

func schemeOf(pub crypto.PublicKey) (*scheme, error) {
	k := &scheme{hashes: []crypto.Hash{crypto.SHA256}}
	switch p := pub.(type) {
	case *ecdsa.PublicKey:
		// A DER signature is 2+2*(2+1+n) bytes at most.
		switch {
		case p != nil && p.Curve == elliptic.P256():
			k.alg, k.typ, k.maxSig = image.AlgECDSAP256, tlvECDSA, 72
		case p != nil && p.Curve == elliptic.P384():
			k.alg, k.typ, k.maxSig = image.AlgECDSAP384, tlvECDSA, 104
			k.hashes = []crypto.Hash{crypto.SHA384}
		}
	case ed25519.PublicKey:
		if len(p) == ed25519.PublicKeySize {
			k.alg, k.typ, k.maxSig = image.AlgEd25519, tlvEd25519, ed25519.SignatureSize
			k.hashes = append(k.hashes, crypto.SHA512)
		}
	case *rsa.PublicKey:
		switch {
		case p != nil && p.N.BitLen() == 2048:
			k.alg, k.typ, k.maxSig = image.AlgRSA2048, tlvRSA2048, p.Size()
		case p != nil && p.N.BitLen() == 3072:
			k.alg, k.typ, k.maxSig = image.AlgRSA3072, tlvRSA3072, p.Size()
		}
		if k.alg != "" {
			k.embedded = x509.MarshalPKCS1PublicKey(p)
		}
	}
	if k.alg == "" {
		return nil, fmt.Errorf("choosing signature: MCUboot knows ECDSA P-256 and P-384, Ed25519, RSA-2048 and RSA-3072, not this %T: %w", pub, image.ErrUnsupported)
	}
	if k.embedded == nil {
		der, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			return nil, fmt.Errorf("encoding public key: %w", err)
		}
		k.embedded = der
	}
	return k, nil
}

// choose settles on the mode of a signature: the digest, and whether it is
// pure. old is what the image to be re-signed has, or nil.
func (k *scheme) choose(set *settings, old *oldArea) (h crypto.Hash, pure bool, err error) {
	ed := k.alg == image.AlgEd25519
	switch {
	case set.Pure != nil:
		pure = *set.Pure
	case old != nil:
		pure = old.pure && ed
	}
	switch {
	case pure && !ed:
		return 0, false, badOptions("pure signatures are by Ed25519 keys, not %s", k.alg)
	case pure && set.hash != 0 && set.hash != crypto.SHA512:
		return 0, false, badOptions("hash %s: pure signatures go with sha512", set.Hash)
	case pure:
		h = crypto.SHA512
	case set.hash != 0:
		h = set.hash
	case old != nil && slices.Contains(k.hashes, old.hash):
		h = old.hash
	default:
		h = k.hashes[0]
	}
	if !slices.Contains(k.hashes, h) {
		return 0, false, badOptions("hash: bootloaders verify %s over %v, not %v", k.alg, k.hashes, h)
	}
	if old == nil {
		return h, pure, nil
	}
	if set.Signatures == addSignatures && (h != old.hash || pure != old.pure) {
		return 0, false, badOptions("an image has one digest for all its signatures: this one has %v (pure: %t), and the new signature needs %v (pure: %t)",
			old.hash, old.pure, h, pure)
	}
	return h, pure, nil
}
