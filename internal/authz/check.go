package authz

import (
	"fmt"
	"slices"
	"strings"

	"github.com/writ-project/writ/internal/fw"
)

// Verdict is the result of a check on the device. The zero Verdict rejects.
type Verdict struct {
	Reason fw.Reason // why not; "" if accepted
	Detail string    // for people, at most 512 bytes; never shows more than both sides know

	accepted bool
}

// OK reports whether the check accepted.
func (v Verdict) OK() bool { return v.accepted }

// String returns "accepted", or the reason and the detail.
func (v Verdict) String() string {
	if v.accepted {
		return "accepted"
	}
	return string(v.Reason) + ": " + v.Detail
}

func accept() Verdict { return Verdict{accepted: true} }

func reject(r fw.Reason, format string, args ...any) Verdict {
	d := fmt.Sprintf(format, args...)
	return Verdict{Reason: r, Detail: strings.ToValidUTF8(d[:min(len(d), maxDetail)], "")}
}

// Clock says what a device knows of the time. The zero Clock knows nothing,
// and nothing is accepted under it.
type Clock string

// Kinds of clock.
const (
	// ClockTrusted: DeviceState.Now is right to within a minute.
	ClockTrusted Clock = "trusted"
	// ClockNonce: only DeviceState.SinceNonce is known. An authorization
	// that holds the nonce was issued after the nonce was sent, so the time
	// now is at most issued-at plus the seconds since, and the expiry can be
	// checked without a clock. Unlike a trusted clock, this believes the
	// signer's issued-at.
	ClockNonce Clock = "nonce"
)

// clockSkew is by how many seconds the device's clock may be behind the
// server's. Expiry has no such allowance.
const clockSkew = 60

// DeviceState is what the device knows of itself at the moment of the check.
type DeviceState struct {
	DeviceID     fw.DeviceID
	Thumbprint   fw.Digest // of its own key, see Thumbprint
	Hardware     fw.HardwareID
	Nonce        Nonce  // sent in the check-in that was answered; zero: none outstanding
	LastSequence uint64 // of the last authorization accepted; kept over restarts
	Clock        Clock
	Now          int64 // Unix seconds, with ClockTrusted
	SinceNonce   int64 // seconds since Nonce was sent, with ClockNonce; negative: unknown
	Trust        *TrustBundle
	Components   []DeviceComponent
}

// DeviceComponent is what a device runs in one of its components.
type DeviceComponent struct {
	Name            fw.ComponentName `json:"name"`
	Version         string           `json:"version,omitempty"`
	Digest          fw.Digest        `json:"digest,omitzero"`            // of the running image's bytes as downloaded; zero: nothing installed
	SecurityCounter uint64           `json:"security_counter,omitempty"` // of the running image
	SecurityFloor   uint64           `json:"security_floor,omitempty"`   // fused or otherwise protected minimum
}

// ReceiptCheck verifies a COSE receipt (RFC 9942): that commitment is at index
// in the log. keys are the log keys of the trust bundle.
type ReceiptCheck func(receipt []byte, commitment fw.Digest, index uint64, keys []LogKey) error

// Open decodes and checks an authorization as it arrived. Nothing at all is
// rejected as "no_authorization": correctly signed firmware alone does not
// install.
func Open(b []byte, d DeviceState, receipts ReceiptCheck) (*Authorization, Verdict) {
	if len(b) == 0 {
		return nil, reject(fw.RejectNoAuthorization, "there is no authorization for this")
	}
	a, err := Decode(b)
	if err != nil {
		return nil, reject(fw.RejectMalformed, "%v", err)
	}
	return a, Check(a, d, receipts)
}

// Check says whether the device d may act on a. The checks run in this order
// and the first that fails gives the reason: trust bundle, key, signature,
// subject, key binding, sequence, nonce, expiry, not-before, receipt,
// hardware, then for each component the running digest, the security counter
// and the version. A replayed authorization is thus "replayed_sequence", an
// unused one that answers another check-in is "nonce".
//
// The caller stores the sequence number and the authorization in one durable
// write before it acts; after a restart it uses [Recheck].
func Check(a *Authorization, d DeviceState, receipts ReceiptCheck) Verdict {
	return check(a, d, receipts, freshMatch)
}

// Recheck checks an authorization that this device has accepted and stored
// before, when an interrupted update goes on. It differs from [Check] in the
// sequence number, which must be the last one accepted, and in the nonce, of
// which it asks nothing.
func Recheck(a *Authorization, d DeviceState, receipts ReceiptCheck) Verdict {
	return check(a, d, receipts, storedMatch)
}

func check(a *Authorization, d DeviceState, receipts ReceiptCheck, match func(Claims, DeviceState) Verdict) Verdict {
	if a == nil {
		return reject(fw.RejectNoAuthorization, "there is no authorization for this")
	}
	steps := []func() Verdict{
		func() Verdict { return checkSignature(a, d) },
		func() Verdict { return checkBinding(a.Claims, d) },
		func() Verdict { return match(a.Claims, d) },
		func() Verdict { return checkTime(a.Claims, d) },
		func() Verdict { return checkReceipts(a, d, receipts) },
		func() Verdict { return checkComponents(a.Claims, d) },
	}
	for _, step := range steps {
		if v := step(); !v.OK() {
			return v
		}
	}
	return accept()
}

func checkSignature(a *Authorization, d DeviceState) Verdict {
	if d.Trust == nil {
		return reject(fw.RejectTrustBundle, "this device has no trust bundle")
	}
	at := a.Claims.IssuedAt
	if d.Clock == ClockTrusted {
		at = d.Now
	}
	pub, ok := d.Trust.AuthorizationKey(a.KeyID, at)
	if !ok {
		return reject(fw.RejectUnknownKey, "trust bundle %d has no authorization key %s valid at %d", d.Trust.Version(), a.KeyID.Hex(), at)
	}
	if err := a.Verify(pub); err != nil {
		return reject(fw.RejectSignature, "the signature does not verify under key %s", a.KeyID.Hex())
	}
	return accept()
}

func checkBinding(c Claims, d DeviceState) Verdict {
	switch {
	case d.DeviceID == "" || c.Device != d.DeviceID:
		return reject(fw.RejectSubject, "it is for device %s, this is %s", c.Device, d.DeviceID)
	case d.Thumbprint.IsZero() || c.Thumbprint != d.Thumbprint:
		return reject(fw.RejectKeyBinding, "it is bound to key %s, this device has %s", c.Thumbprint.Hex(), d.Thumbprint.Hex())
	}
	return accept()
}

func freshMatch(c Claims, d DeviceState) Verdict {
	switch {
	case c.Sequence <= d.LastSequence:
		return reject(fw.RejectSequence, "its sequence number is %d, the last one accepted was %d", c.Sequence, d.LastSequence)
	case d.Nonce.IsZero():
		return reject(fw.RejectNonce, "no check-in is waiting for an answer")
	case c.Nonce != d.Nonce:
		return reject(fw.RejectNonce, "it answers another check-in")
	}
	return accept()
}

func storedMatch(c Claims, d DeviceState) Verdict {
	if c.Sequence != d.LastSequence {
		return reject(fw.RejectSequence, "its sequence number is %d, the last one accepted was %d", c.Sequence, d.LastSequence)
	}
	return accept()
}

func checkTime(c Claims, d DeviceState) Verdict {
	switch d.Clock {
	case ClockTrusted:
		switch {
		case d.Now >= c.Expires:
			return reject(fw.RejectExpired, "it expired at %d, now is %d", c.Expires, d.Now)
		case d.Now < c.NotBefore-clockSkew:
			return reject(fw.RejectNotYetValid, "it is valid from %d, now is %d", c.NotBefore, d.Now)
		}
		return accept()
	case ClockNonce:
		// Claims.check holds not-before <= issued-at, so it has begun.
		if d.SinceNonce < 0 || d.SinceNonce >= c.Expires-c.IssuedAt {
			return reject(fw.RejectExpired, "it lives %d seconds and may be older", c.Expires-c.IssuedAt)
		}
		return accept()
	}
	return reject(fw.RejectExpired, "this device does not know whether it has expired")
}

func checkReceipts(a *Authorization, d DeviceState, receipts ReceiptCheck) Verdict {
	if receipts == nil {
		return reject(fw.RejectReceipt, "this device cannot check receipts")
	}
	if len(a.Receipts) == 0 {
		return reject(fw.RejectReceipt, "it carries no receipt of its decision")
	}
	keys := d.Trust.LogKeys()
	var err error
	for _, r := range a.Receipts {
		if err = receipts(r, a.Claims.Commitment, a.Claims.Decision, keys); err == nil {
			return accept()
		}
	}
	return reject(fw.RejectReceipt, "no receipt proves decision %d: %v", a.Claims.Decision, err)
}

func checkComponents(c Claims, d DeviceState) Verdict {
	if d.Hardware == "" || c.Hardware != d.Hardware {
		return reject(fw.RejectHardware, "it is for hardware %s, this is %s", c.Hardware, d.Hardware)
	}
	for _, p := range c.Components {
		i := slices.IndexFunc(d.Components, func(r DeviceComponent) bool { return r.Name == p.Name })
		if i < 0 {
			return reject(fw.RejectFromDigest, "this device has no component %s", p.Name)
		}
		if v := checkComponent(p, d.Components[i], c.Rollback); !v.OK() {
			return v
		}
	}
	return accept()
}

func checkComponent(p Component, running DeviceComponent, rollback bool) Verdict {
	switch {
	case p.From != running.Digest:
		return reject(fw.RejectFromDigest, "component %s: it is for a device that runs %s, this runs %s", p.Name, p.From, running.Digest)
	case p.SecurityCounter < running.SecurityFloor:
		// The floor holds whatever the authorization says, rollback included.
		return reject(fw.RejectSecurityCounter, "component %s: security counter %d is below the floor %d", p.Name, p.SecurityCounter, running.SecurityFloor)
	case rollback || running.Digest.IsZero():
		return accept()
	case p.SecurityCounter < running.SecurityCounter:
		return reject(fw.RejectSecurityCounter, "component %s: security counter %d is below the running %d", p.Name, p.SecurityCounter, running.SecurityCounter)
	}
	order, err := compareVersions(p.Version, running.Version)
	if err != nil {
		return reject(fw.RejectDowngrade, "component %s: %v, so it cannot be told whether %s is older than %s", p.Name, err, p.Version, running.Version)
	}
	if order < 0 {
		return reject(fw.RejectDowngrade, "component %s: %s is older than the running %s and this is no rollback", p.Name, p.Version, running.Version)
	}
	return accept()
}

// ImageInfo is what a device found out about downloaded bytes.
type ImageInfo struct {
	Size     int64
	Digest   fw.Digest // SHA-256 of every byte
	Envelope fw.Digest // SHA-256 of the detached signature that was verified, if the format has one
	// SignedBy is the id of the key whose signature over the image verified;
	// zero if none did. The check still asks the trust bundle whether that
	// key may sign images.
	SignedBy fw.Digest

	Format          string
	Version         string
	SecurityCounter *uint64 // nil: the image has none
	// Hardware lists what the image is bound to; empty: the format binds it
	// to nothing. The caller translates ids a format stores hashed.
	Hardware []fw.HardwareID
}

// CheckImage says whether downloaded bytes are what the authorization's
// component p allows on device d. Nothing is written to a slot that boots
// before it accepts.
func CheckImage(p Component, i ImageInfo, d DeviceState) Verdict {
	counter := uint64(0)
	if i.SecurityCounter != nil {
		counter = *i.SecurityCounter
	}
	switch {
	case p.Size <= 0 || i.Size != p.Size:
		return reject(fw.RejectImageSize, "component %s: %d bytes, authorized are %d", p.Name, i.Size, p.Size)
	case p.Digest.IsZero() || i.Digest != p.Digest:
		return reject(fw.RejectImageDigest, "component %s: digest is %s, authorized is %s", p.Name, i.Digest, p.Digest)
	case d.Trust == nil:
		return reject(fw.RejectTrustBundle, "this device has no trust bundle")
	case i.Format != p.Format:
		return reject(fw.RejectImageFormat, "component %s: format is %q, authorized is %q", p.Name, i.Format, p.Format)
	case i.SignedBy.IsZero() || i.Envelope != p.Envelope || !d.trustsImageKey(i.SignedBy):
		return reject(fw.RejectImageSignature, "component %s: it is not signed by an image key of trust bundle %d", p.Name, d.Trust.Version())
	case i.Version != p.Version:
		return reject(fw.RejectImageVersion, "component %s: version is %q, authorized is %q", p.Name, i.Version, p.Version)
	case len(i.Hardware) > 0 && !slices.Contains(i.Hardware, d.Hardware):
		return reject(fw.RejectHardware, "component %s: it is for hardware %v, this is %s", p.Name, i.Hardware, d.Hardware)
	case counter != p.SecurityCounter:
		return reject(fw.RejectSecurityCounter, "component %s: security counter is %d, authorized is %d", p.Name, counter, p.SecurityCounter)
	}
	return accept()
}

// trustsImageKey reports whether the key may sign images, now if the device
// knows when that is.
func (d DeviceState) trustsImageKey(id fw.Digest) bool {
	return slices.ContainsFunc(d.Trust.image, func(k trustedKey) bool {
		return k.ID == id && (d.Clock != ClockTrusted || k.validAt(d.Now))
	})
}
