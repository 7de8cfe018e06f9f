package review

import (
	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/signer"
	"github.com/writ-project/writ/internal/store"
)

// Kind says what is approved; it is the subject_type of approval records.
type Kind string

// Kinds of subjects.
const (
	KindRelease   Kind = "release"
	KindCampaign  Kind = "campaign"
	KindStage     Kind = "stage"
	KindLifecycle Kind = "lifecycle"
)

// Subject is what an approval is of.
type Subject struct {
	Kind     Kind
	Document []byte              // exactly what is signed
	Proposer fw.PersonID         // who asked, and so cannot approve
	Streams  []evidence.StreamID // of the approval record
}

// Approvals keeps approvals of exact bytes.
type Approvals struct {
	ledger    *ledger.Ledger
	approvers *Approvers
}

// NewApprovals returns the keeper of approvals.
func NewApprovals(l *ledger.Ledger, a *Approvers) *Approvals {
	return &Approvals{ledger: l, approvers: a}
}

// Submit checks person's signature over exactly s.Document under the newest
// roster and puts it on file. The same person approving again is no error and
// leaves no second record.
func (a *Approvals) Submit(tx *store.Tx, s Subject, person fw.PersonID, armored string) (store.Approval, error) {
	roster, err := a.approvers.Roster(tx)
	if fw.KindOf(err) == fw.NotFound {
		return store.Approval{}, fw.Errorf(fw.Conflict, "nothing can be approved before there are approvers: add the first with writ approver add")
	}
	if err != nil {
		return store.Approval{}, err
	}
	if person == s.Proposer {
		return store.Approval{}, fw.Errorf(fw.Forbidden, "%s proposed this and cannot approve it: ask another approver", person)
	}
	counted, err := one(s, roster, person, armored)
	if err != nil {
		return store.Approval{}, err
	}
	subject := fw.DigestOf(s.Document)
	rows, err := store.Approvals(tx, subject)
	if err != nil {
		return store.Approval{}, err
	}
	for _, row := range rows {
		if row.Person != person {
			continue
		}
		if _, err := one(s, roster, person, row.Armored); err != nil {
			return row, fw.Errorf(fw.Conflict, "%s approved this with a key that no longer counts: propose an edit, which makes new bytes, and approve those", person)
		}
		return row, nil
	}
	if len(rows) >= approval.MaxApprovals {
		return store.Approval{}, fw.Errorf(fw.Conflict, "%d people approved this already, which is the most that are looked at", len(rows))
	}
	pos, err := a.ledger.Append(tx, ledger.Entry{
		Type: evidence.TypeApproval, Actor: string(person), Streams: s.Streams,
		Data: evidence.Approval{
			SubjectType: string(s.Kind), Subject: subject, Person: person, Fingerprint: counted.Fingerprint,
			Roster: roster.Digest(), Document: s.Document, Signature: armored,
		},
	})
	if err != nil {
		return store.Approval{}, err
	}
	row := store.Approval{Subject: subject, Person: person, Armored: armored, Index: pos.Index, CreatedAt: tx.Now().Unix()}
	_, err = store.InsertApproval(tx, row)
	return row, err
}

// one judges a single approval by the rule that counts them all.
func one(s Subject, roster *approval.Roster, person fw.PersonID, armored string) (approval.Counted, error) {
	res := approval.Quorum(s.Document, []approval.Approval{{Person: person, Armored: armored}}, roster, 1, s.Proposer)
	if res.Met() {
		return res.Counted[0], nil
	}
	why := "it does not count"
	if len(res.Rejected) > 0 {
		why = res.Rejected[0].Reason
	}
	return approval.Counted{}, fw.Errorf(fw.Forbidden, "the approval by %s is refused: %s", person, why)
}

// Count counts the valid approvals of exactly doc under the newest roster and
// returns the roster's digest. Without a roster nobody counts.
func (a *Approvals) Count(q store.Queryer, doc []byte, need int, proposer fw.PersonID) (approval.Result, fw.Digest, error) {
	c, err := a.Quorum(q, doc, need, proposer)
	return c.Result, c.Roster, err
}

// Quorum is a counted quorum with everything needed to count it again.
type Quorum struct {
	Result   approval.Result
	Roster   fw.Digest // of the roster's document; zero without a roster
	Evidence signer.ApprovalEvidence
}

// Quorum counts the valid approvals of exactly doc and returns them with what
// the signer needs to count them for itself.
func (a *Approvals) Quorum(q store.Queryer, doc []byte, need int, proposer fw.PersonID) (Quorum, error) {
	c := Quorum{Result: approval.Result{Need: need}}
	roster, envelope, err := a.approvers.Newest(q)
	if fw.KindOf(err) == fw.NotFound {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	rows, err := store.Approvals(q, fw.DigestOf(doc))
	if err != nil {
		return c, err
	}
	list := make([]approval.Approval, len(rows))
	for i, row := range rows {
		list[i] = approval.Approval{Person: row.Person, Armored: row.Armored}
	}
	c.Result = approval.Quorum(doc, list, roster, need, proposer)
	c.Roster = roster.Digest()
	c.Evidence = signer.ApprovalEvidence{Document: doc, Approvals: list, Roster: envelope, Need: need, Proposer: proposer}
	return c, nil
}
