package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"

	"github.com/writ-project/writ/internal/fw"
)

// COSE key parameters and values (RFC 9053, section 7; RFC 8152 registry).
const (
	ktyOKP     = 1
	ktyEC2     = 2
	crvP256    = 1
	crvEd25519 = 6
)

// Thumbprint returns the COSE key thumbprint of pub (RFC 9679) with SHA-256:
// the digest over the deterministic CBOR of the required parameters of the
// COSE_Key. Authorizations name the device's key by it (cnf, RFC 8747 with the
// ckt method of RFC 9679, section 5.6).
func Thumbprint(pub crypto.PublicKey) (fw.Digest, error) {
	cbor, err := coseKey(pub)
	if err != nil {
		return fw.Digest{}, err
	}
	return sha256.Sum256(cbor), nil
}

// coseKey encodes the required parameters in bytewise order of their labels:
// kty (1), crv (-1), x (-2), y (-3) as 01, 20, 21, 22 (RFC 9679, section 4).
func coseKey(pub crypto.PublicKey) ([]byte, error) {
	if err := CheckKey(pub); err != nil {
		return nil, err
	}
	switch k := pub.(type) {
	case ed25519.PublicKey:
		b := []byte{0xa3, 0x01, ktyOKP, 0x20, crvEd25519, 0x21}
		return appendBytes(b, k), nil
	case *ecdsa.PublicKey:
		e, err := ecdhKey(k)
		if err != nil {
			return nil, err
		}
		// y is the coordinate and not its sign bit (RFC 9679, section 4.2).
		point := e.Bytes()[1:]
		b := appendBytes([]byte{0xa4, 0x01, ktyEC2, 0x20, crvP256, 0x21}, point[:len(point)/2])
		return appendBytes(append(b, 0x22), point[len(point)/2:]), nil
	}
	return nil, fw.Errorf(fw.Invalid, "keys of this kind have no thumbprint here")
}

// appendBytes appends a CBOR byte string of 24 to 255 bytes.
func appendBytes(b, s []byte) []byte {
	return append(append(b, 0x58, byte(len(s))), s...) //nolint:gosec // G115: coordinates have 32 bytes
}

// Fingerprint returns the SHA-256 of the certificate's DER, by which it is
// looked up in the table of certificates.
func Fingerprint(cert *x509.Certificate) fw.Digest { return fw.DigestOf(cert.Raw) }
