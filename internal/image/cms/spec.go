package cms

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"

	"github.com/writ-project/writ/internal/image"
)

// Limits of what is read, far above what any signer writes.
const (
	// MaxSize is the largest SignedData in bytes, with its content if attached.
	MaxSize = 1 << 20

	maxCertificates = 16
	maxSigners      = 4
	maxAttributes   = 16
	minRSABits      = 2048
)

// Purpose is what a signer's certificate is for, as the device asks OpenSSL.
type Purpose string

// The purposes that updaters can be configured for.
const (
	// EmailProtection is S/MIME signing, OpenSSL's default for CMS: the extended
	// key usage is absent or has emailProtection. It is the default for signing.
	EmailProtection Purpose = "email_protection"
	// CodeSigning needs the extended key usage codeSigning.
	CodeSigning Purpose = "code_signing"
	// EitherPurpose takes both, for verifying without knowing how the device is
	// configured. It is no purpose to sign for.
	EitherPurpose Purpose = "either"
)

// Object identifiers: RFC 5652, 8017, 4056, 5754, 5758.
var (
	oidData          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSigningTime   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 5}

	oidSHA256 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidSHA384 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}
	oidSHA512 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}

	oidRSA       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidMGF1      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}
	oidPSS       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
	oidRSASHA256 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}
	oidRSASHA384 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 12}
	oidRSASHA512 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 13}

	oidECDSASHA256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
	oidECDSASHA384 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}
	oidECDSASHA512 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}
)

// Hash returns the hash that a key signs the content with: SHA-256 for RSA and
// P-256, SHA-384 for P-384. Other keys are [image.ErrUnsupported].
func Hash(pub crypto.PublicKey) (crypto.Hash, error) {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSABits {
			return 0, fmt.Errorf("choosing hash: RSA key has %d bits, want at least %d: %w", k.N.BitLen(), minRSABits, image.ErrUnsupported)
		}
		return crypto.SHA256, nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return crypto.SHA256, nil
		case elliptic.P384():
			return crypto.SHA384, nil
		}
		return 0, fmt.Errorf("choosing hash: ECDSA key is on %s, want P-256 or P-384: %w", k.Curve.Params().Name, image.ErrUnsupported)
	default:
		return 0, fmt.Errorf("choosing hash: CMS is signed with RSA or ECDSA, not with a key of type %T: %w", pub, image.ErrUnsupported)
	}
}

// Fits reports, as an error wrapping [image.ErrWrongPurpose], why a device that
// checks for p refuses signatures by the certificate: its key usage (RFC 5280,
// section 4.2.1.3) or extended key usage (4.2.1.12) does not allow them.
// anyExtendedKeyUsage is not enough, because it is not for OpenSSL.
func (p Purpose) Fits(c *x509.Certificate) error {
	if c.KeyUsage != 0 && c.KeyUsage&(x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment) == 0 {
		return fmt.Errorf("certificate %q has a key usage without digitalSignature; issue one with it: %w", c.Subject, image.ErrWrongPurpose)
	}
	none := len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0
	email := none || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageEmailProtection)
	code := slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageCodeSigning)
	switch p {
	case EmailProtection:
		if !email {
			return fmt.Errorf("certificate %q has extended key usages without emailProtection, which devices check unless they are "+
				"configured for code signing; issue one with it, or without any: %w", c.Subject, image.ErrWrongPurpose)
		}
	case CodeSigning:
		if !code {
			return fmt.Errorf("certificate %q lacks the extended key usage codeSigning; issue one with it: %w", c.Subject, image.ErrWrongPurpose)
		}
	case EitherPurpose:
		if !email && !code {
			return fmt.Errorf("certificate %q has extended key usages, and neither emailProtection nor codeSigning: %w", c.Subject, image.ErrWrongPurpose)
		}
	default:
		return fmt.Errorf("checking certificate: purpose %q is unknown, use %s or %s: %w", p, EmailProtection, CodeSigning, image.ErrBadOptions)
	}
	return nil
}
