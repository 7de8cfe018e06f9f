package signer

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/writ-project/writ/internal/fw"
)

// issue makes a certificate by the whole way: digest, permit, signature.
func (w *world) issue(tb testing.TB, req CertificateRequest, evidence int64) ([]byte, error) {
	tb.Helper()
	subject, err := CertificateDigest(req, w.public(tb, "ca-1"))
	if err != nil {
		return nil, err
	}
	return w.s.IssueCertificate(w.mint(tb, Grant{Purpose: fw.PurposeDeviceCA, Key: "ca-1", Subject: subject, Evidence: evidence}), req)
}

func caRequest() CertificateRequest {
	return CertificateRequest{At: t0, Template: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotBefore: t0, NotAfter: t0.AddDate(10, 0, 0),
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}}
}

func (w *world) ca(tb testing.TB) *x509.Certificate {
	tb.Helper()
	der, err := w.issue(tb, caRequest(), 1)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func leafRequest(tb testing.TB, ca *x509.Certificate) CertificateRequest {
	tb.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return CertificateRequest{Parent: ca, PublicKey: k.Public(), At: t0, Template: &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "gw-1"}, NotBefore: t0, NotAfter: t0.AddDate(0, 3, 0),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}}
}

func TestIssueCertificate(t *testing.T) {
	w := newWorld(t)
	ca := w.ca(t)
	req := leafRequest(t, ca)
	der, err := w.issue(t, req, 2)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	subject, err := CertificateDigest(req, ca.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if fw.DigestOf(leaf.RawTBSCertificate) != subject {
		t.Error("the digest is not that of the TBSCertificate")
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: t0.Add(time.Hour), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	// The journal has what came out.
	b, err := os.ReadFile(filepath.Join(w.dir, journalFile))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b, []byte(fw.DigestOf(der).String())) {
		t.Error("the certificate is not in the journal")
	}
}

func TestIssueCertificateRefuses(t *testing.T) {
	w := newWorld(t)
	ca := w.ca(t)
	if _, err := w.ks.Create(t.Context(), "ca-2", fw.PurposeDeviceCA, "", t0); err != nil {
		t.Fatal(err)
	}
	evidence := int64(10)
	for name, change := range map[string]func(*CertificateRequest){
		"a CA below the CA":     func(r *CertificateRequest) { r.Template.IsCA = true },
		"a self-signed device":  func(r *CertificateRequest) { r.Parent = nil },
		"no basic constraints":  func(r *CertificateRequest) { r.Template.BasicConstraintsValid = false },
		"a leaf that may sign":  func(r *CertificateRequest) { r.Template.KeyUsage |= x509.KeyUsageCertSign },
		"no extended key usage": func(r *CertificateRequest) { r.Template.ExtKeyUsage = nil },
		"code signing":          func(r *CertificateRequest) { r.Template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} },
		"client and server": func(r *CertificateRequest) {
			r.Template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
		},
		"no serial":   func(r *CertificateRequest) { r.Template.SerialNumber = nil },
		"no template": func(r *CertificateRequest) { r.Template = nil },
	} {
		evidence++
		req := leafRequest(t, ca)
		change(&req)
		if der, err := w.issue(t, req, evidence); err == nil || der != nil {
			t.Errorf("%s: issued", name)
		}
	}

	req := leafRequest(t, ca)
	subject, err := CertificateDigest(req, ca.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	p := w.mint(t, Grant{Purpose: fw.PurposeDeviceCA, Key: "ca-1", Subject: subject, Evidence: 50})
	other := leafRequest(t, ca)
	if _, err := w.s.IssueCertificate(p, other); fw.KindOf(err) != fw.Forbidden {
		t.Errorf("another certificate: %v", err)
	}
	p = w.mint(t, Grant{Purpose: fw.PurposeDeviceCA, Key: "ca-2", Subject: subject, Evidence: 51})
	if _, err := w.s.IssueCertificate(p, req); err == nil {
		t.Error("another CA's key")
	}
	p = w.mint(t, Grant{Purpose: fw.PurposeDeviceCA, Key: "ca-1", Subject: subject, Evidence: 52})
	if _, err := w.s.IssueCertificate(p, req); err != nil {
		t.Fatal(err)
	}
	if _, err := w.s.IssueCertificate(p, req); fw.KindOf(err) != fw.Conflict {
		t.Errorf("issued twice: %v", err)
	}
}

func TestSignCRL(t *testing.T) {
	w := newWorld(t)
	ca := w.ca(t)
	tmpl := &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: t0, NextUpdate: t0.Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(2), RevocationTime: t0, ReasonCode: 1}},
	}
	subject, err := CRLDigest(tmpl, ca)
	if err != nil {
		t.Fatal(err)
	}
	der, err := w.s.SignCRL(w.mint(t, Grant{Purpose: fw.PurposeDeviceCA, Key: "ca-1", Subject: subject, Evidence: 2}), tmpl, ca, t0)
	if err != nil {
		t.Fatal(err)
	}
	crl, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := crl.CheckSignatureFrom(ca); err != nil {
		t.Error(err)
	}
	tmpl.Number = big.NewInt(2)
	if _, err := w.s.SignCRL(w.mint(t, Grant{Purpose: fw.PurposeDeviceCA, Key: "ca-1", Subject: subject, Evidence: 3}), tmpl, ca, t0); fw.KindOf(err) != fw.Forbidden {
		t.Errorf("another list: %v", err)
	}
}
