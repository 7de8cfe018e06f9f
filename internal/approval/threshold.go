package approval

import (
	"crypto/ed25519"
	"slices"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
)

// maxRoots bounds the root keys of a roster.
const maxRoots = 32

// Roots is who signs rosters.
type Roots struct {
	Threshold int      `json:"threshold"` // distinct signatures needed
	Keys      [][]byte `json:"keys"`      // Ed25519, SubjectPublicKeyInfo DER
}

func (r Roots) parse() ([]ed25519.PublicKey, error) {
	if len(r.Keys) > maxRoots || r.Threshold < 1 || r.Threshold > len(r.Keys) {
		return nil, fw.Errorf(fw.Invalid, "the roster needs a threshold of 1 to the number of its roots, at most %d, and not %d of %d", maxRoots, r.Threshold, len(r.Keys))
	}
	out := make([]ed25519.PublicKey, 0, len(r.Keys))
	for _, der := range r.Keys {
		pub, err := dsse.ParsePublicKey(der)
		if err != nil {
			return nil, err
		}
		k, ok := pub.(ed25519.PublicKey)
		if !ok {
			return nil, fw.Errorf(fw.Invalid, "roots of a roster are Ed25519 keys, and one is a %T", pub)
		}
		if slices.ContainsFunc(out, func(o ed25519.PublicKey) bool { return o.Equal(k) }) {
			return nil, fw.Errorf(fw.Invalid, "the roster names a root twice: it would sign for two")
		}
		out = append(out, k)
	}
	return out, nil
}

// OpenRosterBy returns the roster in a DSSE envelope that at least threshold
// distinct roots signed. If the roster names roots of its own, a threshold of
// these must have signed it too: new roots are no roots before they show that
// they can sign.
func OpenRosterBy(env []byte, roots []ed25519.PublicKey, threshold int) (*Roster, error) {
	if threshold < 1 || threshold > len(roots) {
		return nil, fw.Errorf(fw.Invalid, "a threshold of %d among %d root keys can never be met, or always is", threshold, len(roots))
	}
	e, payload, err := dsse.Open(env, RosterPayloadType, envelopeLimits)
	if err != nil {
		return nil, err
	}
	if err := signedBy(e, payload, roots, threshold, "the trusted"); err != nil {
		return nil, err
	}
	r, err := ParseRoster(payload)
	if err != nil {
		return nil, err
	}
	if r.roots != nil {
		if err := signedBy(e, payload, r.roots, r.doc.Roots.Threshold, "its own"); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// AcceptRoster returns the version right after current, which names its
// roots: a threshold of these signed it, and one of its own. It cannot go back
// to naming none.
func AcceptRoster(current *Roster, env []byte) (*Roster, error) {
	if current == nil || current.roots == nil {
		return nil, fw.Errorf(fw.Invalid, "the roster before names no roots: open the next one by the roots you trust")
	}
	next, err := OpenRosterBy(env, current.roots, current.doc.Roots.Threshold)
	if err != nil {
		return nil, err
	}
	if err := next.Follows(current); err != nil {
		return nil, err
	}
	if next.roots == nil {
		return nil, fw.Errorf(fw.Forbidden, "roster version %d names no roots and the one before does", next.Version())
	}
	return next, nil
}

// signedBy counts each root once, also when it is given twice.
func signedBy(e dsse.Envelope, payload []byte, roots []ed25519.PublicKey, threshold int, whose string) error {
	valid := 0
	for i, k := range roots {
		twice := slices.ContainsFunc(roots[:i], func(o ed25519.PublicKey) bool { return o.Equal(k) })
		if !twice && e.SignedBy(k, payload) {
			valid++
		}
	}
	if valid < threshold {
		return fw.Errorf(fw.Forbidden, "the roster is signed by %d of %s root keys and %d are needed", valid, whose, threshold)
	}
	return nil
}

// NamesRoots reports whether r says who signs the next version, so that it is
// opened with [AcceptRoster].
func (r *Roster) NamesRoots() bool { return r.roots != nil }

// EnvelopeDigest returns the digest of the document in an envelope, which
// nobody need have signed: it is for comparing with [Roster.Digest].
func EnvelopeDigest(env []byte) (fw.Digest, error) {
	_, payload, err := dsse.Open(env, RosterPayloadType, envelopeLimits)
	if err != nil {
		return fw.Digest{}, err
	}
	return fw.DigestOf(payload), nil
}
