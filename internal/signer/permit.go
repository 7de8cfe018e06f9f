package signer

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"sync/atomic"

	"github.com/writ-project/writ/internal/fw"
)

// Verdict is the answer of the decision behind a [Grant]. Its zero value, and
// every value other than VerdictAllow, denies.
type Verdict string

// Verdicts.
const (
	VerdictDeny  Verdict = "deny"
	VerdictAllow Verdict = "allow"
)

// Grant is what a recorded decision says about the use of a key.
type Grant struct {
	Purpose  fw.Purpose
	Key      fw.KeyName
	Subject  fw.Digest // SHA-256 of exactly what may be signed; each operation says of what
	Evidence int64     // index of the decision record in the log
	Verdict  Verdict
	By       fw.PersonID // who asked, for the journal; no part of the permit's id
}

// Permit is the right to use one key once on one subject. Only [Signer.Mint]
// makes one that works. A Permit must not be copied.
type Permit struct {
	signer *Signer
	grant  Grant
	id     fw.PermitID
	spent  atomic.Bool
}

// ID names the permit in the journal and in evidence. It is a function of the
// grant: minting the same grant again gives a permit with the same id.
func (p *Permit) ID() fw.PermitID {
	if p == nil {
		return ""
	}
	return p.id
}

// Mint makes the permit that g allows.
func (s *Signer) Mint(g Grant) (*Permit, error) {
	if g.Verdict != VerdictAllow {
		return nil, fw.Errorf(fw.Forbidden, "the decision does not allow the use of key %q", g.Key)
	}
	if g.Subject.IsZero() {
		return nil, fw.Errorf(fw.Invalid, "a permit must name the digest of what may be signed")
	}
	if g.Evidence < 0 {
		return nil, fw.Errorf(fw.Invalid, "a permit must name its decision record, and %d is not the index of one", g.Evidence)
	}
	if g.Purpose == fw.PurposeLog {
		// Checkpoints follow the tree, not a decision; LogSigner has its own rules.
		return nil, fw.Errorf(fw.Invalid, "log keys sign checkpoints only and take no permits")
	}
	if _, err := s.ks.use(g.Key, g.Purpose); err != nil {
		return nil, err
	}
	return &Permit{signer: s, grant: g, id: permitID(g)}, nil
}

var permitEncoding = base32.NewEncoding("abcdefghijkmnpqrstuvwxyz23456789").WithPadding(base32.NoPadding)

// permitID is "prm_" and the first 100 bits of a hash over the grant, in the
// alphabet of fw.NewID.
func permitID(g Grant) fw.PermitID {
	b := make([]byte, 0, 192)
	b = append(b, "writ-permit/v1\x00"...)
	b = append(b, g.Purpose...)
	b = append(b, 0)
	b = append(b, g.Key...)
	b = append(b, 0)
	b = append(b, g.Subject[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(g.Evidence)) //nolint:gosec // G115: Mint has refused negative ones
	sum := sha256.Sum256(b)
	return fw.PermitID("prm_" + permitEncoding.EncodeToString(sum[:13])[:20])
}

// redeem spends p for purpose and returns its grant and its key. Whatever goes
// wrong afterwards, p is spent.
func (s *Signer) redeem(p *Permit, purpose fw.Purpose) (Grant, *private, error) {
	if p == nil || p.signer == nil {
		return Grant{}, nil, fw.Errorf(fw.Forbidden, "no key is used without a permit")
	}
	if p.signer != s {
		return Grant{}, nil, fw.Errorf(fw.Forbidden, "permit %s was minted by another signer", p.id)
	}
	if p.grant.Purpose != purpose {
		return Grant{}, nil, fw.Errorf(fw.Forbidden, "permit %s is for purpose %s, not %s", p.id, p.grant.Purpose, purpose)
	}
	if !p.spent.CompareAndSwap(false, true) {
		return Grant{}, nil, fw.Errorf(fw.Conflict, "permit %s has been used; a new decision is needed", p.id)
	}
	// Again, because the key may have been retired since Mint.
	k, err := s.ks.use(p.grant.Key, purpose)
	if err != nil {
		return Grant{}, nil, err
	}
	return p.grant, k, nil
}
