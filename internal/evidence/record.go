package evidence

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/writ-project/writ/internal/fw"
)

// Version is the version of the record format.
const Version = 1

// MaxRecord bounds the encoded size of a record. It keeps the record within
// the 64 KiB that C2SP tlog-tiles allows an entry, with room to spare.
const MaxRecord = 48 << 10

// Bounds of a record's parts.
const (
	maxStreams = 8         // streams of one record
	maxName    = 256       // bytes of an actor or a stream id
	maxNumber  = 1<<53 - 1 // exact in every JSON reader (RFC 7493 section 2.2)
)

// StreamID names the stream of records about one subject: a kind, a slash and
// the subject's id.
type StreamID string

// LogStream is the stream about the log and the server themselves.
const LogStream StreamID = "log"

// DeviceStream names the stream about a device.
func DeviceStream(id fw.DeviceID) StreamID { return StreamID("device/" + id) }

// ReleaseStream names the stream about a release.
func ReleaseStream(id fw.ReleaseID) StreamID { return StreamID("release/" + id) }

// CampaignStream names the stream about a campaign.
func CampaignStream(id fw.CampaignID) StreamID { return StreamID("campaign/" + id) }

// ProductStream names the stream about a product.
func ProductStream(id fw.ProductID) StreamID { return StreamID("product/" + id) }

// KeyStream names the stream about a signing key.
func KeyStream(name fw.KeyName) StreamID { return StreamID("key/" + name) }

// OperatorStream names the stream about a person who operates writ.
func OperatorStream(id fw.PersonID) StreamID { return StreamID("operator/" + id) }

// PolicyStream names the stream about a version of a policy.
func PolicyStream(d fw.Digest) StreamID { return StreamID("policy/" + d.Hex()) }

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
	if _, err := hex.Decode(c[:], bytes.ToLower(b)); err != nil || c.IsZero() {
		return fw.Errorf(fw.Invalid, "a commitment is 64 hexadecimal digits, not all zero")
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
	var c Commitment
	h.Sum(c[:0])
	return c
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

// Link returns the record's link in stream s.
func (r *Record) Link(s StreamID) (Link, bool) {
	for _, l := range r.Streams {
		if l.Stream == s {
			return l, true
		}
	}
	return Link{}, false
}

// Encode returns the bytes of r, to be stored and committed to. V is written
// as [Version] whatever r says. Data must be compact JSON, as [json.Marshal]
// makes it. What Encode returns, [Decode] accepts: a record that could not be
// read again must not reach the log, so Encode fails instead.
func Encode(r Record) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, fw.Wrap(fw.Internal, err, "the %s record cannot be written", r.Type)
	}
	if err := checkObject(r.Data); err != nil {
		return nil, fw.Wrap(fw.Internal, err, "the data of the %s record cannot be written", r.Type)
	}
	b := r.appendTo(make([]byte, 0, 256+160*len(r.Streams)+len(r.Data)))
	if len(b) > MaxRecord {
		return nil, fw.Errorf(fw.TooLarge, "the evidence record would be %d bytes and the limit is %d: shorten the notes or the list", len(b), MaxRecord)
	}
	return b, nil
}

// appendTo appends the one form of r.
func (r *Record) appendTo(b []byte) []byte {
	b = append(b, `{"v":1,"i":`...)
	b = strconv.AppendInt(b, r.Index, 10)
	b = append(b, `,"t":"`...)
	b = append(b, r.Type...)
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
	return append(b, '}')
}

// appendString appends s as a JSON string, as [json.Marshal] does.
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

// check checks the bounds of everything but Data.
func (r *Record) check() error {
	switch {
	case r.Index < 0 || r.Index > maxNumber || r.MS < 0 || r.MS > maxNumber:
		return fw.Errorf(fw.Invalid, "a record's index %d or time %d is out of range", r.Index, r.MS)
	case !wellFormed(string(r.Type)):
		return fw.Errorf(fw.Invalid, "%.40q cannot be a record type", r.Type)
	case !wellNamed(r.Actor):
		return fw.Errorf(fw.Invalid, "a record's actor %.80q must be 1 to %d bytes of UTF-8", r.Actor, maxName)
	case len(r.Streams) == 0 || len(r.Streams) > maxStreams:
		return fw.Errorf(fw.Invalid, "a record has 1 to %d streams, not %d", maxStreams, len(r.Streams))
	}
	for i, l := range r.Streams {
		if !wellNamed(string(l.Stream)) || l.N < 1 || l.N > maxNumber || (l.N == 1) != l.Prev.IsZero() {
			return fw.Errorf(fw.Invalid, "a record's link in stream %.80q is malformed", l.Stream)
		}
		if slices.ContainsFunc(r.Streams[:i], func(o Link) bool { return o.Stream == l.Stream }) {
			return fw.Errorf(fw.Invalid, "a record is twice in stream %q", l.Stream)
		}
	}
	return nil
}

func wellNamed(s string) bool { return s != "" && len(s) <= maxName && utf8.ValidString(s) }

// Decode reads a record. It accepts exactly the bytes that [Encode] makes, so
// that no two readers can see different records in the same bytes. It checks
// form and bounds, not truth, and accepts types that a later version may
// define ([Type.Known]). The result shares b's memory.
func Decode(b []byte) (Record, error) {
	if len(b) > MaxRecord {
		return Record{}, fw.Errorf(fw.TooLarge, "a record of %d bytes is over the limit of %d", len(b), MaxRecord)
	}
	var r Record
	p := parser{b: b}
	p.record(&r)
	if p.err != nil {
		return Record{}, fw.Wrap(fw.Invalid, p.err, "a record does not have the form of docs/formats/evidence.md")
	}
	if err := r.check(); err != nil {
		return Record{}, err
	}
	return r, nil
}

// Payload decodes the data of r into the form of its type. It refuses members
// that the form does not have.
func Payload[T any](r Record) (T, error) {
	var v T
	d := json.NewDecoder(bytes.NewReader(r.Data))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		var zero T
		return zero, fw.Wrap(fw.Invalid, err, "record %d does not have the data of a %s record", r.Index, r.Type)
	}
	return v, nil
}
