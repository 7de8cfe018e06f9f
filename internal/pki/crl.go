package pki

import (
	"crypto/x509"
	"math/big"
	"time"

	"github.com/writ-project/writ/internal/fw"
)

// RevocationReason is a CRL reason code (RFC 5280, section 5.3.1).
type RevocationReason int

// Reasons used here.
const (
	ReasonUnspecified          RevocationReason = 0 // not encoded: RFC 5280 says absent
	ReasonKeyCompromise        RevocationReason = 1
	ReasonAffiliationChanged   RevocationReason = 3 // new owner
	ReasonSuperseded           RevocationReason = 4
	ReasonCessationOfOperation RevocationReason = 5 // decommissioned
	ReasonCertificateHold      RevocationReason = 6
)

// Revoked is one entry of a revocation list.
type Revoked struct {
	Serial *big.Int
	At     time.Time
	Reason RevocationReason
}

// maxRevoked bounds one list: 49 bytes each makes 4.9 MB.
const maxRevoked = 100_000

// NewCRLTemplate returns the template of a complete revocation list (RFC 5280,
// section 5). number must be larger than that of every list before it.
func NewCRLTemplate(number *big.Int, revoked []Revoked, now, next time.Time) (*x509.RevocationList, error) {
	if number == nil || number.Sign() < 0 || number.BitLen() > 159 { // RFC 5280, section 5.2.3: 20 octets
		return nil, fw.Errorf(fw.Invalid, "the number of a revocation list must be at least 0 and fit 20 octets")
	}
	if !next.After(now) {
		return nil, fw.Errorf(fw.Invalid, "the next revocation list must be due after this one")
	}
	if len(revoked) > maxRevoked {
		return nil, fw.Errorf(fw.TooLarge, "%d revoked certificates are over the limit of %d for one list", len(revoked), maxRevoked)
	}
	t := &x509.RevocationList{Number: number, ThisUpdate: now.UTC().Truncate(time.Second), NextUpdate: next.UTC().Truncate(time.Second)}
	for _, r := range revoked {
		if r.Serial == nil || r.Serial.Sign() <= 0 {
			return nil, fw.Errorf(fw.Invalid, "a revoked certificate has a positive serial number")
		}
		t.RevokedCertificateEntries = append(t.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: r.Serial, RevocationTime: r.At.UTC().Truncate(time.Second), ReasonCode: int(r.Reason),
		})
	}
	return t, nil
}
