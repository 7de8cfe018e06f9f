package pki

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/writ-project/writ/internal/fw"
)

// Defaults of the profiles.
const (
	DefaultDeviceLife  = 90 * 24 * time.Hour
	DefaultRenewBefore = 30 * 24 * time.Hour
	DefaultServerLife  = 90 * 24 * time.Hour
	DefaultCALife      = 10 * 365 * 24 * time.Hour

	// backdate is how far notBefore lies before the issuance, since clocks of
	// devices are behind.
	backdate = 60 * time.Second

	minLife = time.Minute
	maxLife = 30 * 365 * 24 * time.Hour
)

// DeviceProfile is what operators can set about device certificates. The zero
// value is the default.
type DeviceProfile struct {
	Life        time.Duration // 0 means 90 days
	RenewBefore time.Duration // before the end; 0 means a third of Life
}

func (p DeviceProfile) life() time.Duration {
	if p.Life == 0 {
		return DefaultDeviceLife
	}
	return p.Life
}

func (p DeviceProfile) renewBefore() time.Duration {
	if p.RenewBefore == 0 {
		return p.life() / 3
	}
	return p.RenewBefore
}

// ServerProfile is what operators can set about the server's certificate.
type ServerProfile struct {
	Life time.Duration // 0 means 90 days
}

// DeviceURI returns the name of a device in its certificate.
func DeviceURI(product fw.ProductID, id fw.DeviceID) string {
	return deviceURIPrefix + string(product) + ":" + string(id)
}

const deviceURIPrefix = "urn:writ:device:"

// ParseDeviceURI is the inverse of [DeviceURI].
func ParseDeviceURI(uri string) (fw.ProductID, fw.DeviceID, error) {
	bad := fw.Errorf(fw.Invalid, "%q does not name a device", uri)
	rest, ok := strings.CutPrefix(uri, deviceURIPrefix)
	if !ok {
		return "", "", bad
	}
	product, id, ok := strings.Cut(rest, ":")
	if !ok {
		return "", "", bad
	}
	if err := checkNames(fw.ProductID(product), fw.DeviceID(id)); err != nil {
		return "", "", bad
	}
	return fw.ProductID(product), fw.DeviceID(id), nil
}

func checkNames(product fw.ProductID, id fw.DeviceID) error {
	if _, err := fw.ParseName("product", string(product)); err != nil {
		return err
	}
	if strings.Contains(string(product), ":") {
		return fw.Errorf(fw.Invalid, "product %q has a colon and cannot be named in a certificate", product)
	}
	_, err := fw.ParseName("device id", string(id))
	return err
}

// NewSerial returns a positive serial number of 159 random bits: at most 20
// octets (RFC 5280, section 4.1.2.2), and unguessable.
func NewSerial() *big.Int {
	var b [20]byte
	for {
		rand.Read(b[:]) // never fails: crypto/rand.Read, Go 1.24
		b[0] &= 0x7f
		if n := new(big.Int).SetBytes(b[:]); n.Sign() > 0 {
			return n
		}
	}
}

// NewCATemplate returns the template of a self-signed CA that issues device
// and server certificates and no other CAs. A life of 0 means 10 years.
func NewCATemplate(name string, pub crypto.PublicKey, life time.Duration, now time.Time) (*x509.Certificate, error) {
	if name == "" || len(name) > 64 { // ub-common-name, RFC 5280, appendix A.1
		return nil, fw.Errorf(fw.Invalid, "the name of a CA must have 1 to 64 characters, not %d", len(name))
	}
	if life == 0 {
		life = DefaultCALife
	}
	t, err := template(pub, life, now)
	if err != nil {
		return nil, err
	}
	t.Subject = pkix.Name{CommonName: name}
	t.IsCA, t.MaxPathLen, t.MaxPathLenZero = true, 0, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	return t, nil
}

// DeviceTemplate returns the template of a device certificate. The caller has
// checked with [CSR.CheckDevice] that the request is the device's, and it is
// checked again here.
func DeviceTemplate(csr *CSR, p DeviceProfile, product fw.ProductID, id fw.DeviceID, now time.Time) (*x509.Certificate, error) {
	if err := checkNames(product, id); err != nil {
		return nil, err
	}
	if err := csr.CheckDevice(product, id); err != nil {
		return nil, err
	}
	if p.renewBefore() >= p.life() {
		return nil, fw.Errorf(fw.Invalid, "device certificates that live %s cannot be due for renewal %s before their end", p.life(), p.renewBefore())
	}
	t, err := template(csr.PublicKey, p.life(), now)
	if err != nil {
		return nil, err
	}
	uri, err := url.Parse(DeviceURI(product, id))
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "device %q cannot be named in a certificate", id)
	}
	t.RawSubject = csr.RawSubject
	t.URIs = []*url.URL{uri}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return t, nil
}

// ServerTemplate returns the template of a server certificate for names, each
// a DNS name or an IP address.
func ServerTemplate(pub crypto.PublicKey, p ServerProfile, names []string, now time.Time) (*x509.Certificate, error) {
	if len(names) == 0 || len(names) > 100 {
		return nil, fw.Errorf(fw.Invalid, "a server certificate has 1 to 100 names, not %d", len(names))
	}
	life := p.Life
	if life == 0 {
		life = DefaultServerLife
	}
	t, err := template(pub, life, now)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if n == "" || len(n) > 253 || strings.ContainsAny(n, " /*@") {
			return nil, fw.Errorf(fw.Invalid, "%q is neither a DNS name nor an IP address", n)
		}
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	if cn := names[0]; len(cn) <= 64 {
		t.Subject = pkix.Name{CommonName: cn}
	}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	return t, nil
}

// template returns what all certificates have in common.
func template(pub crypto.PublicKey, life time.Duration, now time.Time) (*x509.Certificate, error) {
	if err := CheckKey(pub); err != nil {
		return nil, err
	}
	if life < minLife || life > maxLife {
		return nil, fw.Errorf(fw.Invalid, "the life of a certificate must be %s to %s, not %s", minLife, maxLife, life)
	}
	ski, err := subjectKeyID(pub)
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber:          NewSerial(),
		NotBefore:             now.Add(-backdate).UTC().Truncate(time.Second),
		NotAfter:              now.Add(life).UTC().Truncate(time.Second),
		BasicConstraintsValid: true,
		SubjectKeyId:          ski,
	}, nil
}

// subjectKeyID is the leftmost 160 bits of SHA-256 over the subjectPublicKey
// bits (RFC 7093, section 2, method 1).
func subjectKeyID(pub crypto.PublicKey) ([]byte, error) {
	var bits []byte
	switch k := pub.(type) {
	case ed25519.PublicKey:
		bits = k
	case *ecdsa.PublicKey:
		e, err := ecdhKey(k)
		if err != nil {
			return nil, err
		}
		bits = e.Bytes() // uncompressed point, SEC 1
	}
	sum := sha256.Sum256(bits)
	return sum[:20], nil
}

func ecdhKey(k *ecdsa.PublicKey) (*ecdh.PublicKey, error) {
	e, err := k.ECDH()
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "the public key is not a point on its curve")
	}
	return e, nil
}
