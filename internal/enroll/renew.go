package enroll

import (
	"bytes"
	"context"
	"time"

	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/store"
)

// maxRenewals bounds how many certificates a device gets within the life of
// one, so that a device in a loop does not fill the log.
const maxRenewals = 8

// Renew issues the next certificate to the holder of the one with the given
// fingerprint, which the TLS layer has seen proved. A quarantined or suspended
// device may renew: neither is a doubt about its identity. The old certificate
// works until the first use of the new one.
func (e *Enrolment) Renew(ctx context.Context, fingerprint fw.Digest, csr []byte) ([][]byte, error) {
	if _, err := certificate(e.d.o.DB.Snapshot(ctx), fingerprint); err != nil {
		return nil, err
	}
	req, err := parseRequest(csr)
	if err != nil {
		return nil, err
	}
	return e.answer(ctx, "renew", func(tx *store.Tx) (reply, error) { return e.renew(tx, fingerprint, req) })
}

func certificate(q store.Queryer, fingerprint fw.Digest) (store.Certificate, error) {
	c, err := store.CertificateByFingerprint(q, fingerprint[:])
	if fw.KindOf(err) == fw.NotFound {
		return c, fw.Wrap(fw.Unauthenticated, err, "this certificate is not on file: enrol the device again")
	}
	return c, err
}

func (e *Enrolment) renew(tx *store.Tx, fingerprint fw.Digest, req *request) (reply, error) {
	c, err := certificate(tx, fingerprint)
	if err != nil {
		return reply{}, err
	}
	row, err := store.DeviceByID(tx, c.Device)
	if err != nil {
		return reply{}, err
	}
	r := reply{device: row.ID, serial: c.Serial}
	if r.no = e.mayRenew(&c, &row, tx.Now().Unix()); r.no != nil {
		return r, nil
	}
	if r.no, err = e.acceptable(tx, &row, req); err != nil || r.no != nil {
		return r, err
	}
	if r.der, err = e.renewed(tx, &c, req); err != nil || r.der != nil {
		return r, err
	}
	// Presenting it here is using it.
	if err := e.d.ConfirmCertificate(tx, &c); err != nil {
		return r, err
	}
	r.der, err = e.issue(tx, &row, req, "renewal of "+c.Serial)
	return r, err
}

// mayRenew returns why the holder of c gets no further one.
func (e *Enrolment) mayRenew(c *store.Certificate, row *store.Device, now int64) *refusal {
	s := CertStatus(c, now)
	grace := int64(e.d.o.RenewGrace / time.Second)
	switch {
	case row.State == fw.DeviceRevoked:
		return refuse(fw.ReasonCertificateRevoked, fw.Forbidden, "device %s is revoked for good", row.ID)
	case !enrolled(row.State):
		return refuse(fw.ReasonLifecycle, fw.Forbidden, "device %s is %s and cannot renew its certificate", row.ID, row.State)
	case s.Reason == fw.ReasonCertificateExpired && now-c.NotAfter > grace:
		return refuse(s.Reason, fw.Forbidden, "this certificate has expired: ask the operator to reopen the enrolment of device %s", row.ID)
	case s.Reason != "" && s.Reason != fw.ReasonCertificateExpired:
		return refuse(s.Reason, fw.Forbidden, "this certificate is %s and cannot be renewed (%s)", c.State, s.Reason)
	}
	return nil
}

// renewed returns the certificate that a repeated request of the holder of old
// was given a moment ago and has not used, and refuses the device that asks
// too often.
func (e *Enrolment) renewed(tx *store.Tx, old *store.Certificate, req *request) ([]byte, error) {
	all, err := store.CertificatesOfDevice(tx, old.Device)
	if err != nil {
		return nil, err
	}
	now := tx.Now().Unix()
	recent := 0
	for i := range all {
		c := &all[i]
		if c.Serial != old.Serial && c.State == fw.CertIssued && bytes.Equal(c.Thumbprint, req.thumb) && now-c.CreatedAt <= int64(RetryWindow.Seconds()) {
			return c.DER, nil
		}
		if now-c.CreatedAt < int64(e.d.life().Seconds()) {
			recent++
		}
	}
	if recent >= maxRenewals {
		return nil, fw.Errorf(fw.TooMany, "device %s was given %d certificates within the life of one: keep the one you have until it is due", old.Device, recent)
	}
	return nil, nil
}
