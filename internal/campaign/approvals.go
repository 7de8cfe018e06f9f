package campaign

import (
	"sync"

	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/store"
)

// approvalKey names one counting of approvals: everything it depends on is
// immutable.
type approvalKey struct {
	plan, roster fw.Digest
	rows         int
}

type approvalCache struct {
	mu sync.Mutex
	m  map[approvalKey]int
}

// PlanApprovals returns how many distinct valid approvers the running plan
// has now, under the newest roster. Signatures are checked once per plan,
// roster and number of approvals.
func (r *Register) PlanApprovals(q store.Queryer, l *Live) (int, error) {
	type batchKey struct {
		id      fw.CampaignID
		changes int
	}
	tx, writing := q.(*store.Tx)
	if writing {
		if n, ok := tx.Batch().Cache[batchKey{l.Row.ID, tx.Batch().Changes}].(int); ok {
			return n, nil
		}
	}
	roster, err := r.roster(q)
	if err != nil {
		if fw.KindOf(err) == fw.NotFound {
			return 0, nil
		}
		return 0, err
	}
	rows, err := store.Approvals(q, l.Terms.PlanDigest)
	if err != nil {
		return 0, err
	}
	key := approvalKey{plan: l.Terms.PlanDigest, roster: roster.Digest(), rows: len(rows)}
	r.approvals.mu.Lock()
	n, ok := r.approvals.m[key]
	r.approvals.mu.Unlock()
	if !ok {
		res, _, err := r.Approvals(q, l.Row.Plan, l.Terms.Plan.Quorum, l.Row.Proposer)
		if err != nil {
			return 0, err
		}
		n = len(res.Counted)
		r.approvals.mu.Lock()
		if len(r.approvals.m) >= maxCachedTerms {
			clear(r.approvals.m)
		}
		r.approvals.m[key] = n
		r.approvals.mu.Unlock()
	}
	if writing {
		tx.Batch().Cache[batchKey{l.Row.ID, tx.Batch().Changes}] = n
	}
	return n, nil
}

// Approvals counts the valid approvals of exactly doc.
func (r *Register) Approvals(q store.Queryer, doc []byte, need int, proposer fw.PersonID) (approval.Result, fw.Digest, error) {
	roster, err := r.roster(q)
	if err != nil {
		if fw.KindOf(err) == fw.NotFound {
			return approval.Result{Need: need}, fw.Digest{}, nil
		}
		return approval.Result{}, fw.Digest{}, err
	}
	rows, err := store.Approvals(q, fw.DigestOf(doc))
	if err != nil {
		return approval.Result{}, fw.Digest{}, err
	}
	list := make([]approval.Approval, len(rows))
	for i, row := range rows {
		list[i] = approval.Approval{Person: row.Person, Armored: row.Armored}
	}
	return approval.Quorum(doc, list, roster, need, proposer), roster.Digest(), nil
}
