package enroll

import (
	"encoding/json"
	"time"

	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/pki"
	"github.com/writ-project/writ/internal/store"
)

// CertificateStatus is what a stored certificate and the clock say together.
// The zero value is a certificate that is not known, which permits nothing.
type CertificateStatus struct {
	Known     bool
	State     fw.CertState
	NotBefore int64
	NotAfter  int64
	Reason    fw.Reason // why it cannot be used; empty: it can
}

// CertStatus evaluates a row of certificate at now, in Unix seconds; a nil row
// is a certificate that is not on file. Whether the device may do anything is
// another question.
func CertStatus(c *store.Certificate, now int64) CertificateStatus {
	if c == nil {
		return CertificateStatus{Reason: fw.ReasonCertificateUnknown}
	}
	s := CertificateStatus{Known: true, State: c.State, NotBefore: c.NotBefore, NotAfter: c.NotAfter}
	switch c.State {
	case fw.CertIssued, fw.CertActive:
	case fw.CertHeld:
		s.Reason = fw.ReasonCertificateHeld
	case fw.CertSuperseded, fw.CertRevoked:
		s.Reason = fw.ReasonCertificateRevoked
	default:
		s.Reason = fw.ReasonCertificateUnknown
	}
	// The ends of the validity period belong to it (RFC 5280, section 4.1.2.5).
	switch {
	case s.Reason != "":
	case now < c.NotBefore:
		s.Reason = fw.ReasonCertificateNotYet
	case now > c.NotAfter:
		s.Reason = fw.ReasonCertificateExpired
	}
	return s
}

// RenewAt returns from when on c should be renewed, in Unix seconds.
func (d *Devices) RenewAt(c *store.Certificate) int64 {
	before := d.o.Profile.RenewBefore
	if before == 0 {
		before = d.life() / 3 // as pki.DeviceProfile has it
	}
	return time.Unix(c.NotAfter, 0).Add(-before).Unix()
}

func (d *Devices) life() time.Duration {
	if d.o.Profile.Life == 0 {
		return pki.DefaultDeviceLife
	}
	return d.o.Profile.Life
}

// ConfirmCertificate moves a certificate that its device has used for the
// first time from issued to active and supersedes the one before. The caller
// has checked that the peer holds its key. Confirming again does nothing.
func (d *Devices) ConfirmCertificate(tx *store.Tx, c *store.Certificate) error {
	if c.State == fw.CertActive {
		return nil
	}
	if c.State != fw.CertIssued {
		return fw.Errorf(fw.Conflict, "certificate %s is %s and cannot come into use", c.Serial, c.State)
	}
	all, err := store.CertificatesOfDevice(tx, c.Device)
	if err != nil {
		return err
	}
	for i := range all {
		if all[i].State == fw.CertActive {
			if err := d.setCertificate(tx, &all[i], fw.CertSuperseded, certChange{actor: string(c.Device), reason: "certificate " + c.Serial + " is in use"}); err != nil {
				return err
			}
		}
	}
	return d.setCertificate(tx, c, fw.CertActive, certChange{actor: string(c.Device), reason: "first use"})
}

// certChange says why a certificate changes its state.
type certChange struct {
	actor  string
	reason string
	crl    pki.RevocationReason // for a revocation
}

// setCertificate moves c with its record.
func (d *Devices) setCertificate(tx *store.Tx, c *store.Certificate, to fw.CertState, why certChange) error {
	from := c.State
	if !from.CanMove(to) {
		return fw.Errorf(fw.Conflict, "certificate %s is %s and cannot become %s", c.Serial, from, to)
	}
	if err := store.SetCertificateState(tx, c.Serial, from, to); err != nil {
		return err
	}
	if to == fw.CertRevoked || to == fw.CertHeld {
		b, err := json.Marshal(revocation{At: tx.Now().Unix(), Reason: why.crl})
		if err != nil {
			return fw.Wrap(fw.Internal, err, "cannot encode a revocation")
		}
		if err := store.PutSetting(tx, settingRevoked(c.Serial), b); err != nil {
			return err
		}
		tx.OnCommit(func() { d.o.Authority.revocations.Add(1) })
	}
	c.State = to
	d.changed(tx, c.Device)
	return d.append(tx, evidence.TypeCertificateState, why.actor, c.Device, evidence.Certificate{
		Device: c.Device, Serial: c.Serial, From: from, To: to, Reason: why.reason,
	})
}

// revokeCertificates revokes every certificate of a device, superseded and
// expired ones included: whoever has their keys has nothing.
func (d *Devices) revokeCertificates(tx *store.Tx, id fw.DeviceID, why certChange) error {
	all, err := store.CertificatesOfDevice(tx, id)
	if err != nil {
		return err
	}
	for i := range all {
		if all[i].State == fw.CertRevoked {
			continue
		}
		if err := d.setCertificate(tx, &all[i], fw.CertRevoked, why); err != nil {
			return err
		}
	}
	return nil
}
