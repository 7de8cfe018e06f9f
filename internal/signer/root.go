package signer

import (
	"crypto/ed25519"
	"time"

	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
)

// SignRoster signs a roster document and returns its DSSE envelope. The
// permit's subject is the document's digest. The roster must follow the one
// adopted last.
func (s *Signer) SignRoster(p *Permit, document []byte, at time.Time) ([]byte, error) {
	return s.seal(p, approval.RosterPayloadType, document, at, func() (int64, error) {
		roster, err := approval.ParseRoster(document)
		if err != nil {
			return 0, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		prev, err := s.lastRoster()
		if err != nil {
			return 0, err
		}
		return 0, roster.Follows(prev)
	})
}

// SignTrustBundle signs a trust bundle document and returns its DSSE envelope
// (payload type authz.TrustBundlePayloadType). The permit's subject is the
// document's digest.
func (s *Signer) SignTrustBundle(p *Permit, document []byte, at time.Time) ([]byte, error) {
	return s.seal(p, authz.TrustBundlePayloadType, document, at, func() (int64, error) {
		var doc authz.TrustDocument
		err := dsse.Decode(document, &doc)
		return doc.Version, err
	})
}

// seal signs document if check has nothing against it; check returns the
// version of a trust bundle.
func (s *Signer) seal(p *Permit, payloadType string, document []byte, at time.Time, check func() (int64, error)) ([]byte, error) {
	grant, k, err := s.redeem(p, fw.PurposeRosterRoot)
	if err != nil {
		return nil, err
	}
	if fw.DigestOf(document) != grant.Subject {
		return nil, fw.Errorf(fw.Forbidden, "permit %s is for another document", p.id)
	}
	trust, err := check()
	if err != nil {
		return nil, err
	}
	if err := s.record(p, at); err != nil {
		return nil, err
	}
	env, err := RosterRootKey{k}.seal(payloadType, document)
	if err != nil {
		return nil, err
	}
	return env, s.journal.Append(Entry{
		Kind: EntrySigned, At: at.Unix(), Permit: p.id, Purpose: grant.Purpose, Key: grant.Key, Subject: grant.Subject, Evidence: grant.Evidence,
		Output: fw.DigestOf(env), Document: grant.Subject, KeyID: k.info.KeyID, Algorithm: k.info.Algorithm, Custody: s.custodyOf(k.info),
		By: grant.By, Trust: trust,
	})
}

func (k RosterRootKey) seal(payloadType string, document []byte) ([]byte, error) {
	return dsse.Seal(payloadType, document, k.k.key)
}

// AdoptRoster makes the roster in a DSSE envelope the one that approvals are
// checked against. The first one is taken as it is; after that each must
// follow the one before, so that a removed approver cannot be brought back by
// presenting an old roster. Adopting the current one again does nothing.
// SignImage adopts the roster it is given by the same rule.
func (s *Signer) AdoptRoster(envelope []byte, at time.Time) error {
	roster, err := s.openRoster(envelope)
	if err != nil {
		return err
	}
	return s.adopt(roster, at)
}

// Roots are the keys that sign rosters and trust bundles, of which Threshold
// must sign.
type Roots struct {
	Keys      []ed25519.PublicKey
	Threshold int
}

// openRoster checks an envelope against the roots that the roster before it
// names, else against those that the signer was set up with, else against the
// active roster root keys. The roster in force needs no check again.
func (s *Signer) openRoster(envelope []byte) (*approval.Roster, error) {
	s.mu.Lock()
	last, err := s.lastRoster()
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if last != nil {
		digest, err := approval.EnvelopeDigest(envelope)
		switch {
		case err != nil:
			return nil, err
		case digest == last.Digest():
			return last, nil
		case last.NamesRoots():
			return approval.AcceptRoster(last, envelope)
		}
	}
	if r := s.opt.Roots; r != nil {
		return approval.OpenRosterBy(envelope, r.Keys, r.Threshold)
	}
	roots := s.ks.roots()
	if len(roots) == 0 {
		return nil, fw.Errorf(fw.Conflict, "there is no roster root key: create one, or put the %s file of an offline one into the key directory", publicSuffix)
	}
	var why error
	for _, info := range roots {
		pub, err := info.Public()
		if err != nil {
			return nil, err
		}
		key, ok := pub.(ed25519.PublicKey)
		if !ok {
			continue
		}
		roster, err := approval.OpenRoster(envelope, key)
		if err == nil {
			return roster, nil
		}
		why = err
	}
	return nil, why
}

func (s *Signer) adopt(roster *approval.Roster, at time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	last, err := s.lastRoster()
	if err != nil {
		return err
	}
	if last != nil {
		if last.Digest() == roster.Digest() {
			return nil
		}
		if err := roster.Follows(last); err != nil {
			return fw.Wrap(fw.Conflict, err, "roster version %d does not follow version %d, which this signer knows: adopt the versions in between first", roster.Version(), last.Version())
		}
	}
	if err := s.journal.Append(Entry{Kind: EntryRoster, At: at.Unix(), Output: roster.Digest(), Roster: roster.Document()}); err != nil {
		return err
	}
	s.roster = roster
	return nil
}

// lastRoster returns the roster adopted last, also before a restart; nil if
// none was. The caller holds s.mu.
func (s *Signer) lastRoster() (*approval.Roster, error) {
	if s.roster == nil {
		if doc := s.journal.Roster(); doc != nil {
			roster, err := approval.ParseRoster(doc)
			if err != nil {
				return nil, fw.Wrap(fw.Corrupt, err, "the roster in the signing journal is damaged: restore the journal from a backup")
			}
			s.roster = roster
		}
	}
	return s.roster, nil
}
