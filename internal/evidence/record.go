package evidence

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strconv"

	"github.com/writ-project/writ/internal/fw"
)

// Type says what a record claims. The list is closed; a type never changes
// meaning.
type Type string

// Record types, with the streams each belongs to.
const (
	TypeServerStarted      Type = "server_started"      // log
	TypeKeyCreated         Type = "key_created"         // key
	TypePersonAdded        Type = "person_added"        // operator
	TypePersonDisabled     Type = "person_disabled"     // operator
	TypeTokenCreated       Type = "token_created"       // operator
	TypeTokenRevoked       Type = "token_revoked"       // operator
	TypeRoster             Type = "roster"              // log: a new roster of approvers
	TypeTrustBundle        Type = "trust_bundle"        // log: a new device trust bundle
	TypeProductCreated     Type = "product_created"     // product
	TypePolicyCreated      Type = "policy_created"      // policy
	TypeDeviceRegistered   Type = "device_registered"   // device
	TypeDeviceAttributes   Type = "device_attributes"   // device
	TypeEnrolmentToken     Type = "enrolment_token"     // device: a one-time token was made
	TypeLifecycleRequested Type = "lifecycle_requested" // device: somebody asks for more trust
	TypeDeviceState        Type = "device_state"        // device
	TypeCertificateIssued  Type = "certificate_issued"  // device
	TypeCertificateState   Type = "certificate_state"   // device
	TypeKeyUse             Type = "key_use"             // key, and the subject's: the allowing decision behind a permit
	TypeReleaseProposed    Type = "release_proposed"    // release
	TypeApproval           Type = "approval"            // the subject's
	TypeReleaseSigned      Type = "release_signed"      // release, key: one image
	TypeReleasePublished   Type = "release_published"   // release
	TypeReleaseWithdrawn   Type = "release_withdrawn"   // release
	TypeCampaignProposed   Type = "campaign_proposed"   // campaign, release
	TypeCampaignEvent      Type = "campaign_event"      // campaign, release: an event no device caused
	TypeDecision           Type = "decision"            // device, campaign: allow or deny, re-executable
	TypeReport             Type = "report"              // device, campaign: what a device says happened
	TypeUpdateMoved        Type = "update_moved"        // device, campaign: the server moved an update itself
	TypeIntegrity          Type = "integrity"           // device: something tried to be what it is not
	TypeAccessDenied       Type = "access_denied"       // device: a known device was turned away
	TypeRefusalSummary     Type = "refusal_summary"     // log: unauthenticated refusals, counted
	TypeEpoch              Type = "epoch"               // log
	TypeErased             Type = "erased"              // log, and the erased record's
)

// Version is the version of the record format.
const Version = 1

// MaxRecord bounds the encoded size of a record. It keeps the record within
// the 64 KiB that C2SP tlog-tiles allows an entry, with room to spare.
const MaxRecord = 48 << 10

// maxStreams bounds the streams of one record.
const maxStreams = 8

// StreamID names the stream of records about one subject: a kind, a slash and
// the subject's id.
type StreamID string

// LogStream is the stream about the log and the server themselves.
const LogStream StreamID = "log"

// Stream ids of each kind of subject.
func DeviceStream(id fw.DeviceID) StreamID     { return StreamID("device/" + id) }
func ReleaseStream(id fw.ReleaseID) StreamID   { return StreamID("release/" + id) }
func CampaignStream(id fw.CampaignID) StreamID { return StreamID("campaign/" + id) }
func ProductStream(id fw.ProductID) StreamID   { return StreamID("product/" + id) }
func KeyStream(name fw.KeyName) StreamID       { return StreamID("key/" + name) }
func OperatorStream(id fw.PersonID) StreamID   { return StreamID("operator/" + id) }
func PolicyStream(d fw.Digest) StreamID        { return StreamID("policy/" + d.Hex()) }

// Commitment is the SHA-256 that stands for a record in the log. Its text form
// is 64 hexadecimal digits, or empty for the zero value, which is none.
type Commitment [sha256.Size]byte

// IsZero reports whether c is none.
func (c Commitment) IsZero() bool { return c == Commitment{} }

// MarshalText implements encoding.TextMarshaler.
func (c Commitment) MarshalText() ([]byte, error) {
	if c.IsZero() {
		return nil, nil
	}
	return hex.AppendEncode(nil, c[:]), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Commitment) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*c = Commitment{}
		return nil
	}
	if len(b) != 2*len(c) {
		return fw.Errorf(fw.Invalid, "a commitment is 64 hexadecimal digits, not %d characters", len(b))
	}
	if _, err := hex.Decode(c[:], b); err != nil {
		return fw.Errorf(fw.Invalid, "a commitment is 64 hexadecimal digits")
	}
	return nil
}

// Salt makes a commitment say nothing about its record.
type Salt [32]byte

// NewSalt returns 32 random bytes.
func NewSalt() Salt {
	var s Salt
	rand.Read(s[:]) // never fails
	return s
}

// commitTag separates these hashes from every other use of SHA-256.
const commitTag = "writ-evidence/v1\x00"

// Commit returns the commitment to a record's bytes.
func Commit(salt Salt, body []byte) Commitment {
	h := sha256.New()
	h.Write([]byte(commitTag))
	h.Write(salt[:])
	h.Write(body)
	return Commitment(h.Sum(nil))
}

// Link places a record in one stream: N counts from 1, and Prev is the
// commitment of number N-1, none for the first.
type Link struct {
	Stream StreamID   `json:"s"`
	N      int64      `json:"n"`
	Prev   Commitment `json:"p,omitzero"`
}

// Record is one fact. Data is a JSON object whose form the type defines.
type Record struct {
	V       int             `json:"v"` // Version
	Index   int64           `json:"i"` // place in the log, from 0
	Type    Type            `json:"t"`
	MS      int64           `json:"ms"`    // Unix milliseconds, the server's clock
	Actor   string          `json:"actor"` // person, device or "server"
	Streams []Link          `json:"streams"`
	Data    json.RawMessage `json:"data"`
}

// Encode returns the bytes of r, to be stored and committed to. Data must be
// compact JSON, as [json.Marshal] makes it.
func Encode(r Record) ([]byte, error) {
	if len(r.Streams) == 0 || len(r.Streams) > maxStreams {
		return nil, fw.Errorf(fw.Internal, "a record has 1 to %d streams, not %d", maxStreams, len(r.Streams))
	}
	b := make([]byte, 0, 256+128*len(r.Streams)+len(r.Data))
	b = append(b, `{"v":1,"i":`...)
	b = strconv.AppendInt(b, r.Index, 10)
	b = append(b, `,"t":"`...)
	b = append(b, r.Type...) // a constant of this package
	b = append(b, `","ms":`...)
	b = strconv.AppendInt(b, r.MS, 10)
	b = append(b, `,"actor":`...)
	b = appendString(b, r.Actor)
	b = append(b, `,"streams":[`...)
	for i, l := range r.Streams {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"s":`...)
		b = appendString(b, string(l.Stream))
		b = append(b, `,"n":`...)
		b = strconv.AppendInt(b, l.N, 10)
		if !l.Prev.IsZero() {
			b = append(b, `,"p":"`...)
			b = hex.AppendEncode(b, l.Prev[:])
			b = append(b, '"')
		}
		b = append(b, '}')
	}
	b = append(b, `],"data":`...)
	b = append(b, r.Data...)
	b = append(b, '}')
	if len(b) > MaxRecord {
		return nil, fw.Errorf(fw.TooLarge, "the evidence record would be %d bytes and the limit is %d: shorten the notes or the list", len(b), MaxRecord)
	}
	return b, nil
}

// appendString appends s as a JSON string.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			q, _ := json.Marshal(s) // a string always encodes
			return append(b, q...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// Decode reads a record. It checks form and bounds, not truth.
func Decode(b []byte) (Record, error) {
	if len(b) > MaxRecord {
		return Record{}, fw.Errorf(fw.TooLarge, "a record of %d bytes is over the limit of %d", len(b), MaxRecord)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var r Record
	if err := d.Decode(&r); err != nil {
		return Record{}, fw.Wrap(fw.Invalid, err, "a record is not the JSON it should be")
	}
	if d.InputOffset() != int64(len(b)) {
		return Record{}, fw.Errorf(fw.Invalid, "a record has %d bytes after its end", int64(len(b))-d.InputOffset())
	}
	switch {
	case r.V != Version:
		return Record{}, fw.Errorf(fw.Invalid, "record version %d is not known: use a newer writ", r.V)
	case r.Index < 0 || r.Type == "" || len(r.Data) == 0 || r.Data[0] != '{':
		return Record{}, fw.Errorf(fw.Invalid, "a record lacks its index, type or data")
	case len(r.Streams) == 0 || len(r.Streams) > maxStreams:
		return Record{}, fw.Errorf(fw.Invalid, "a record has 1 to %d streams, not %d", maxStreams, len(r.Streams))
	}
	for _, l := range r.Streams {
		if l.Stream == "" || l.N < 1 || (l.N == 1) != l.Prev.IsZero() {
			return Record{}, fw.Errorf(fw.Invalid, "a record's link in stream %q is malformed", l.Stream)
		}
	}
	return r, nil
}

// Link returns the record's link in stream s.
func (r *Record) Link(s StreamID) (Link, bool) {
	for _, l := range r.Streams {
		if l.Stream == s {
			return l, true
		}
	}
	return Link{}, false
}
