package enroll

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"maps"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/pki"
	"github.com/writ-project/writ/internal/store"
)

// Options configure [Devices].
type Options struct {
	DB        *store.DB
	Ledger    *ledger.Ledger
	Authority *Authority
	Profile   pki.DeviceProfile // of device certificates

	// RenewGrace is for how long after its end a certificate may still be
	// renewed. 0: not at all.
	RenewGrace time.Duration

	// Count counts the valid approvals of exactly doc by people other than the
	// proposer, under the newest roster, whose digest it returns too. Without
	// it no device leaves quarantine.
	Count func(q store.Queryer, doc []byte, need int, proposer fw.PersonID) (approval.Result, fw.Digest, error)

	// Changed is called after a commit that changed what a device may do.
	Changed func(fw.DeviceID)
}

// Devices is the register of devices. It is safe for concurrent use.
type Devices struct{ o Options }

// New returns the register.
func New(o Options) *Devices { return &Devices{o} }

// CA returns the certificate of the device CA.
func (d *Devices) CA() *x509.Certificate { return d.o.Authority.CA() }

// changed has caches drop the device once tx is committed.
func (d *Devices) changed(tx *store.Tx, id fw.DeviceID) {
	if d.o.Changed != nil {
		tx.OnCommit(func() { d.o.Changed(id) })
	}
}

func (d *Devices) append(tx *store.Tx, t evidence.Type, actor string, id fw.DeviceID, data any) error {
	_, err := d.o.Ledger.Append(tx, ledger.Entry{Type: t, Actor: actor, Streams: []evidence.StreamID{evidence.DeviceStream(id)}, Data: data})
	return err
}

// SetAttributes replaces the operators' attributes of a device. Attributes
// select cohorts and feed policy conditions; they are no claim of the device.
func (d *Devices) SetAttributes(ctx context.Context, id fw.DeviceID, attributes map[string]string, actor fw.PersonID) error {
	text, err := encodeAttributes(attributes)
	if err != nil {
		return err
	}
	return d.o.DB.Tx(ctx, func(tx *store.Tx) error {
		row, err := store.DeviceByID(tx, id)
		if err != nil {
			return err
		}
		if row.State.Final() {
			return fw.Errorf(fw.Conflict, "device %s is %s for good and cannot be changed", id, row.State)
		}
		if row.Attributes == text {
			return nil
		}
		if err := store.SetDeviceAttributes(tx, id, text); err != nil {
			return err
		}
		d.changed(tx, id)
		return d.append(tx, evidence.TypeDeviceAttributes, string(actor), id, evidence.Attributes{Device: id, Attributes: maps.Clone(attributes)})
	})
}

// Bounds of attributes.
const (
	maxAttributes     = 64
	maxAttributeValue = 256 // bytes
)

// encodeAttributes checks attributes and returns them as a JSON object with
// its members in order, so that equal attributes have equal texts.
func encodeAttributes(m map[string]string) (string, error) {
	if len(m) == 0 {
		return "{}", nil
	}
	if len(m) > maxAttributes {
		return "", fw.Errorf(fw.TooLarge, "%d attributes are over the limit of %d", len(m), maxAttributes)
	}
	for k, v := range m {
		if _, err := fw.ParseName("attribute name", k); err != nil {
			return "", err
		}
		if len(v) > maxAttributeValue || !printable(v) {
			return "", fw.Errorf(fw.Invalid, "attribute %s must be text of at most %d bytes without control characters", k, maxAttributeValue)
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		return "", fw.Wrap(fw.Internal, err, "cannot encode the attributes")
	}
	return string(b), nil
}

// printable reports whether s is UTF-8 without control characters.
func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// checkText checks a reason that a person gave.
func checkText(what, s string) error {
	if strings.TrimSpace(s) == "" || len(s) > maxText || !printable(s) {
		return fw.Errorf(fw.Invalid, "give %s of 1 to %d bytes on one line", what, maxText)
	}
	return nil
}
