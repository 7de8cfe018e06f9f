// Package dsse reads and writes DSSE envelopes (Dead Simple Signing Envelope
// v1.0.2) and the signed JSON inside them.
//
// # What it promises
//
//   - [Open] accepts one form: a JSON object with the three members of an
//     envelope, within the caller's bounds, of the payload type that was asked
//     for. What it returns is not verified.
//   - A signature is tried only with the key that its key id names, so that
//     many signatures cost no more than one verification for each key. Key ids
//     are the SHA-256 of the SubjectPublicKeyInfo, in hexadecimal.
//   - [Decode] reads a document as every other reader would: no unknown
//     members, none twice, nothing after it.
package dsse

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/writ-project/writ/internal/fw"
)

// Envelope is a DSSE envelope (envelope.md).
type Envelope struct {
	PayloadType string      `json:"payloadType"`
	Payload     string      `json:"payload"` // standard base64
	Signatures  []Signature `json:"signatures"`
}

// Signature is one signature over [PAE].
type Signature struct {
	KeyID string `json:"keyid"`
	Sig   string `json:"sig"` // standard base64
}

// PAE is the pre-authentication encoding (protocol.md): the bytes that are
// signed.
func PAE(payloadType string, payload []byte) []byte {
	b := make([]byte, 0, len(payload)+len(payloadType)+40)
	b = append(b, "DSSEv1 "...)
	b = strconv.AppendInt(b, int64(len(payloadType)), 10)
	b = append(b, ' ')
	b = append(b, payloadType...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(len(payload)), 10)
	b = append(b, ' ')
	return append(b, payload...)
}

// KeyID names a key in an envelope: the hexadecimal SHA-256 of its
// SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7).
func KeyID(pub crypto.PublicKey) (string, error) {
	der, err := MarshalPublicKey(pub)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// Seal signs payload with each of the keys and returns the envelope. Keys are
// Ed25519, ECDSA P-256 (over the SHA-256 of the PAE) and ML-DSA-65 (FIPS 204,
// pure, without context).
func Seal(payloadType string, payload []byte, keys ...crypto.Signer) ([]byte, error) {
	e := Envelope{PayloadType: payloadType, Payload: base64.StdEncoding.EncodeToString(payload)}
	msg := PAE(payloadType, payload)
	for _, k := range keys {
		id, err := KeyID(k.Public())
		if err != nil {
			return nil, err
		}
		sig, err := sign(k, msg)
		if err != nil {
			return nil, fw.Wrap(fw.KindOf(err), err, "signing with key %s", id)
		}
		// A fault in a signer must not become a document that nobody accepts.
		if !verify(k.Public(), msg, sig) {
			return nil, fw.Errorf(fw.Internal, "the signer returned a signature that its own public key %s refuses", id)
		}
		e.Signatures = append(e.Signatures, Signature{KeyID: id, Sig: base64.StdEncoding.EncodeToString(sig)})
	}
	return e.Encode()
}

// Encode returns the envelope as JSON.
func (e Envelope) Encode() ([]byte, error) { return json.Marshal(e) }

// Limits bound what [Open] reads.
type Limits struct {
	Bytes      int // of the envelope
	Signatures int
}

// Open reads an envelope of the given type and returns it with its payload.
// Nothing about it is verified: see [Envelope.SignedBy].
func Open(b []byte, payloadType string, most Limits) (Envelope, []byte, error) {
	var e Envelope
	if len(b) > most.Bytes {
		return e, nil, fw.Errorf(fw.TooLarge, "envelope is %d bytes, over the limit of %d", len(b), most.Bytes)
	}
	if err := Decode(b, &e); err != nil {
		return e, nil, fw.Wrap(fw.Invalid, err, "malformed DSSE envelope")
	}
	if e.PayloadType != payloadType {
		return e, nil, fw.Errorf(fw.Invalid, "envelope holds %q, not %q", e.PayloadType, payloadType)
	}
	if len(e.Signatures) > most.Signatures {
		return e, nil, fw.Errorf(fw.TooLarge, "envelope has %d signatures, at most %d", len(e.Signatures), most.Signatures)
	}
	payload, err := base64.StdEncoding.Strict().DecodeString(e.Payload)
	if err != nil {
		return e, nil, fw.Wrap(fw.Invalid, err, "malformed payload in DSSE envelope")
	}
	return e, payload, nil
}

// SignedBy reports whether the envelope has a valid signature over payload by
// a key of a kind that [Seal] takes.
func (e Envelope) SignedBy(pub crypto.PublicKey, payload []byte) bool {
	id, err := KeyID(pub)
	if err != nil {
		return false
	}
	for _, s := range e.Signatures {
		if s.KeyID != id {
			continue
		}
		sig, err := base64.StdEncoding.Strict().DecodeString(s.Sig)
		return err == nil && verify(pub, PAE(e.PayloadType, payload), sig)
	}
	return false
}

// Join merges envelopes of the same bytes that keys in different places
// signed. Of two signatures under one key id the first stays.
func Join(payloadType string, most Limits, envelopes ...[]byte) ([]byte, error) {
	var out Envelope
	for i, b := range envelopes {
		e, _, err := Open(b, payloadType, most)
		if err != nil {
			return nil, err
		}
		if i > 0 && e.Payload != out.Payload {
			return nil, fw.Errorf(fw.Conflict, "the envelopes hold different documents")
		}
		e.Signatures = append(out.Signatures, e.Signatures...)
		out = e
	}
	seen := map[string]bool{}
	out.Signatures = slices.DeleteFunc(out.Signatures, func(s Signature) bool {
		dup := seen[s.KeyID]
		seen[s.KeyID] = true
		return dup
	})
	return out.Encode()
}

// maxDepth bounds the nesting of a signed document.
const maxDepth = 16

// Decode decodes exactly one JSON value, a document that somebody signed. It
// refuses unknown members, trailing data, and members that differ only in case
// or not at all: encoding/json would take the last, another reader the first,
// and the two would see different documents under one signature.
func Decode(b []byte, v any) error {
	if err := Unambiguous(b); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

// Unambiguous is what of [Decode] holds for documents of other people, which
// may have members that nobody here knows.
func Unambiguous(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if err := checkValue(d, 0); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the document")
	}
	return nil
}

func checkValue(d *json.Decoder, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("nested deeper than %d", maxDepth)
	}
	tok, err := d.Token()
	if err != nil {
		return err
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for d.More() {
		if delim == '{' {
			name, err := d.Token()
			if err != nil {
				return err
			}
			s, _ := name.(string)
			if s = strings.ToLower(s); seen[s] {
				return fmt.Errorf("member %q appears twice", s)
			}
			seen[s] = true
		}
		if err := checkValue(d, depth+1); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}
