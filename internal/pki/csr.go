package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"slices"

	"github.com/writ-project/writ/internal/fw"
)

const (
	maxCSR     = 16 << 10 // bytes
	maxSubject = 1 << 10  // bytes of the DER subject
)

// CSR is a checked PKCS#10 certificate request (RFC 2986): well formed, self
// signed by the key it asks a certificate for, and asking for nothing that a
// device does not get.
type CSR struct {
	CommonName string
	// RawSubject is the subject as the device encoded it. It is copied into
	// the certificate byte for byte, because clients compare it: OpenSSL
	// writes UTF8String where Go would write PrintableString.
	RawSubject []byte
	PublicKey  crypto.PublicKey
	URIs       []string // URI names asked for
	DNSNames   []string // DNS names asked for
}

// allowedRequests are the extensions a request may hold. What it says in key
// usages and identifiers is ignored, since the profile decides; the names are
// checked by CheckDevice.
var allowedRequests = []string{
	"2.5.29.14", // subjectKeyIdentifier
	"2.5.29.15", // keyUsage
	"2.5.29.17", // subjectAltName
	"2.5.29.37", // extKeyUsage
}

var oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}

// ParseCSR reads a request in DER or PEM.
func ParseCSR(b []byte) (*CSR, error) {
	if len(b) > maxCSR {
		return nil, fw.Errorf(fw.TooLarge, "certificate request is %d bytes, over the limit of %d", len(b), maxCSR)
	}
	der := b
	if trimmed := bytes.TrimSpace(b); bytes.HasPrefix(trimmed, []byte("-----BEGIN ")) {
		block, rest := pem.Decode(trimmed)
		if block == nil || block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST" || len(bytes.TrimSpace(rest)) > 0 {
			return nil, fw.Errorf(fw.Invalid, "give one PEM block of type CERTIFICATE REQUEST")
		}
		der = block.Bytes
	}
	req, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "malformed certificate request: give PKCS#10 in DER or PEM")
	}
	if err := CheckKey(req.PublicKey); err != nil {
		return nil, err
	}
	// Proof that the device holds the key (RFC 2986, section 4.2).
	if err := req.CheckSignature(); err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "the certificate request is not signed with the key it holds")
	}
	if len(req.RawSubject) > maxSubject {
		return nil, fw.Errorf(fw.TooLarge, "the subject of the certificate request is %d bytes, over the limit of %d", len(req.RawSubject), maxSubject)
	}
	cn, err := commonName(req)
	if err != nil {
		return nil, err
	}
	if err := checkRequested(req); err != nil {
		return nil, err
	}
	csr := &CSR{CommonName: cn, RawSubject: req.RawSubject, PublicKey: req.PublicKey, DNSNames: req.DNSNames}
	for _, u := range req.URIs {
		csr.URIs = append(csr.URIs, u.String())
	}
	return csr, nil
}

// CheckKey checks that pub is of a kind devices may have: P-256 or Ed25519,
// which are the keys whose reports internal/authz reads. Any other key would
// get a certificate and then not a single report through.
func CheckKey(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case ed25519.PublicKey:
		return nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return nil
		}
		return fw.Errorf(fw.Invalid, "keys on curve %s are not accepted: make a P-256 or Ed25519 key and ask again with it", k.Params().Name)
	}
	return fw.Errorf(fw.Invalid, "keys of this kind are not accepted: make a P-256 or Ed25519 key and ask again with it")
}

var oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3}

// commonName returns the only common name of the subject.
func commonName(req *x509.CertificateRequest) (string, error) {
	var names []string
	for _, a := range req.Subject.Names {
		if a.Type.Equal(oidCommonName) {
			s, _ := a.Value.(string)
			names = append(names, s)
		}
	}
	if len(names) != 1 || names[0] == "" {
		return "", fw.Errorf(fw.Invalid, "the subject of a certificate request must have exactly one common name, the device id")
	}
	return names[0], nil
}

// checkRequested refuses what a device does not get.
func checkRequested(req *x509.CertificateRequest) error {
	for _, e := range req.Extensions {
		if e.Id.Equal(oidBasicConstraints) {
			var bc struct {
				IsCA       bool `asn1:"optional"`
				MaxPathLen int  `asn1:"optional,default:-1"`
			}
			if rest, err := asn1.Unmarshal(e.Value, &bc); err != nil || len(rest) > 0 || bc.IsCA {
				return fw.Errorf(fw.Forbidden, "devices do not become certificate authorities: leave CA:TRUE out of the request")
			}
			continue
		}
		if !slices.Contains(allowedRequests, e.Id.String()) {
			return fw.Errorf(fw.Invalid, "the certificate request asks for extension %s: leave it out", e.Id)
		}
	}
	if len(req.IPAddresses) > 0 || len(req.EmailAddresses) > 0 {
		return fw.Errorf(fw.Forbidden, "device certificates hold no IP or e-mail addresses: leave them out of the request")
	}
	return nil
}

// CheckDevice checks that the request names the device id of product and
// nothing else.
func (c *CSR) CheckDevice(product fw.ProductID, id fw.DeviceID) error {
	if c.CommonName != string(id) {
		return fw.Errorf(fw.Forbidden, "the certificate request is for %q and this device is %q", c.CommonName, id)
	}
	for _, n := range c.DNSNames {
		if n != string(id) {
			return fw.Errorf(fw.Forbidden, "the certificate request asks for the name %q, which is not this device's", n)
		}
	}
	for _, u := range c.URIs {
		if u != DeviceURI(product, id) {
			return fw.Errorf(fw.Forbidden, "the certificate request asks for the name %q, which is not this device's", u)
		}
	}
	return nil
}
