package signer

import (
	"time"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/statement"
)

// SignStatement signs an encoded release statement and returns its envelope,
// with the signature of the permit's key. The permit's subject is the
// statement's digest. The statement must say what e's approved manifest says, of
// images that this signer made of it.
func (s *Signer) SignStatement(p *Permit, document []byte, e ApprovalEvidence, at time.Time) ([]byte, error) {
	grant, k, err := s.redeem(p, fw.PurposeStatement)
	if err != nil {
		return nil, err
	}
	if fw.DigestOf(document) != grant.Subject {
		return nil, fw.Errorf(fw.Forbidden, "permit %s is for another statement", p.id)
	}
	st, err := statement.Parse(document)
	if err != nil {
		return nil, err
	}
	manifest, quorum, err := s.checkApprovals(e, at)
	if err != nil {
		return nil, err
	}
	if err := st.Matches(e.Document); err != nil {
		return nil, err
	}
	if err := s.checkImages(&st, &manifest, fw.DigestOf(e.Document)); err != nil {
		return nil, err
	}
	if err := s.record(p, at); err != nil {
		return nil, err
	}
	env, err := StatementKey{k}.seal(document)
	if err != nil {
		return nil, err
	}
	return env, s.journal.Append(Entry{
		Kind: EntrySigned, At: at.Unix(), Permit: p.id, Purpose: grant.Purpose, Key: grant.Key, Subject: grant.Subject, Evidence: grant.Evidence,
		Output: fw.DigestOf(env), Document: fw.DigestOf(e.Document), KeyID: k.info.KeyID, Algorithm: k.info.Algorithm,
		Custody: s.custodyOf(k.info), Approvals: quorum.Counted, Provenance: manifest.Provenance, By: grant.By,
	})
}

// checkImages holds every image that a statement names against the journal:
// this signer made it for this manifest, or it is the very file that was
// approved. Else an approved manifest could vouch for any image.
func (s *Signer) checkImages(st *statement.Statement, m *fw.Manifest, document fw.Digest) error {
	for _, c := range m.Components {
		_, digest, ok := st.Image(c.Name)
		if !ok || digest != c.InputDigest && !s.journal.hasMade(document, c.Name, digest) {
			return fw.Errorf(fw.Forbidden, "the statement names image %s for component %s, which this signer did not make of what was approved", digest, c.Name)
		}
	}
	return nil
}

func (k StatementKey) seal(document []byte) ([]byte, error) {
	return dsse.Seal(statement.PayloadType, document, k.k.key)
}
