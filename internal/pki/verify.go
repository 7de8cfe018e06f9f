package pki

import (
	"crypto/x509"
	"encoding/hex"
	"errors"
	"time"

	"github.com/writ-project/writ/internal/fw"
)

// CertStatus is what the clock says about a certificate. It is computed and
// never stored; the decided state is fw.CertState.
type CertStatus string

// Certificate statuses in the order of time.
const (
	CertNotYetValid CertStatus = "not_yet_valid"
	CertValid       CertStatus = "valid"
	CertRenewalDue  CertStatus = "renewal_due" // valid, and the device should renew
	CertExpired     CertStatus = "expired"
)

// Status returns the status of cert at now. It is valid through the second of
// its notAfter (RFC 5280, section 4.1.2.5).
func (p DeviceProfile) Status(notBefore, notAfter, now time.Time) CertStatus {
	switch {
	case now.Before(notBefore):
		return CertNotYetValid
	case now.After(notAfter):
		return CertExpired
	case now.After(notAfter.Add(-p.renewBefore())):
		return CertRenewalDue
	}
	return CertValid
}

// DeviceIdentity is what a verified device certificate says.
type DeviceIdentity struct {
	Product     fw.ProductID
	Device      fw.DeviceID
	Status      CertStatus // must be looked at: an expired certificate verifies
	Fingerprint fw.Digest  // of the certificate, see Fingerprint
	Thumbprint  fw.Digest  // of the key, see Thumbprint
	Serial      string     // hexadecimal
	NotBefore   time.Time
	NotAfter    time.Time
}

// VerifyDevice checks that chain, leaf first, is a device certificate under
// roots, and returns whom it names. Expiry of the leaf is reported in Status;
// that of a CA makes the leaf expired as well.
func VerifyDevice(chain []*x509.Certificate, roots *x509.CertPool, p DeviceProfile, now time.Time) (DeviceIdentity, error) {
	if len(chain) == 0 || len(chain) > 4 {
		return DeviceIdentity{}, fw.Errorf(fw.Unauthenticated, "present a device certificate with at most 3 intermediates, not %d certificates", len(chain))
	}
	leaf := chain[0]
	if roots == nil || leaf.IsCA {
		return DeviceIdentity{}, fw.Errorf(fw.Unauthenticated, "this is not a device certificate of this server")
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	opt := x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		// The path is checked at the time of issuance, when all of it was
		// valid, so that expiry since can be reported as a value.
		CurrentTime: leaf.NotBefore,
	}
	chains, err := leaf.Verify(opt)
	if err != nil {
		if inv, ok := errors.AsType[x509.CertificateInvalidError](err); ok && inv.Reason == x509.Expired {
			return DeviceIdentity{}, fw.Wrap(fw.Unauthenticated, err, "this device certificate is older than its CA")
		}
		return DeviceIdentity{}, fw.Wrap(fw.Unauthenticated, err, "this is not a device certificate of this server: enrol the device again")
	}
	// KeyUsages above accepts certificates without the extension.
	if len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
		return DeviceIdentity{}, fw.Errorf(fw.Unauthenticated, "this certificate is not for TLS clients alone, so it is not a device certificate of this server")
	}
	return identity(leaf, chains[0], p, now)
}

func identity(leaf *x509.Certificate, chain []*x509.Certificate, p DeviceProfile, now time.Time) (DeviceIdentity, error) {
	if len(leaf.URIs) != 1 {
		return DeviceIdentity{}, fw.Errorf(fw.Unauthenticated, "a device certificate has one URI name, this one has %d", len(leaf.URIs))
	}
	product, device, err := ParseDeviceURI(leaf.URIs[0].String())
	if err != nil {
		return DeviceIdentity{}, fw.Wrap(fw.Unauthenticated, err, "the certificate does not name a device")
	}
	thumb, err := Thumbprint(leaf.PublicKey)
	if err != nil {
		return DeviceIdentity{}, fw.Wrap(fw.Unauthenticated, err, "the certificate's key is of a kind that devices do not have")
	}
	id := DeviceIdentity{
		Product: product, Device: device, Fingerprint: Fingerprint(leaf), Thumbprint: thumb,
		Serial: hex.EncodeToString(leaf.SerialNumber.Bytes()), NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
		Status: p.Status(leaf.NotBefore, leaf.NotAfter, now),
	}
	for _, ca := range chain[1:] {
		if now.After(ca.NotAfter) {
			id.Status = CertExpired
		}
	}
	return id, nil
}
