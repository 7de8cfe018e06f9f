package authz

import (
	"bytes"
	"unicode/utf8"

	"github.com/writ-project/writ/internal/fw"
)

// Bounds of a check-in.
const (
	MaxCheckIn    = 16 << 10 // bytes
	MaxAttributes = 64

	maxAttribute = 256 // bytes of a value
)

// CheckIn is what a device sends to ask for work: a fresh nonce and its facts.
// Its encoding is the array [nonce, facts], so that the facts, which rarely
// change, are one slice of the message.
type CheckIn struct {
	Nonce Nonce
	Facts
}

// Facts is what a device says of itself.
type Facts struct {
	Hardware   fw.HardwareID       `cbor:"1,keyasint"`
	Components []ReportedComponent `cbor:"2,keyasint"`
	Attributes map[string]string   `cbor:"3,keyasint,omitempty"`
	Preference Preference          `cbor:"4,keyasint,omitzero"`
	// LastSequence is that of the last authorization the device accepted.
	LastSequence uint64 `cbor:"5,keyasint,omitzero"`
	TrustVersion int64  `cbor:"6,keyasint,omitzero"` // of the trust bundle it holds; 0: none
	// LastReceiptIndex is the record index of the last receipt the device
	// accepted, which lets the server notice that it lost evidence. Record 0
	// is never a decision, so 0 is none.
	LastReceiptIndex uint64 `cbor:"7,keyasint,omitzero"`
}

// Preference is what the device's user wants.
type Preference struct {
	OptedOut       bool  `cbor:"1,keyasint,omitzero"`
	PostponedUntil int64 `cbor:"2,keyasint,omitzero"` // Unix seconds
}

// wireCheckIn is a check-in as sent.
type wireCheckIn struct {
	_     struct{} `cbor:",toarray"`
	Nonce []byte
	Facts Facts
}

// checkInPrefix begins every check-in: an array of two, then 16 bytes.
var checkInPrefix = []byte{0x82, 0x50}

const factsOffset = 2 + len(Nonce{})

// EncodeCheckIn checks and encodes a check-in.
func EncodeCheckIn(c CheckIn) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	b, err := encMode.Marshal(wireCheckIn{Nonce: c.Nonce[:], Facts: c.Facts})
	if err != nil {
		return nil, fw.Wrap(fw.Internal, err, "encoding check-in")
	}
	if len(b) > MaxCheckIn {
		return nil, fw.Errorf(fw.TooLarge, "check-in is %d bytes, over the limit of %d", len(b), MaxCheckIn)
	}
	return b, nil
}

// DecodeCheckIn reads a check-in in its one encoding.
func DecodeCheckIn(b []byte) (CheckIn, error) {
	nonce, _, err := PeekCheckIn(b)
	if err != nil {
		return CheckIn{}, err
	}
	c := CheckIn{Nonce: nonce}
	if err := unmarshal(b[factsOffset:], &c.Facts, MaxCheckIn); err != nil {
		return CheckIn{}, fw.Wrap(fw.Invalid, err, "malformed check-in")
	}
	if err := c.check(); err != nil {
		return CheckIn{}, err
	}
	return c, nil
}

// PeekCheckIn returns the nonce and the facts digest of a check-in without
// decoding it: a server that has decoded the same facts from the same device
// before need not do so again.
func PeekCheckIn(b []byte) (Nonce, fw.Digest, error) {
	if len(b) > MaxCheckIn {
		return Nonce{}, fw.Digest{}, fw.Errorf(fw.TooLarge, "check-in is %d bytes, over the limit of %d", len(b), MaxCheckIn)
	}
	if len(b) <= factsOffset || !bytes.HasPrefix(b, checkInPrefix) {
		return Nonce{}, fw.Digest{}, fw.Errorf(fw.Invalid, "malformed check-in: it is an array of a 16-byte nonce and a map")
	}
	n := Nonce(b[len(checkInPrefix):factsOffset])
	if n.IsZero() {
		return Nonce{}, fw.Digest{}, fw.Errorf(fw.Invalid, "a check-in needs a random nonce")
	}
	return n, fw.DigestOf(b[factsOffset:]), nil
}

// FactsDigest returns the SHA-256 of the encoded facts: everything but the
// nonce. It equals what PeekCheckIn returns for the encoded check-in, and is
// zero for facts that cannot be encoded.
func FactsDigest(c CheckIn) fw.Digest {
	b, err := encMode.Marshal(c.Facts)
	if err != nil {
		return fw.Digest{}
	}
	return fw.DigestOf(b)
}

func (c CheckIn) check() error {
	if c.Nonce.IsZero() {
		return fw.Errorf(fw.Invalid, "a check-in needs a random nonce")
	}
	if err := checkNames(name{"hardware id", string(c.Hardware)}); err != nil {
		return err
	}
	if len(c.Components) == 0 {
		return fw.Errorf(fw.Invalid, "a check-in lists at least one component")
	}
	if err := checkReported(c.Components); err != nil {
		return err
	}
	if len(c.Attributes) > MaxAttributes {
		return fw.Errorf(fw.TooLarge, "%d attributes, at most %d", len(c.Attributes), MaxAttributes)
	}
	for k, v := range c.Attributes {
		if err := checkNames(name{"attribute name", k}); err != nil {
			return err
		}
		if len(v) > maxAttribute || !utf8.ValidString(v) {
			return fw.Errorf(fw.Invalid, "attribute %q: a value is at most %d bytes of UTF-8", k, maxAttribute)
		}
	}
	if c.Preference.PostponedUntil < 0 || c.TrustVersion < 0 {
		return fw.Errorf(fw.Invalid, "times and versions are not negative")
	}
	return nil
}
