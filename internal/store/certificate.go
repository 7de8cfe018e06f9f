package store

import (
	"database/sql"
	"errors"
	"fmt"

	"github.com/writ-project/writ/internal/fw"
)

// Certificate is a row of certificate.
type Certificate struct {
	Serial      string // hexadecimal
	Device      fw.DeviceID
	State       fw.CertState
	Fingerprint []byte // SHA-256 of the DER
	Thumbprint  []byte // RFC 9679 of the key
	NotBefore   int64
	NotAfter    int64
	DER         []byte
	CreatedAt   int64
}

const certificateColumns = "serial, device, state, fingerprint, thumbprint, not_before, not_after, der, created_at"

func scanCertificate(s interface{ Scan(...any) error }) (c Certificate, err error) {
	err = s.Scan(&c.Serial, &c.Device, &c.State, &c.Fingerprint, &c.Thumbprint, &c.NotBefore, &c.NotAfter, &c.DER, &c.CreatedAt)
	return c, err
}

// InsertCertificate adds a certificate.
func InsertCertificate(tx *Tx, c Certificate) error {
	_, err := tx.exec("INSERT INTO certificate ("+certificateColumns+") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
		c.Serial, c.Device, c.State, c.Fingerprint, c.Thumbprint, c.NotBefore, c.NotAfter, c.DER, c.CreatedAt)
	return err
}

// CertificateByFingerprint returns the certificate whose DER has the given
// SHA-256.
func CertificateByFingerprint(q Queryer, fingerprint []byte) (Certificate, error) {
	c, err := scanCertificate(q.queryRow("SELECT "+certificateColumns+" FROM certificate WHERE fingerprint = $1", fingerprint))
	return c, notFound(err, "this certificate was not issued here")
}

// CertificateBySerial returns one certificate.
func CertificateBySerial(q Queryer, serial string) (Certificate, error) {
	c, err := scanCertificate(q.queryRow("SELECT "+certificateColumns+" FROM certificate WHERE serial = $1", serial))
	return c, notFound(err, "there is no certificate with serial %s", serial)
}

// CertificatesOfDevice returns a device's certificates, oldest first.
func CertificatesOfDevice(q Queryer, id fw.DeviceID) ([]Certificate, error) {
	rows, err := q.query("SELECT "+certificateColumns+" FROM certificate WHERE device = $1 ORDER BY created_at, serial", id)
	return collect(rows, err, scanCertificate)
}

// DeviceOfThumbprint returns another device that holds a live certificate for
// the same key, or "".
func DeviceOfThumbprint(q Queryer, thumbprint []byte, not fw.DeviceID) (fw.DeviceID, error) {
	var id fw.DeviceID
	err := q.queryRow("SELECT device FROM certificate WHERE thumbprint = $1 AND device <> $2 LIMIT 1", thumbprint, not).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading certificates by key: %w", err)
	}
	return id, nil
}

// SetCertificateState moves a certificate.
func SetCertificateState(tx *Tx, serial string, from, to fw.CertState) error {
	n, err := tx.exec("UPDATE certificate SET state = $3 WHERE serial = $1 AND state = $2", serial, from, to)
	if err == nil && n != 1 {
		return fw.Errorf(fw.Conflict, "certificate %s is no longer %s: look again", serial, from)
	}
	return err
}

// RevokedCertificates returns every revoked or held certificate that has not
// expired, for a CRL.
func RevokedCertificates(q Queryer, now int64) ([]Certificate, error) {
	rows, err := q.query("SELECT "+certificateColumns+" FROM certificate WHERE state IN ('revoked', 'held') AND not_after > $1 ORDER BY serial", now)
	return collect(rows, err, scanCertificate)
}

// EnrolmentToken is a row of enrolment_token: a one-time right to enrol one
// device. Only its SHA-256 is kept.
type EnrolmentToken struct {
	Hash      []byte
	Device    fw.DeviceID
	CreatedAt int64
	ExpiresAt int64
	UsedAt    int64
}

// InsertEnrolmentToken adds a token.
func InsertEnrolmentToken(tx *Tx, t EnrolmentToken) error {
	_, err := tx.exec("INSERT INTO enrolment_token (hash, device, created_at, expires_at) VALUES ($1, $2, $3, $4)", t.Hash, t.Device, t.CreatedAt, t.ExpiresAt)
	return err
}

// EnrolmentTokenByHash returns one token.
func EnrolmentTokenByHash(q Queryer, hash []byte) (t EnrolmentToken, err error) {
	err = q.queryRow("SELECT hash, device, created_at, expires_at, used_at FROM enrolment_token WHERE hash = $1", hash).
		Scan(&t.Hash, &t.Device, &t.CreatedAt, &t.ExpiresAt, &t.UsedAt)
	return t, notFound(err, "this enrolment token is not known: ask for a new one with writ device token")
}

// UseEnrolmentToken marks a token used and reports whether it was unused.
func UseEnrolmentToken(tx *Tx, hash []byte) (bool, error) {
	n, err := tx.exec("UPDATE enrolment_token SET used_at = $2 WHERE hash = $1 AND used_at = 0", hash, tx.now.Unix())
	return n == 1, err
}

// Identity is a certificate with its device.
type Identity struct {
	Certificate Certificate
	Device      Device
	LastReport  int64 // highest report sequence of the device; 0: none
}

// IdentityByFingerprint returns the certificate whose DER has the given
// SHA-256, and its device, in one read: every check-in and report begins here.
func IdentityByFingerprint(q Queryer, fingerprint []byte) (Identity, error) {
	var i Identity
	c, d := &i.Certificate, &i.Device
	var out int64
	err := q.queryRow(`SELECT c.serial, c.device, c.state, c.fingerprint, c.thumbprint, c.not_before, c.not_after, c.created_at,
		d.id, d.product, d.hardware, d.state, d.state_reason, d.attributes, d.facts, d.facts_digest, d.opted_out, d.postponed_until, d.integrity, d.authorization_seq, d.clean_since, d.state_at, d.created_at,
		(SELECT COALESCE(MAX(seq), 0) FROM device_report r WHERE r.device = c.device)
		FROM certificate c JOIN device d ON d.id = c.device WHERE c.fingerprint = $1`, fingerprint).Scan(
		&c.Serial, &c.Device, &c.State, &c.Fingerprint, &c.Thumbprint, &c.NotBefore, &c.NotAfter, &c.CreatedAt,
		&d.ID, &d.Product, &d.Hardware, &d.State, &d.StateReason, &d.Attributes, &d.Facts, &d.FactsDigest, &out, &d.PostponedUntil, &d.Integrity, &d.AuthSeq, &d.CleanSince, &d.StateAt, &d.CreatedAt, &i.LastReport)
	d.OptedOut = out != 0
	return i, notFound(err, "this certificate was not issued here")
}
