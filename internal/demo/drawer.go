package demo

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"os"
	"path/filepath"
	"time"

	"github.com/writ-project/writ/internal/fw"
)

// request makes a certificate request with the key a device has, and returns
// the certificate it has.
func (d *device) request() ([]byte, *x509.Certificate, error) {
	key, err := readPEM(filepath.Join(d.dir, "key.pem"))
	if err != nil {
		return nil, nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fw.Wrap(fw.Corrupt, err, "cannot read the key of %s", d.id)
	}
	der, err := readPEM(filepath.Join(d.dir, "cert.pem"))
	if err != nil {
		return nil, nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fw.Wrap(fw.Corrupt, err, "cannot read the certificate of %s", d.id)
	}
	signer, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, nil, fw.Errorf(fw.Corrupt, "the key of %s cannot sign", d.id)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: string(d.id)}}, signer)
	if err != nil {
		return nil, nil, fw.Wrap(fw.Internal, err, "cannot make a certificate request")
	}
	return csr, leaf, nil
}

// adopt replaces the device's certificate and returns when the new one ends.
func (d *device) adopt(chain [][]byte) (time.Time, error) {
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return time.Time{}, fw.Wrap(fw.Internal, err, "cannot read the new certificate")
	}
	var out []byte
	for _, der := range chain {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	if err := os.WriteFile(filepath.Join(d.dir, "cert.pem"), out, 0o600); err != nil {
		return time.Time{}, fw.Wrap(fw.Unavailable, err, "cannot write to %s", d.dir)
	}
	return leaf.NotAfter, nil
}

func readPEM(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fw.Wrap(fw.Unavailable, err, "cannot read %s", path)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fw.Errorf(fw.Corrupt, "%s is not PEM", path)
	}
	return block.Bytes, nil
}
