package approval

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"slices"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
)

// TypeRoster is the "type" member of a roster.
const TypeRoster = "writ-roster/v1"

// Bounds of a roster.
const (
	maxRoster        = 1 << 20 // bytes of the document
	maxApprovers     = 1000
	maxKeysPerPerson = 16
)

// RosterDocument is the list of approvers as it is signed.
type RosterDocument struct {
	Type      string     `json:"type"`              // TypeRoster
	Version   int64      `json:"version"`           // 1, then exactly one more each time
	Previous  fw.Digest  `json:"previous,omitzero"` // of the document of the version before; absent in version 1
	CreatedAt int64      `json:"created_at"`        // Unix seconds
	Approvers []Approver `json:"approvers"`

	// Roots signs this version and the next one. Without, whoever opens the
	// roster says by which roots: a single one, before there were thresholds.
	Roots *Roots `json:"roots,omitempty"`
}

// Approver is a person who may approve, and with which keys.
type Approver struct {
	Person fw.PersonID `json:"person"`
	Keys   []string    `json:"keys"` // authorized_keys lines
	Roles  []fw.Role   `json:"roles,omitempty"`
}

// Roster is a checked [RosterDocument]. It does not change.
type Roster struct {
	doc    RosterDocument
	raw    []byte
	digest fw.Digest
	keys   map[fw.PersonID][]Key
	owner  map[string]fw.PersonID // by fingerprint
	roots  []ed25519.PublicKey    // of doc.Roots
}

// ParseRoster checks an unsigned roster document.
func ParseRoster(payload []byte) (*Roster, error) {
	if len(payload) > maxRoster {
		return nil, fw.Errorf(fw.TooLarge, "roster is %d bytes, over the limit of %d", len(payload), maxRoster)
	}
	var doc RosterDocument
	if err := dsse.Decode(payload, &doc); err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "malformed roster")
	}
	r := &Roster{doc: doc, raw: bytes.Clone(payload), digest: fw.DigestOf(payload), keys: map[fw.PersonID][]Key{}, owner: map[string]fw.PersonID{}}
	switch {
	case doc.Type != TypeRoster:
		return nil, fw.Errorf(fw.Invalid, "roster has type %q, not %q", doc.Type, TypeRoster)
	case doc.Version < 1:
		return nil, fw.Errorf(fw.Invalid, "roster version must be at least 1, not %d", doc.Version)
	case (doc.Version == 1) != doc.Previous.IsZero():
		return nil, fw.Errorf(fw.Invalid, "roster version 1 has no previous digest and every later version has one")
	case len(doc.Approvers) == 0 || len(doc.Approvers) > maxApprovers:
		return nil, fw.Errorf(fw.Invalid, "roster must list 1 to %d approvers, not %d", maxApprovers, len(doc.Approvers))
	}
	for _, a := range doc.Approvers {
		if err := r.add(a); err != nil {
			return nil, err
		}
	}
	if doc.Roots != nil {
		var err error
		if r.roots, err = doc.Roots.parse(); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *Roster) add(a Approver) error {
	if _, err := fw.ParseName("approver's person id", string(a.Person)); err != nil {
		return err
	}
	if _, twice := r.keys[a.Person]; twice {
		return fw.Errorf(fw.Invalid, "roster lists %s twice: give all keys in one entry", a.Person)
	}
	if len(a.Keys) == 0 || len(a.Keys) > maxKeysPerPerson {
		return fw.Errorf(fw.Invalid, "%s must have 1 to %d keys, not %d", a.Person, maxKeysPerPerson, len(a.Keys))
	}
	for _, role := range a.Roles {
		if !slices.Contains(fw.Roles, role) {
			return fw.Errorf(fw.Invalid, "%s has unknown role %q", a.Person, role)
		}
	}
	for _, line := range a.Keys {
		k, err := ParsePublicKey(line)
		if err != nil {
			return fw.Wrap(fw.KindOf(err), err, "a key of %s in the roster cannot be used", a.Person)
		}
		if other, taken := r.owner[k.Fingerprint()]; taken {
			// Else one key could speak as two people and meet a quorum alone.
			return fw.Errorf(fw.Invalid, "key %s belongs to both %s and %s: a key has one owner and is listed once", k.Fingerprint(), other, a.Person)
		}
		r.owner[k.Fingerprint()] = a.Person
		r.keys[a.Person] = append(r.keys[a.Person], k)
	}
	return nil
}

// OpenRoster returns the roster in a DSSE envelope signed by root, and by a
// threshold of its own roots if it names any.
func OpenRoster(env []byte, root ed25519.PublicKey) (*Roster, error) {
	return OpenRosterBy(env, []ed25519.PublicKey{root}, 1)
}

// Encode returns the bytes of d to be signed, having checked them.
func (d RosterDocument) Encode() ([]byte, error) {
	d.Type = TypeRoster
	b, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	if _, err := ParseRoster(b); err != nil {
		return nil, err
	}
	return b, nil
}

// Follows checks that r is the version right after prev. A nil prev is before
// version 1.
func (r *Roster) Follows(prev *Roster) error {
	var version int64
	var digest fw.Digest
	if prev != nil {
		version, digest = prev.doc.Version, prev.digest
	}
	if r.doc.Version != version+1 {
		return fw.Errorf(fw.Conflict, "roster version %d cannot follow version %d", r.doc.Version, version)
	}
	if r.doc.Previous != digest {
		return fw.Errorf(fw.Conflict, "roster version %d names another version %d as its predecessor", r.doc.Version, version)
	}
	return nil
}

// Version returns the roster's version, from 1.
func (r *Roster) Version() int64 { return r.doc.Version }

// Document returns the signed bytes.
func (r *Roster) Document() []byte { return bytes.Clone(r.raw) }

// Digest returns the digest of the document, which the next version names.
func (r *Roster) Digest() fw.Digest { return r.digest }

// CreatedAt returns when the roster was made, in Unix seconds.
func (r *Roster) CreatedAt() int64 { return r.doc.CreatedAt }

// Approvers returns the people on the roster in document order.
func (r *Roster) Approvers() []Approver { return slices.Clone(r.doc.Approvers) }

// Keys returns the keys of person; none if person is not on the roster.
func (r *Roster) Keys(person fw.PersonID) []Key { return slices.Clone(r.keys[person]) }

// Owner returns whose key has the given fingerprint.
func (r *Roster) Owner(fingerprint string) (fw.PersonID, bool) {
	p, ok := r.owner[fingerprint]
	return p, ok
}
