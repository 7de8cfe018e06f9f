package statement

import (
	"crypto"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
)

// Requirement says which signatures a reader wants.
type Requirement string

// Requirements. The zero value is met by nothing.
const (
	// NeedClassical wants one Ed25519 or ECDSA P-256 signature.
	NeedClassical Requirement = "classical"
	// NeedBoth wants a classical and an ML-DSA-65 signature, so that a
	// statement stands as long as either scheme does.
	NeedBoth Requirement = "classical_and_post_quantum"
)

// Known reports whether r is a requirement.
func (r Requirement) Known() bool { return r == NeedClassical || r == NeedBoth }

// Signed is a statement read from an envelope. It is not believed before
// [Signed.Verify].
type Signed struct {
	Statement Statement

	envelope dsse.Envelope
	payload  []byte
}

// Open reads an envelope.
func Open(b []byte) (*Signed, error) {
	e, payload, err := dsse.Open(b, PayloadType, limits)
	if err != nil {
		return nil, err
	}
	s, err := Parse(payload)
	if err != nil {
		return nil, err
	}
	return &Signed{s, e, payload}, nil
}

// Payload returns the signed bytes. They must not be changed.
func (s *Signed) Payload() []byte { return s.payload }

// Verify checks that trusted keys signed as need says. An error of kind
// Forbidden says what is missing.
func (s *Signed) Verify(trusted []crypto.PublicKey, need Requirement) error {
	if !need.Known() {
		return fw.Errorf(fw.Invalid, "unknown requirement %q for release statements", need)
	}
	var classical, pq bool
	for _, k := range trusted {
		if dsse.IsPostQuantum(k) {
			pq = pq || need == NeedBoth && s.envelope.SignedBy(k, s.payload)
		} else {
			classical = classical || s.envelope.SignedBy(k, s.payload)
		}
	}
	switch {
	case !classical:
		return fw.Errorf(fw.Forbidden, "the release statement has no valid classical signature by a trusted key")
	case need == NeedBoth && !pq:
		return fw.Errorf(fw.Forbidden, "the release statement has no valid ML-DSA-65 signature by a trusted key")
	}
	return nil
}
