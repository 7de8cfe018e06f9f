package signer

import (
	"crypto/ed25519"

	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/tlog"
)

// Decision is a key_use record with the proof that the evidence log holds it.
// It is what a permit is minted from when who asks is not trusted: nobody can
// have a signature without leaving that record in the log.
type Decision struct {
	Salt    []byte `json:"salt"`    // 32 bytes
	Record  []byte `json:"record"`  // the record's exact bytes
	Receipt []byte `json:"receipt"` // COSE receipt (RFC 9942) of its commitment
}

// opened is a decision that the log holds.
type opened struct {
	index int64
	use   evidence.KeyUse
}

// open checks d under the log's key. What the record says is then true of the
// log, not of the world: approvals are for the caller to check.
func (d Decision) open(log ed25519.PublicKey) (opened, error) {
	if len(d.Salt) != len(evidence.Salt{}) {
		return opened{}, fw.Errorf(fw.Invalid, "the salt of a decision record has %d bytes, not %d", len(evidence.Salt{}), len(d.Salt))
	}
	r, err := evidence.Decode(d.Record)
	if err != nil {
		return opened{}, err
	}
	if r.Type != evidence.TypeKeyUse {
		return opened{}, fw.Errorf(fw.Forbidden, "a signature stands on a %s record, and record %d is a %s", evidence.TypeKeyUse, r.Index, r.Type)
	}
	use, err := evidence.Payload[evidence.KeyUse](r)
	if err != nil {
		return opened{}, err
	}
	c := evidence.Commit(evidence.Salt(d.Salt), d.Record)
	if _, err := tlog.CheckReceipt(d.Receipt, c[:], log); err != nil {
		return opened{}, fw.Wrap(fw.Forbidden, err, "the receipt does not show that decision record %d is in the evidence log this signer was set up with", r.Index)
	}
	return opened{r.Index, use}, nil
}

// grant is what the decision allows, asked for by by.
func (o opened) grant(by fw.PersonID) Grant {
	return Grant{Purpose: o.use.Purpose, Key: o.use.Key, Subject: o.use.Subject, Evidence: o.index, Verdict: VerdictAllow, By: by}
}
