package campaign

import (
	"encoding/json"

	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/rollout"
	"github.com/writ-project/writ/internal/store"
)

// Live is a campaign within one write transaction: the row, its terms and the
// decoded status. Closures that share a commit share it, so that a hundred
// check-ins decode and store it once.
type Live struct {
	Row    store.Campaign
	Terms  *Terms
	Status rollout.Status
}

type liveKey fw.CampaignID

// Open returns campaign id for changing in tx.
func (r *Register) Open(tx *store.Tx, id fw.CampaignID) (*Live, error) {
	if l, ok := tx.Batch().Cache[liveKey(id)].(*Live); ok {
		return l, nil
	}
	row, err := store.CampaignByID(tx, id)
	if err != nil {
		return nil, err
	}
	return r.open(tx, row)
}

func (r *Register) open(tx *store.Tx, row store.Campaign) (*Live, error) {
	l, err := r.View(tx, row)
	if err != nil {
		return nil, err
	}
	tx.Batch().Cache[liveKey(row.ID)] = l
	return l, nil
}

// View returns campaign row for reading outside a write.
func (r *Register) View(q store.Queryer, row store.Campaign) (*Live, error) {
	l := &Live{Row: row}
	var err error
	if l.Terms, err = r.Terms(q, &row); err != nil {
		return nil, err
	}
	l.Status, err = DecodeStatus(row)
	return l, err
}

// OpenProduct returns a product's live campaigns for changing in tx, oldest
// first.
func (r *Register) OpenProduct(tx *store.Tx, p fw.ProductID) ([]*Live, error) {
	type key fw.ProductID
	if ids, ok := tx.Batch().Cache[key(p)].([]fw.CampaignID); ok {
		out := make([]*Live, 0, len(ids))
		for _, id := range ids {
			l, err := r.Open(tx, id)
			if err != nil {
				return nil, err
			}
			if l.Row.State.Live() {
				out = append(out, l)
			}
		}
		return out, nil
	}
	rows, err := store.LiveCampaigns(tx, p)
	if err != nil {
		return nil, err
	}
	ids := make([]fw.CampaignID, 0, len(rows))
	out := make([]*Live, 0, len(rows))
	for _, row := range rows {
		ids = append(ids, row.ID)
		l, ok := tx.Batch().Cache[liveKey(row.ID)].(*Live)
		if !ok {
			if l, err = r.open(tx, row); err != nil {
				return nil, err
			}
		}
		out = append(out, l)
	}
	tx.Batch().Cache[key(p)] = ids
	return out, nil
}

// DecodeStatus reads the status of a campaign row.
func DecodeStatus(row store.Campaign) (rollout.Status, error) {
	var st rollout.Status
	if err := json.Unmarshal(row.Status, &st); err != nil {
		return st, fw.Wrap(fw.Corrupt, err, "the stored status of campaign %s cannot be read", row.ID)
	}
	return st, nil
}

// Apply feeds e to the rules and stores what comes of it with the commit. It
// returns the transitions, which belong in the record of whatever caused e.
func (r *Register) Apply(tx *store.Tx, l *Live, e rollout.Event) ([]rollout.Transition, error) {
	now := tx.Now().Unix()
	next, moves, err := rollout.Apply(l.Terms.Plan, l.Status, e, now)
	if err != nil {
		return nil, err
	}
	l.Status = next
	l.Row.NextTimer = rollout.NextTimer(l.Terms.Plan, next, now)
	if len(moves) == 0 && next.State == l.Row.State {
		// Only tallies moved. Whoever needs them in this commit shares l.
		tx.BeforeCommit(liveKey(l.Row.ID), l.store)
		return nil, nil
	}
	l.Row.State = next.State
	if err := l.store(tx); err != nil {
		return nil, err
	}
	if len(moves) > 0 {
		// Devices that were idle may now have something to do.
		product := l.Row.Product
		tx.OnCommit(func() { r.changed(product) })
	}
	return moves, nil
}

// store writes the status to the campaign's row.
func (l *Live) store(tx *store.Tx) error {
	var err error
	if l.Row.Status, err = json.Marshal(l.Status); err != nil {
		return fw.Wrap(fw.Internal, err, "cannot encode the status of campaign %s", l.Row.ID)
	}
	return store.SetCampaignStatus(tx, &l.Row)
}
