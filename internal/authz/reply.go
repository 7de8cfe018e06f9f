package authz

import (
	"net/url"
	"strings"

	"github.com/writ-project/writ/internal/fw"
)

// Bounds of a reply.
const (
	MaxReply = 256 << 10 // bytes

	maxArtifacts = 2*MaxComponents + 1
	maxRefused   = 64
	maxPath      = 512
	maxInterval  = 31 * 24 * 3600 // seconds
)

// Action is what the server asks of the device.
type Action string

// Actions.
const (
	ActionNone         Action = "none"
	ActionUpdate       Action = "update"       // Authorization and Artifacts are set
	ActionRenew        Action = "renew"        // renew the certificate now
	ActionDecommission Action = "decommission" // stop checking in, for good
)

// ArtifactKind is what an artifact is.
type ArtifactKind string

// Artifact kinds.
const (
	ArtifactImage    ArtifactKind = "image"
	ArtifactEnvelope ArtifactKind = "envelope" // the detached signature of an image
	// ArtifactStatement is the release statement (docs/formats/statement.md).
	// It is about all components; Component is the first one's.
	ArtifactStatement ArtifactKind = "statement"
)

// Artifact is a file to download for an authorized component. Nothing in it
// is trusted: the authorization has the digest and the size.
type Artifact struct {
	Digest    fw.Digest        `cbor:"1,keyasint" json:"digest"`
	Size      int64            `cbor:"2,keyasint" json:"size"`
	Path      string           `cbor:"3,keyasint" json:"path"` // on the same server, begins with /
	Component fw.ComponentName `cbor:"4,keyasint" json:"component"`
	Kind      ArtifactKind     `cbor:"5,keyasint" json:"kind"`
}

// CheckInReply answers a check-in. It is not signed: the TLS connection vouches for
// it, and nothing in it lets a device install; only the authorization does.
type CheckInReply struct {
	ServerTime    int64       `cbor:"1,keyasint" json:"server_time"`   // Unix seconds
	NextCheckIn   int64       `cbor:"2,keyasint" json:"next_check_in"` // seconds from now, jitter included
	Action        Action      `cbor:"3,keyasint" json:"action"`
	Authorization []byte      `cbor:"4,keyasint,omitempty" json:"authorization,omitempty"` // with its receipt
	Artifacts     []Artifact  `cbor:"5,keyasint,omitempty" json:"artifacts,omitempty"`
	Refused       []fw.Reason `cbor:"6,keyasint,omitempty" json:"refused,omitempty"`      // why no update, for the device's log
	TrustBundle   []byte      `cbor:"7,keyasint,omitempty" json:"trust_bundle,omitempty"` // the version after the one it holds
	RenewBefore   int64       `cbor:"8,keyasint,omitzero" json:"renew_before,omitzero"`   // Unix seconds; renew the certificate by then
	LastReport    uint64      `cbor:"9,keyasint,omitzero" json:"last_report,omitzero"`    // highest report sequence number on file
}

// EncodeCheckInReply checks and encodes a reply.
func EncodeCheckInReply(r CheckInReply) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	b, err := encMode.Marshal(r)
	if err != nil {
		return nil, fw.Wrap(fw.Internal, err, "encoding reply")
	}
	if len(b) > MaxReply {
		return nil, fw.Errorf(fw.TooLarge, "reply is %d bytes, over the limit of %d", len(b), MaxReply)
	}
	return b, nil
}

// DecodeCheckInReply reads a reply in its one encoding.
func DecodeCheckInReply(b []byte) (CheckInReply, error) {
	var r CheckInReply
	if err := unmarshal(b, &r, MaxReply); err != nil {
		return CheckInReply{}, fw.Wrap(fw.Invalid, err, "malformed reply")
	}
	if err := r.check(); err != nil {
		return CheckInReply{}, err
	}
	return r, nil
}

func (r CheckInReply) check() error {
	switch r.Action {
	case ActionNone, ActionRenew, ActionDecommission:
		if len(r.Authorization) > 0 || len(r.Artifacts) > 0 {
			return fw.Errorf(fw.Invalid, "only the action %q comes with an authorization", ActionUpdate)
		}
	case ActionUpdate:
		if len(r.Authorization) == 0 || len(r.Artifacts) == 0 {
			return fw.Errorf(fw.Invalid, "the action %q comes with an authorization and artifacts", ActionUpdate)
		}
	default:
		return fw.Errorf(fw.Invalid, "unknown action %q", r.Action)
	}
	switch {
	case r.ServerTime <= 0:
		return fw.Errorf(fw.Invalid, "a reply has the server's time")
	case r.NextCheckIn < 1 || r.NextCheckIn > maxInterval:
		return fw.Errorf(fw.Invalid, "the next check-in is in 1 to %d seconds", maxInterval)
	case len(r.Authorization) > MaxAuthorization || len(r.TrustBundle) > MaxTrustBundle:
		return fw.Errorf(fw.TooLarge, "authorization or trust bundle is over its limit")
	case len(r.Artifacts) > maxArtifacts || len(r.Refused) > maxRefused:
		return fw.Errorf(fw.TooLarge, "more than %d artifacts or %d reasons", maxArtifacts, maxRefused)
	case r.RenewBefore < 0:
		return fw.Errorf(fw.Invalid, "times are not negative")
	}
	for _, a := range r.Artifacts {
		if err := a.check(); err != nil {
			return err
		}
	}
	for _, why := range r.Refused {
		if err := checkNames(name{"reason", string(why)}); err != nil {
			return err
		}
	}
	return nil
}

func (a Artifact) check() error {
	// The path stays on the server the device has authenticated: no scheme,
	// no host, no "//host".
	u, err := url.Parse(a.Path)
	if err != nil || len(a.Path) > maxPath || !printable(a.Path, maxPath) ||
		!strings.HasPrefix(a.Path, "/") || u.IsAbs() || u.Host != "" {
		return fw.Wrap(fw.Invalid, err, "the path of an artifact is at most %d bytes and begins with one /", maxPath)
	}
	switch {
	case a.Digest.IsZero() || a.Size <= 0:
		return fw.Errorf(fw.Invalid, "an artifact has a digest and a size")
	case a.Kind != ArtifactImage && a.Kind != ArtifactEnvelope && a.Kind != ArtifactStatement:
		return fw.Errorf(fw.Invalid, "unknown artifact kind %q", a.Kind)
	}
	return checkNames(name{"component name", string(a.Component)})
}
