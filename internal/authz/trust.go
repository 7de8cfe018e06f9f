package authz

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"slices"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/statement"
)

// TypeTrustBundle is the "type" member of a trust bundle.
const TypeTrustBundle = "writ-trust-bundle/v1"

// Bounds of a trust bundle.
const (
	MaxTrustBundle = 128 << 10 // bytes of the envelope

	maxKeys         = 32 // in each list
	maxCertificates = 32
	maxOrigin       = 256
)

// TrustDocument says which keys a device believes, as it is signed. Keys are
// SubjectPublicKeyInfo DER and certificates DER, both in base64.
type TrustDocument struct {
	Type      string    `json:"type"`              // TypeTrustBundle
	Version   int64     `json:"version"`           // 1, then exactly one more each time
	Previous  fw.Digest `json:"previous,omitzero"` // of the signed bytes of the version before; absent in version 1
	CreatedAt int64     `json:"created_at"`        // Unix seconds

	Roots             Roots      `json:"roots"`              // sign this and the next version
	AuthorizationKeys []TrustKey `json:"authorization_keys"` // sign authorizations
	ImageKeys         []TrustKey `json:"image_keys"`         // sign images
	LogKeys           []LogKey   `json:"log_keys"`           // sign the evidence log

	// StatementKeys sign release statements: Ed25519, P-256 or ML-DSA-65.
	// Statement says which signatures the device wants; empty: it installs
	// without a statement, and checks one that comes.
	StatementKeys []TrustKey            `json:"statement_keys,omitempty"`
	Statement     statement.Requirement `json:"statement,omitempty"`

	DeviceCAs  [][]byte `json:"device_cas"`  // issue device certificates
	TLSAnchors [][]byte `json:"tls_anchors"` // issue the server's certificate
}

// Roots is who signs trust bundles.
type Roots struct {
	Threshold int        `json:"threshold"` // distinct signatures needed
	Keys      []TrustKey `json:"keys"`      // Ed25519
}

// TrustKey is a public key with the time in which it counts. To roll a key
// over, list the old and the new one with times that overlap.
type TrustKey struct {
	ID        fw.Digest `json:"id"`                   // SHA-256 of PublicKey
	PublicKey []byte    `json:"public_key"`           // SubjectPublicKeyInfo DER
	NotBefore int64     `json:"not_before,omitempty"` // Unix seconds; 0: always
	NotAfter  int64     `json:"not_after,omitempty"`  // last second; 0: for ever
}

// LogKey is a log's key and the log's origin (C2SP tlog-checkpoint).
type LogKey struct {
	Origin string `json:"origin"`
	TrustKey
}

// NewTrustKey returns the entry for a key that always counts.
func NewTrustKey(pub crypto.PublicKey) (TrustKey, error) {
	if err := trustable(pub); err != nil {
		return TrustKey{}, err
	}
	der, err := dsse.MarshalPublicKey(pub)
	if err != nil {
		return TrustKey{}, err
	}
	return TrustKey{ID: fw.DigestOf(der), PublicKey: der}, nil
}

// Public returns the key.
func (k TrustKey) Public() (crypto.PublicKey, error) {
	pub, err := dsse.ParsePublicKey(k.PublicKey)
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "malformed public key %s", k.ID.Hex())
	}
	if err := trustable(pub); err != nil {
		return nil, err
	}
	// Another DER of the same key would have another id.
	der, err := dsse.MarshalPublicKey(pub)
	if err != nil || !bytes.Equal(der, k.PublicKey) || fw.DigestOf(der) != k.ID {
		return nil, fw.Wrap(fw.Invalid, err, "key %s: the id is the SHA-256 of its SubjectPublicKeyInfo", k.ID.Hex())
	}
	return pub, nil
}

// trustable refuses keys of kinds that nothing here verifies with.
func trustable(pub crypto.PublicKey) error {
	if dsse.IsPostQuantum(pub) {
		return nil
	}
	_, err := algorithm(pub)
	return err
}

// trustedKey is a parsed TrustKey.
type trustedKey struct {
	TrustKey

	pub crypto.PublicKey
}

func (k trustedKey) validAt(t int64) bool {
	return t >= k.NotBefore && (k.NotAfter == 0 || t <= k.NotAfter)
}

// TrustBundle is a checked, signed trust bundle. It does not change.
type TrustBundle struct {
	doc      TrustDocument
	payload  []byte
	envelope []byte
	roots    []trustedKey
	authz    []trustedKey
	image    []trustedKey
	stated   []trustedKey
	cas      []*x509.Certificate
	anchors  []*x509.Certificate
}

// Next returns d as the version after prev: type, version and previous digest
// are set. A nil prev makes version 1.
func (d TrustDocument) Next(prev *TrustBundle) TrustDocument {
	d.Type, d.Version, d.Previous = TypeTrustBundle, 1, fw.Digest{}
	if prev != nil {
		d.Version, d.Previous = prev.doc.Version+1, prev.Digest()
	}
	return d
}

// Encode checks d and returns the bytes to be signed.
func (d TrustDocument) Encode() ([]byte, error) {
	// Empty lists are written as such: null would be a third way to say none.
	for _, l := range []*[]TrustKey{&d.Roots.Keys, &d.AuthorizationKeys, &d.ImageKeys} {
		*l = append([]TrustKey{}, *l...)
	}
	d.LogKeys = append([]LogKey{}, d.LogKeys...)
	d.DeviceCAs = append([][]byte{}, d.DeviceCAs...)
	d.TLSAnchors = append([][]byte{}, d.TLSAnchors...)
	b, err := json.Marshal(d)
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "encoding trust bundle")
	}
	if _, err := parseTrust(b); err != nil {
		return nil, err
	}
	return b, nil
}

// parseTrust checks an unsigned document.
func parseTrust(payload []byte) (*TrustBundle, error) {
	var d TrustDocument
	if err := dsse.Decode(payload, &d); err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "malformed trust bundle")
	}
	t := &TrustBundle{doc: d, payload: bytes.Clone(payload)}
	switch {
	case d.Type != TypeTrustBundle:
		return nil, fw.Errorf(fw.Invalid, "trust bundle has type %q, not %q", d.Type, TypeTrustBundle)
	case d.Version < 1:
		return nil, fw.Errorf(fw.Invalid, "trust bundle version must be at least 1, not %d", d.Version)
	case (d.Version == 1) != d.Previous.IsZero():
		return nil, fw.Errorf(fw.Invalid, "trust bundle version 1 has no previous digest and every later version has one")
	case d.Roots.Threshold < 1 || d.Roots.Threshold > len(d.Roots.Keys):
		return nil, fw.Errorf(fw.Invalid, "the threshold of the roots is 1 to their number, not %d", d.Roots.Threshold)
	}
	logs := make([]TrustKey, 0, len(d.LogKeys))
	for _, k := range d.LogKeys {
		if k.Origin == "" || !printable(k.Origin, maxOrigin) {
			return nil, fw.Errorf(fw.Invalid, "a log key names the origin of its log")
		}
		logs = append(logs, k.TrustKey)
	}
	var err error
	if t.roots, err = parseKeys("roots", d.Roots.Keys, onlyEd25519); err != nil {
		return nil, err
	}
	if t.authz, err = parseKeys("authorization_keys", d.AuthorizationKeys, classical); err != nil {
		return nil, err
	}
	if t.image, err = parseKeys("image_keys", d.ImageKeys, classical); err != nil {
		return nil, err
	}
	if _, err = parseKeys("log_keys", logs, onlyEd25519); err != nil {
		return nil, err
	}
	if t.stated, err = parseKeys("statement_keys", d.StatementKeys, anyKey); err != nil {
		return nil, err
	}
	if d.Statement != "" && !d.Statement.Known() {
		return nil, fw.Errorf(fw.Invalid, "unknown requirement %q for release statements", d.Statement)
	}
	if t.cas, err = parseCertificates("device_cas", d.DeviceCAs); err != nil {
		return nil, err
	}
	if t.anchors, err = parseCertificates("tls_anchors", d.TLSAnchors); err != nil {
		return nil, err
	}
	return t, nil
}

func anyKey(crypto.PublicKey) bool { return true }

// classical: COSE and images are signed with Ed25519 and ECDSA.
func classical(pub crypto.PublicKey) bool { return !dsse.IsPostQuantum(pub) }

// onlyEd25519: signed notes and trust bundle signatures are Ed25519.
func onlyEd25519(pub crypto.PublicKey) bool { _, ok := pub.(ed25519.PublicKey); return ok }

func parseKeys(list string, keys []TrustKey, allowed func(crypto.PublicKey) bool) ([]trustedKey, error) {
	if len(keys) > maxKeys {
		return nil, fw.Errorf(fw.TooLarge, "%s has %d keys, at most %d", list, len(keys), maxKeys)
	}
	out := make([]trustedKey, 0, len(keys))
	for _, k := range keys {
		pub, err := k.Public()
		if err != nil {
			return nil, err
		}
		// One key listed twice would sign for two.
		if slices.ContainsFunc(out, func(o trustedKey) bool { return o.ID == k.ID }) {
			return nil, fw.Errorf(fw.Invalid, "%s lists key %s twice", list, k.ID.Hex())
		}
		if !allowed(pub) {
			return nil, fw.Errorf(fw.Invalid, "%s has a key of a kind that does not belong there", list)
		}
		if k.NotBefore < 0 || k.NotAfter < 0 || k.NotAfter != 0 && k.NotAfter < k.NotBefore {
			return nil, fw.Errorf(fw.Invalid, "%s: key %s ends before it begins", list, k.ID.Hex())
		}
		out = append(out, trustedKey{k, pub})
	}
	return out, nil
}

func parseCertificates(list string, certs [][]byte) ([]*x509.Certificate, error) {
	if len(certs) > maxCertificates {
		return nil, fw.Errorf(fw.TooLarge, "%s has %d certificates, at most %d", list, len(certs), maxCertificates)
	}
	out := make([]*x509.Certificate, 0, len(certs))
	for _, der := range certs {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fw.Wrap(fw.Invalid, err, "malformed certificate in %s", list)
		}
		out = append(out, c)
	}
	return out, nil
}

// Version returns the bundle's version, from 1.
func (t *TrustBundle) Version() int64 { return t.doc.Version }

// Digest returns the digest of the signed bytes, which the next version names.
func (t *TrustBundle) Digest() fw.Digest { return fw.DigestOf(t.payload) }

// Envelope returns the signed bundle as it was received, to be stored.
func (t *TrustBundle) Envelope() []byte { return bytes.Clone(t.envelope) }

// Document returns the content.
func (t *TrustBundle) Document() TrustDocument { return t.doc }

// AuthorizationKey returns the authorization key with the given id if it
// counts at time at.
func (t *TrustBundle) AuthorizationKey(id fw.Digest, at int64) (crypto.PublicKey, bool) {
	for _, k := range t.authz {
		if k.ID == id && k.validAt(at) {
			return k.pub, true
		}
	}
	return nil, false
}

// LogKeys returns the keys of the evidence log.
func (t *TrustBundle) LogKeys() []LogKey { return slices.Clone(t.doc.LogKeys) }

// DeviceCAs returns the certificates that issue device certificates.
func (t *TrustBundle) DeviceCAs() []*x509.Certificate { return slices.Clone(t.cas) }

// TLSAnchors returns the certificates that the server's chain must end in.
func (t *TrustBundle) TLSAnchors() []*x509.Certificate { return slices.Clone(t.anchors) }

// ImageKeys returns the keys that may sign images at time at, for a format's Verify.
func (t *TrustBundle) ImageKeys(at int64) []crypto.PublicKey {
	var keys []crypto.PublicKey
	for _, k := range t.image {
		if k.validAt(at) {
			keys = append(keys, k.pub)
		}
	}
	return keys
}

// StatementKeys returns the keys that may sign release statements at time at.
func (t *TrustBundle) StatementKeys(at int64) []crypto.PublicKey {
	var keys []crypto.PublicKey
	for _, k := range t.stated {
		if k.validAt(at) {
			keys = append(keys, k.pub)
		}
	}
	return keys
}
