package authz

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"math"
	"unicode/utf8"

	"github.com/writ-project/writ/internal/fw"
)

// Bounds of a report.
const (
	MaxReport = 8 << 10 // bytes

	maxDetail = 512 // bytes of detail text
	maxReason = 64
	maxSlot   = 32
)

// BootID is 16 bytes that a device chooses anew at each start.
type BootID [16]byte

// IsZero reports whether b is no boot id.
func (b BootID) IsZero() bool { return b == BootID{} }

// MarshalText returns b in hexadecimal.
func (b BootID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, b[:]), nil }

// UnmarshalText reads the hexadecimal form.
func (b *BootID) UnmarshalText(text []byte) error {
	if len(text) != 2*len(b) {
		return fw.Errorf(fw.Invalid, "a boot id is 32 hexadecimal digits")
	}
	if _, err := hex.Decode(b[:], text); err != nil {
		return fw.Wrap(fw.Invalid, err, "a boot id is 32 hexadecimal digits")
	}
	return nil
}

// Report is what a device says happened, signed by its own key. Sequence and
// Boot identify it: the server keeps one report for each sequence number of a
// device, so that sending it again changes nothing.
type Report struct {
	Device        fw.DeviceID         `cbor:"1,keyasint" json:"iss"`
	Time          int64               `cbor:"6,keyasint,omitzero" json:"iat,omitzero"`    // device clock, Unix seconds; believed by nobody; 0: no clock
	Nonce         Nonce               `cbor:"10,keyasint,omitzero" json:"nonce,omitzero"` // of the check-in that was answered
	Sequence      uint64              `cbor:"-65561,keyasint" json:"seq"`                 // of reports of this device, from 1, strictly increasing over restarts
	Boot          BootID              `cbor:"-65562,keyasint" json:"boot"`
	Authorization fw.AuthorizationID  `cbor:"-65563,keyasint,omitzero" json:"authorization,omitzero"` // absent if rejected before one was read
	Update        fw.UpdateID         `cbor:"-65564,keyasint,omitzero" json:"update,omitzero"`
	Event         fw.ReportEvent      `cbor:"-65565,keyasint" json:"event"`
	Components    []ReportedComponent `cbor:"-65566,keyasint,omitempty" json:"components,omitempty"` // what runs now
	Reason        fw.Reason           `cbor:"-65567,keyasint,omitzero" json:"reason,omitzero"`       // of a failure, rejection or rollback
	Detail        string              `cbor:"-65568,keyasint,omitzero" json:"detail,omitzero"`       // for people, at most 512 bytes
}

// ReportedComponent is what a device says it runs in one component.
type ReportedComponent struct {
	Name            fw.ComponentName `cbor:"1,keyasint" json:"name"`
	Version         string           `cbor:"2,keyasint,omitzero" json:"version,omitzero"`
	Digest          fw.Digest        `cbor:"3,keyasint,omitzero" json:"digest,omitzero"` // of the running image's bytes as downloaded; absent: nothing installed
	SecurityCounter uint64           `cbor:"4,keyasint,omitzero" json:"security_counter,omitzero"`
	Slot            string           `cbor:"5,keyasint,omitzero" json:"slot,omitzero"` // "a", "b"
}

// SignedReport is a decoded report. Decoding checks form, not signature.
type SignedReport struct {
	Report Report
	KeyID  fw.Digest // kid: the key that says it signed

	msg  sign1
	head protected
}

// SignReport encodes and signs a report with the device's key, Ed25519 or P-256.
func SignReport(r Report, key crypto.Signer) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	payload, err := encMode.Marshal(r)
	if err != nil {
		return nil, fw.Wrap(fw.Internal, err, "encoding report")
	}
	b, err := signMessage(payload, key, TypeReport)
	if err != nil {
		return nil, err
	}
	if len(b) > MaxReport {
		return nil, fw.Errorf(fw.TooLarge, "report is %d bytes, over the limit of %d", len(b), MaxReport)
	}
	return b, nil
}

// DecodeReport reads a signed report in its one encoding.
func DecodeReport(b []byte) (*SignedReport, error) {
	m, h, err := decodeSign1(b, TypeReport, MaxReport)
	if err != nil {
		return nil, err
	}
	if len(m.Unprotected.Receipts) > 0 {
		return nil, fw.Errorf(fw.Invalid, "a report carries no receipts")
	}
	var r Report
	if err := unmarshal(m.Payload, &r, MaxReport); err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "malformed report")
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	return &SignedReport{Report: r, KeyID: h.Kid, msg: m, head: h}, nil
}

// VerifyReport decodes a report and checks that pub signed it.
func VerifyReport(b []byte, pub crypto.PublicKey) (Report, error) {
	s, err := DecodeReport(b)
	if err != nil {
		return Report{}, err
	}
	if err := s.Verify(pub); err != nil {
		return Report{}, err
	}
	return s.Report, nil
}

// Verify checks the signature with the device's key.
func (s *SignedReport) Verify(pub crypto.PublicKey) error { return verifySign1(s.msg, s.head, pub) }

// Payload returns the signed bytes as they were received.
func (s *SignedReport) Payload() []byte { return bytes.Clone(s.msg.Payload) }

func (r Report) check() error {
	if err := checkNames(name{"device id", string(r.Device)}); err != nil {
		return err
	}
	for _, n := range []name{{"authorization id", string(r.Authorization)}, {"update id", string(r.Update)}, {"reason", string(r.Reason)}} {
		if n.value == "" {
			continue
		}
		if err := checkNames(n); err != nil {
			return err
		}
	}
	_, known := r.Event.State()
	bad := r.Event == fw.EventFailed || r.Event == fw.EventRejected || r.Event == fw.EventRolledBack
	running := r.Event == fw.EventInstalled || r.Event == fw.EventConfirmed || r.Event == fw.EventRolledBack
	switch {
	case !known:
		return fw.Errorf(fw.Invalid, "unknown report event %q", r.Event)
	case r.Sequence == 0 || r.Sequence > math.MaxInt64:
		return fw.Errorf(fw.Invalid, "report sequence numbers are 1 to 2^63-1")
	case r.Boot.IsZero():
		return fw.Errorf(fw.Invalid, "a report names the boot it was made in")
	case r.Time < 0:
		return fw.Errorf(fw.Invalid, "report time is negative")
	case bad && r.Reason == "":
		return fw.Errorf(fw.Invalid, "a report of %q gives a reason", r.Event)
	case running && len(r.Components) == 0:
		return fw.Errorf(fw.Invalid, "a report of %q says what is running", r.Event)
	case r.Event != fw.EventRejected && (r.Authorization == "" || r.Update == ""):
		return fw.Errorf(fw.Invalid, "a report of %q names its authorization and update", r.Event)
	case len(r.Detail) > maxDetail || !utf8.ValidString(r.Detail):
		return fw.Errorf(fw.Invalid, "report detail is at most %d bytes of UTF-8", maxDetail)
	}
	return checkReported(r.Components)
}

func checkReported(components []ReportedComponent) error {
	if len(components) > MaxComponents {
		return fw.Errorf(fw.TooLarge, "%d components, at most %d", len(components), MaxComponents)
	}
	for i, c := range components {
		if err := checkNames(name{"component name", string(c.Name)}); err != nil {
			return err
		}
		for _, other := range components[:i] {
			if other.Name == c.Name {
				return fw.Errorf(fw.Invalid, "component %q appears twice", c.Name)
			}
		}
		if !printable(c.Version, maxVersion) || !printable(c.Slot, maxSlot) {
			return fw.Errorf(fw.Invalid, "component %q: version and slot are printable ASCII of at most %d and %d bytes", c.Name, maxVersion, maxSlot)
		}
	}
	return nil
}
