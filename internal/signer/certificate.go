package signer

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/writ-project/writ/internal/fw"
)

// CertificateRequest asks for a certificate. The permit's subject is
// [CertificateDigest] of the same template, parent and key.
type CertificateRequest struct {
	Template  *x509.Certificate
	Parent    *x509.Certificate // the CA's certificate; nil for the CA's own, self-signed
	PublicKey crypto.PublicKey  // of the subject; nil for the CA's own
	At        time.Time
}

// IssueCertificate signs a certificate and returns its DER.
func (s *Signer) IssueCertificate(p *Permit, req CertificateRequest) ([]byte, error) {
	return s.signTBS(p, req.At, func(k DeviceCAKey, lent crypto.Signer) ([]byte, error) {
		if err := checkTemplate(req, k); err != nil {
			return nil, err
		}
		return createCertificate(req, lent)
	})
}

// SignCRL signs a certificate revocation list. The permit's subject is
// [CRLDigest] of the same template and issuer.
func (s *Signer) SignCRL(p *Permit, template *x509.RevocationList, issuer *x509.Certificate, at time.Time) ([]byte, error) {
	return s.signTBS(p, at, func(_ DeviceCAKey, lent crypto.Signer) ([]byte, error) {
		return createCRL(template, issuer, lent)
	})
}

// signTBS redeems p and runs create with a key that signs only the TBS bytes
// whose digest is the permit's subject.
func (s *Signer) signTBS(p *Permit, at time.Time, create func(DeviceCAKey, crypto.Signer) ([]byte, error)) ([]byte, error) {
	grant, k, err := s.redeem(p, fw.PurposeDeviceCA)
	if err != nil {
		return nil, err
	}
	lent := &scoped{key: k.key, allow: func(digest []byte, opts crypto.SignerOpts) error {
		if opts.HashFunc() != crypto.SHA256 || !bytes.Equal(digest, grant.Subject[:]) {
			return fw.Errorf(fw.Forbidden, "permit %s is for another certificate or revocation list", p.id)
		}
		return s.record(p, at)
	}}
	der, err := create(DeviceCAKey{k}, lent)
	used := lent.close()
	if err != nil {
		return nil, err
	}
	if !used {
		return nil, fw.Errorf(fw.Internal, "nothing was signed with key %q", grant.Key)
	}
	return der, s.recordOutput(p, fw.DigestOf(der), at)
}

// checkTemplate holds what is true of every certificate the device CA may
// issue, whatever a decision says: it makes no other CA, and a leaf is for a
// client or for a server.
func checkTemplate(req CertificateRequest, k DeviceCAKey) error {
	t := req.Template
	switch {
	case t == nil:
		return fw.Errorf(fw.Invalid, "no certificate template")
	case !t.BasicConstraintsValid:
		return fw.Errorf(fw.Invalid, "a certificate must say whether it is a CA")
	case t.IsCA && req.Parent != nil:
		return fw.Errorf(fw.Forbidden, "the device CA issues no certificates for other CAs")
	case !t.IsCA && req.Parent == nil:
		return fw.Errorf(fw.Forbidden, "only the CA's own certificate is self-signed")
	case !t.IsCA && t.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return fw.Errorf(fw.Forbidden, "only a CA may sign certificates and revocation lists")
	case !t.IsCA && !slices.Equal(t.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) &&
		!slices.Equal(t.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}),
		len(t.UnknownExtKeyUsage) > 0:
		return fw.Errorf(fw.Forbidden, "a certificate is for a TLS client or for a TLS server and for nothing else")
	}
	if req.Parent != nil {
		if id, err := keyID(req.Parent.PublicKey); err != nil || id != k.k.info.KeyID {
			return fw.Wrap(fw.Invalid, err, "key %q is not the key of CA %q", k.k.info.Name, req.Parent.Subject.CommonName)
		}
	}
	return nil
}

func createCertificate(req CertificateRequest, key crypto.Signer) ([]byte, error) {
	if req.Template == nil || req.Template.SerialNumber == nil {
		// crypto/x509 would choose one, and the digest would be another each time.
		return nil, fw.Errorf(fw.Invalid, "the certificate template has no serial number")
	}
	parent, pub := req.Parent, req.PublicKey
	if parent == nil {
		parent, pub = req.Template, key.Public()
	}
	der, err := x509.CreateCertificate(rand.Reader, req.Template, parent, pub, key)
	if err != nil {
		return nil, wrapCreate(err, "the certificate cannot be made")
	}
	return der, nil
}

func createCRL(template *x509.RevocationList, issuer *x509.Certificate, key crypto.Signer) ([]byte, error) {
	if template == nil || issuer == nil {
		return nil, fw.Errorf(fw.Invalid, "a revocation list needs a template and an issuer")
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, issuer, key)
	if err != nil {
		return nil, wrapCreate(err, "the revocation list cannot be made")
	}
	return der, nil
}

// wrapCreate keeps our own refusals as they are.
func wrapCreate(err error, msg string) error {
	if e, ok := errors.AsType[*fw.Error](err); ok {
		return e
	}
	return fw.Wrap(fw.Invalid, err, "%s", msg)
}

// CertificateDigest returns the SHA-256 of the TBSCertificate that req leads
// to: what to put into the grant. ca is the public key of the device CA.
func CertificateDigest(req CertificateRequest, ca crypto.PublicKey) (fw.Digest, error) {
	return digestTBS(ca, func(key crypto.Signer) error {
		_, err := createCertificate(req, key)
		return err
	})
}

// CRLDigest returns the SHA-256 of the TBSCertList that template leads to.
func CRLDigest(template *x509.RevocationList, issuer *x509.Certificate) (fw.Digest, error) {
	if issuer == nil {
		return fw.Digest{}, fw.Errorf(fw.Invalid, "a revocation list needs a template and an issuer")
	}
	return digestTBS(issuer.PublicKey, func(key crypto.Signer) error {
		_, err := createCRL(template, issuer, key)
		return err
	})
}

// errDryRun ends the making of a certificate at the point of signing.
var errDryRun = errors.New("dry run")

// digestCatcher is a signer that signs nothing and keeps the digest.
type digestCatcher struct {
	pub    crypto.PublicKey
	digest fw.Digest
}

func (c *digestCatcher) Public() crypto.PublicKey { return c.pub }

func (c *digestCatcher) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != crypto.SHA256 || len(digest) != len(c.digest) {
		return nil, fw.Errorf(fw.Invalid, "device CA keys sign with SHA-256")
	}
	c.digest = fw.Digest(digest)
	return nil, errDryRun
}

func digestTBS(pub crypto.PublicKey, create func(crypto.Signer) error) (fw.Digest, error) {
	c := &digestCatcher{pub: pub}
	switch err := create(c); {
	case err == nil:
		return fw.Digest{}, fw.Errorf(fw.Internal, "nothing was to be signed")
	case c.digest.IsZero():
		return fw.Digest{}, err
	}
	return c.digest, nil
}
