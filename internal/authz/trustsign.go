package authz

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/writ-project/writ/internal/fw"
)

// TrustBundlePayloadType is the DSSE payload type of a trust bundle.
const TrustBundlePayloadType = "application/vnd.writ.trust-bundle.v1+json"

// envelope is a DSSE envelope (DSSE v1.0.2, envelope.md).
type envelope struct {
	PayloadType string              `json:"payloadType"`
	Payload     string              `json:"payload"`
	Signatures  []envelopeSignature `json:"signatures"`
}

type envelopeSignature struct {
	KeyID string `json:"keyid"`
	Sig   string `json:"sig"`
}

// pae is DSSE's pre-authentication encoding (DSSE v1.0.2, protocol.md): the
// bytes that are signed.
func pae(payloadType string, payload []byte) []byte {
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

// SignTrust checks d and signs it with each of the Ed25519 root keys.
func SignTrust(d TrustDocument, signers ...crypto.Signer) ([]byte, error) {
	payload, err := d.Encode()
	if err != nil {
		return nil, err
	}
	e := envelope{PayloadType: TrustBundlePayloadType, Payload: base64.StdEncoding.EncodeToString(payload)}
	for _, s := range signers {
		if _, ok := s.Public().(ed25519.PublicKey); !ok {
			return nil, fw.Errorf(fw.Invalid, "trust bundles are signed with Ed25519 keys, not %T", s.Public())
		}
		id, err := KeyID(s.Public())
		if err != nil {
			return nil, err
		}
		sig, err := s.Sign(rand.Reader, pae(TrustBundlePayloadType, payload), crypto.Hash(0))
		if err != nil {
			return nil, fw.Wrap(fw.KindOf(err), err, "signing trust bundle")
		}
		e.Signatures = append(e.Signatures, envelopeSignature{KeyID: id.Hex(), Sig: base64.StdEncoding.EncodeToString(sig)})
	}
	return json.Marshal(e)
}

// JoinSignatures merges envelopes of one trust bundle that root keys in
// different places signed. The payloads must be the same bytes.
func JoinSignatures(envelopes ...[]byte) ([]byte, error) {
	var out envelope
	for i, b := range envelopes {
		e, _, err := parseEnvelope(b)
		if err != nil {
			return nil, err
		}
		if i > 0 && e.Payload != out.Payload {
			return nil, fw.Errorf(fw.Conflict, "the envelopes hold different trust bundles")
		}
		e.Signatures = append(out.Signatures, e.Signatures...)
		out = e
	}
	seen := map[string]bool{}
	out.Signatures = slices.DeleteFunc(out.Signatures, func(s envelopeSignature) bool {
		dup := seen[s.KeyID]
		seen[s.KeyID] = true
		return dup
	})
	return json.Marshal(out)
}

func parseEnvelope(b []byte) (envelope, []byte, error) {
	var e envelope
	if len(b) > MaxTrustBundle {
		return e, nil, fw.Errorf(fw.TooLarge, "trust bundle is %d bytes, over the limit of %d", len(b), MaxTrustBundle)
	}
	if err := strictJSON(b, &e); err != nil {
		return e, nil, fw.Wrap(fw.Invalid, err, "malformed DSSE envelope")
	}
	if e.PayloadType != TrustBundlePayloadType {
		return e, nil, fw.Errorf(fw.Invalid, "envelope holds %q, not %q", e.PayloadType, TrustBundlePayloadType)
	}
	if len(e.Signatures) > 2*maxKeys {
		return e, nil, fw.Errorf(fw.TooLarge, "envelope has %d signatures, at most %d", len(e.Signatures), 2*maxKeys)
	}
	payload, err := base64.StdEncoding.Strict().DecodeString(e.Payload)
	if err != nil {
		return e, nil, fw.Wrap(fw.Invalid, err, "malformed payload in DSSE envelope")
	}
	return e, payload, nil
}

// OpenTrust reads a trust bundle that is signed by a threshold of its own
// roots. That alone is no reason to believe it: it is for the bundle a device
// is given in the factory or at enrolment, and for the one it has stored. Any
// other goes through [Accept].
func OpenTrust(env []byte) (*TrustBundle, error) {
	e, payload, err := parseEnvelope(env)
	if err != nil {
		return nil, err
	}
	t, err := parseTrust(payload)
	if err != nil {
		return nil, err
	}
	t.envelope = bytes.Clone(env)
	if err := t.signedBy(e, payload, "its own"); err != nil {
		return nil, err
	}
	return t, nil
}

// Accept reads the bundle that follows current. It is signed by a threshold of
// current's roots and a threshold of its own, has exactly the next version,
// and names current's digest (The Update Framework 1.0.33, section 5.3).
// Whoever skipped versions must be given each one in between.
func Accept(current *TrustBundle, next []byte) (*TrustBundle, error) {
	if current == nil {
		return nil, fw.Errorf(fw.Invalid, "there is no trust bundle to follow")
	}
	t, err := OpenTrust(next)
	if err != nil {
		return nil, err
	}
	e, payload, err := parseEnvelope(next)
	if err != nil {
		return nil, err
	}
	if err := current.signedBy(e, payload, "the previous"); err != nil {
		return nil, err
	}
	if t.doc.Version != current.doc.Version+1 {
		return nil, fw.Errorf(fw.Conflict, "trust bundle version %d cannot follow version %d", t.doc.Version, current.doc.Version)
	}
	if t.doc.Previous != current.Digest() {
		return nil, fw.Errorf(fw.Conflict, "trust bundle version %d names another version %d as its predecessor", t.doc.Version, current.doc.Version)
	}
	return t, nil
}

// signedBy checks for valid signatures of a threshold of t's roots. Each root
// counts once. A signature is tried only with the root it names, so that many
// signatures cost no more than one verification each.
func (t *TrustBundle) signedBy(e envelope, payload []byte, whose string) error {
	msg := pae(TrustBundlePayloadType, payload)
	valid := 0
	for _, root := range t.roots {
		pub, ok := root.pub.(ed25519.PublicKey)
		if ok && slices.ContainsFunc(e.Signatures, func(s envelopeSignature) bool {
			if s.KeyID != root.ID.Hex() {
				return false
			}
			sig, err := base64.StdEncoding.Strict().DecodeString(s.Sig)
			return err == nil && ed25519.Verify(pub, msg, sig)
		}) {
			valid++
		}
	}
	if valid < t.doc.Roots.Threshold {
		return fw.Errorf(fw.Forbidden, "trust bundle is signed by %d of %s roots, %d are needed", valid, whose, t.doc.Roots.Threshold)
	}
	return nil
}

// maxDepth bounds the nesting of signed JSON.
const maxDepth = 8

// strictJSON decodes exactly one value. It refuses unknown members, trailing
// data, and members that differ only in case or not at all: encoding/json
// would take the last, another reader the first.
func strictJSON(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if err := checkValue(d, 0); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the document")
	}
	d = json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(v)
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
			member, err := d.Token()
			if err != nil {
				return err
			}
			s, _ := member.(string)
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
