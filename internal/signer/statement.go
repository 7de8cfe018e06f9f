package signer

import (
	"time"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/statement"
)

// SignStatement signs an encoded release statement and returns its envelope,
// with the signature of the permit's key. The permit's subject is the
// statement's digest. The statement must say what e's approved manifest says.
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
	if _, err := s.checkApprovals(e, at); err != nil {
		return nil, err
	}
	if err := st.Matches(e.Document); err != nil {
		return nil, err
	}
	if err := s.record(p, at); err != nil {
		return nil, err
	}
	env, err := StatementKey{k}.seal(document)
	if err != nil {
		return nil, err
	}
	return env, s.recordOutput(p, fw.DigestOf(env), at)
}

func (k StatementKey) seal(document []byte) ([]byte, error) {
	return dsse.Seal(statement.PayloadType, document, k.k.key)
}
