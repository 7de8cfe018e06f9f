package authz

import (
	"encoding/hex"
	"math"

	"github.com/writ-project/writ/internal/fw"
)

// Bounds of an authorization.
const (
	MaxAuthorization = 16 << 10 // bytes, with its receipts
	MaxComponents    = 32
	MaxReceipts      = 4
	// MaxLifetime bounds the time from issue to expiry, in seconds.
	MaxLifetime = 30 * 24 * 3600

	maxVersion = 64 // bytes of a version or format
	maxFormat  = 32
	maxIssuer  = 256
)

// Nonce is the 16 random bytes a device sends with a check-in.
type Nonce [16]byte

// IsZero reports whether n is no nonce.
func (n Nonce) IsZero() bool { return n == Nonce{} }

// MarshalText returns n in hexadecimal.
func (n Nonce) MarshalText() ([]byte, error) {
	if n.IsZero() {
		return nil, nil
	}
	return hex.AppendEncode(nil, n[:]), nil
}

// UnmarshalText reads the hexadecimal form.
func (n *Nonce) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*n = Nonce{}
		return nil
	}
	if len(b) != 2*len(n) {
		return fw.Errorf(fw.Invalid, "a nonce is 32 hexadecimal digits")
	}
	if _, err := hex.Decode(n[:], b); err != nil {
		return fw.Wrap(fw.Invalid, err, "a nonce is 32 hexadecimal digits")
	}
	return nil
}

// Claims is what an authorization says. Labels are those of the CWT registry
// (RFC 8392, section 3.1) and, from -65537 down, private ones. Times are Unix
// seconds, UTC. Fields without a label are in wireClaims.
type Claims struct {
	Issuer     string             `cbor:"1,keyasint" json:"iss"`       // the server's name, for people
	Device     fw.DeviceID        `cbor:"2,keyasint" json:"sub"`       // RFC 8392, section 3.1.2
	Expires    int64              `cbor:"4,keyasint" json:"exp"`       // first second at which it is void
	NotBefore  int64              `cbor:"5,keyasint" json:"nbf"`       // first second at which it may be used
	IssuedAt   int64              `cbor:"6,keyasint" json:"iat"`       //
	ID         fw.AuthorizationID `cbor:"-" json:"cti"`                // 7
	Thumbprint fw.Digest          `cbor:"-" json:"cnf"`                // 8: of the device's key, see Thumbprint
	Nonce      Nonce              `cbor:"10,keyasint" json:"nonce"`    // of the check-in it answers (RFC 9711, section 4.1)
	Sequence   uint64             `cbor:"-65537,keyasint" json:"seq"`  // per device, from 1, strictly increasing
	Campaign   fw.CampaignID      `cbor:"-65538,keyasint" json:"cmp"`  //
	Update     fw.UpdateID        `cbor:"-65539,keyasint" json:"upd"`  //
	Hardware   fw.HardwareID      `cbor:"-65540,keyasint" json:"hw"`   // the device's, as the decision saw it
	Plan       fw.Digest          `cbor:"-65541,keyasint" json:"plan"` // of the approved plan's bytes
	Policy     fw.Digest          `cbor:"-65542,keyasint,omitzero" json:"policy,omitzero"`
	Manifest   fw.Digest          `cbor:"-65543,keyasint" json:"manifest"`    // of the approved release's bytes
	Published  fw.Digest          `cbor:"-65544,keyasint" json:"publication"` // of the publication's bytes
	Rollback   bool               `cbor:"-65545,keyasint,omitzero" json:"rollback,omitzero"`
	Components []Component        `cbor:"-65546,keyasint" json:"components"` // in install order

	// Decision and Commitment name the decision record; CoreDigest leaves
	// them out.
	Decision   uint64    `cbor:"-" json:"decision"`   // -65547: index in the evidence log
	Commitment fw.Digest `cbor:"-" json:"commitment"` // -65548: the record's leaf commitment
}

// Component is one image to install.
type Component struct {
	Name    fw.ComponentName `cbor:"1,keyasint" json:"name"`
	From    fw.Digest        `cbor:"2,keyasint,omitzero" json:"from,omitzero"` // what must be running; absent: the slot is empty
	Release fw.ReleaseID     `cbor:"3,keyasint" json:"release"`
	Version string           `cbor:"4,keyasint" json:"version"`
	Digest  fw.Digest        `cbor:"5,keyasint" json:"digest"` // of the bytes to download
	Size    int64            `cbor:"6,keyasint" json:"size"`   // bytes
	Format  string           `cbor:"7,keyasint" json:"format"`
	// SecurityCounter is the image's anti-rollback counter.
	SecurityCounter uint64    `cbor:"8,keyasint" json:"security_counter"`
	Envelope        fw.Digest `cbor:"9,keyasint,omitzero" json:"envelope,omitzero"` // of the detached signature, if the format has one
}

// wireCore is the claims without the decision, for [CoreDigest].
type wireCore struct {
	Claims

	CTI []byte       `cbor:"7,keyasint"`
	CNF confirmation `cbor:"8,keyasint"`
}

// wireClaims is the claims as signed.
type wireClaims struct {
	wireCore

	Index      uint64    `cbor:"-65547,keyasint"`
	Commitment fw.Digest `cbor:"-65548,keyasint"`
}

// confirmation is the cnf claim (RFC 8747, section 3.1) with the COSE key
// thumbprint method, ckt (RFC 9679, section 5.6).
type confirmation struct {
	Thumbprint fw.Digest `cbor:"5,keyasint"`
}

func (c Claims) core() wireCore {
	return wireCore{Claims: c, CTI: []byte(c.ID), CNF: confirmation{c.Thumbprint}}
}

// Payload is encoded claims, to be signed. Only [Encode] makes one, so that
// nothing else is ever signed as an authorization.
type Payload struct{ b []byte }

// Bytes returns the deterministic CBOR. It must not be changed.
func (p Payload) Bytes() []byte { return p.b }

// Encode checks c and returns its deterministic CBOR.
func Encode(c Claims) (Payload, error) {
	if err := c.check(); err != nil {
		return Payload{}, err
	}
	b, err := encMode.Marshal(wireClaims{wireCore: c.core(), Index: c.Decision, Commitment: c.Commitment})
	return Payload{b}, err
}

// CoreDigest returns the SHA-256 of the deterministic CBOR of the claims
// without decision index and commitment. The decision record holds it. It is
// zero, which matches nothing, for claims that cannot be encoded.
func CoreDigest(c Claims) fw.Digest {
	b, err := encMode.Marshal(c.core())
	if err != nil {
		return fw.Digest{}
	}
	return fw.DigestOf(b)
}

// DecodeClaims reads what Encode wrote, and nothing else.
func DecodeClaims(payload []byte) (Claims, error) {
	var w wireClaims
	if err := unmarshal(payload, &w, MaxAuthorization); err != nil {
		return Claims{}, fw.Wrap(fw.Invalid, err, "malformed claims")
	}
	c := w.Claims
	c.ID, c.Thumbprint = fw.AuthorizationID(w.CTI), w.CNF.Thumbprint
	c.Decision, c.Commitment = w.Index, w.Commitment
	if err := c.check(); err != nil {
		return Claims{}, err
	}
	return c, nil
}

func (c Claims) check() error {
	switch {
	case len(c.Issuer) == 0 || len(c.Issuer) > maxIssuer:
		return fw.Errorf(fw.Invalid, "issuer must be 1 to %d bytes", maxIssuer)
	case c.IssuedAt <= 0 || c.NotBefore <= 0 || c.NotBefore > c.IssuedAt:
		// Not-before is never after issue: a device without a clock relies on
		// it (see ClockNonce).
		return fw.Errorf(fw.Invalid, "an authorization is valid from its issue or earlier")
	case c.Expires <= c.IssuedAt || c.Expires-c.IssuedAt > MaxLifetime:
		return fw.Errorf(fw.Invalid, "an authorization lives 1 to %d seconds", MaxLifetime)
	case c.Thumbprint.IsZero():
		return fw.Errorf(fw.Invalid, "an authorization is bound to a key")
	case c.Nonce.IsZero():
		return fw.Errorf(fw.Invalid, "an authorization answers a nonce")
	case c.Sequence == 0 || c.Sequence > math.MaxInt64:
		return fw.Errorf(fw.Invalid, "sequence numbers are 1 to 2^63-1")
	case c.Plan.IsZero() || c.Manifest.IsZero() || c.Published.IsZero():
		return fw.Errorf(fw.Invalid, "an authorization names its plan, manifest and publication")
	case c.Commitment.IsZero():
		return fw.Errorf(fw.Invalid, "an authorization names its decision record")
	case len(c.Components) == 0 || len(c.Components) > MaxComponents:
		return fw.Errorf(fw.Invalid, "an authorization has 1 to %d components, not %d", MaxComponents, len(c.Components))
	}
	if err := checkNames(
		name{"device id", string(c.Device)}, name{"authorization id", string(c.ID)},
		name{"campaign id", string(c.Campaign)}, name{"update id", string(c.Update)},
		name{"hardware id", string(c.Hardware)},
	); err != nil {
		return err
	}
	seen := make(map[fw.ComponentName]bool, len(c.Components))
	for _, p := range c.Components {
		if seen[p.Name] {
			return fw.Errorf(fw.Invalid, "component %q appears twice", p.Name)
		}
		seen[p.Name] = true
		if err := p.check(); err != nil {
			return err
		}
	}
	return nil
}

func (p Component) check() error {
	switch {
	case p.Digest.IsZero():
		return fw.Errorf(fw.Invalid, "component %q has no digest", p.Name)
	case p.Size <= 0:
		return fw.Errorf(fw.Invalid, "component %q has no size", p.Name)
	case !printable(p.Version, maxVersion) || p.Version == "":
		return fw.Errorf(fw.Invalid, "component %q: a version is 1 to %d printable ASCII characters", p.Name, maxVersion)
	case !printable(p.Format, maxFormat) || p.Format == "":
		return fw.Errorf(fw.Invalid, "component %q: a format is 1 to %d printable ASCII characters", p.Name, maxFormat)
	}
	return checkNames(name{"component name", string(p.Name)}, name{"release id", string(p.Release)})
}

type name struct{ what, value string }

func checkNames(names ...name) error {
	for _, n := range names {
		if _, err := fw.ParseName(n.what, n.value); err != nil {
			return err
		}
	}
	return nil
}

// printable reports whether s is at most n bytes of printable ASCII.
func printable(s string, n int) bool {
	if len(s) > n {
		return false
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
