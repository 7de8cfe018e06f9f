package release

import (
	"context"
	"encoding/json"
	"math"

	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/policy"
	"github.com/writ-project/writ/internal/store"
)

// Propose checks a draft and puts it in review.
func (s *Service) Propose(ctx context.Context, d Draft, actor fw.PersonID) (store.Release, error) {
	m, err := s.prepare(ctx, d)
	if err != nil {
		return store.Release{}, err
	}
	var row store.Release
	err = s.o.DB.Tx(ctx, func(tx *store.Tx) error {
		row = store.Release{ID: fw.ReleaseID(fw.NewID("rel", tx.Now())), Product: m.Product, CreatedAt: tx.Now().Unix()}
		if err := s.setManifest(tx, &row, m, actor); err != nil {
			return err
		}
		if err := store.InsertRelease(tx, row); err != nil {
			return err
		}
		return s.recordProposal(tx, row, actor)
	})
	return row, err
}

// Edit replaces the manifest of a release that is not published. The new
// bytes void every approval of the old ones, and actor becomes the proposer.
func (s *Service) Edit(ctx context.Context, id fw.ReleaseID, d Draft, actor fw.PersonID) (store.Release, error) {
	m, err := s.prepare(ctx, d)
	if err != nil {
		return store.Release{}, err
	}
	var row store.Release
	err = s.o.DB.Tx(ctx, func(tx *store.Tx) error {
		var err error
		if row, err = store.ReleaseByID(tx, id); err != nil {
			return err
		}
		if row.State != fw.ReleaseDraft && !row.State.CanMove(fw.ReleaseDraft) {
			return fw.Errorf(fw.Conflict, "release %s is %s and cannot be edited: propose a new release", id, row.State)
		}
		if row.Product != m.Product {
			return fw.Errorf(fw.Invalid, "release %s is for product %s: propose another release for %s", id, row.Product, m.Product)
		}
		if err := s.setManifest(tx, &row, m, actor); err != nil {
			return err
		}
		if err := store.SetReleaseManifest(tx, row); err != nil {
			return err
		}
		return s.recordProposal(tx, row, actor)
	})
	return row, err
}

// prepare checks a draft and everything it names. It reads whole images, so
// it runs outside a transaction; what it read cannot change, because blobs
// are named by their digest.
func (s *Service) prepare(ctx context.Context, d Draft) (*fw.Manifest, error) {
	product, err := store.ProductByID(s.o.DB.Snapshot(ctx), d.Product)
	if err != nil {
		return nil, err
	}
	m, err := d.check(product)
	if err != nil {
		return nil, err
	}
	if err := s.inspect(ctx, m); err != nil {
		return nil, err
	}
	return m, nil
}

// setManifest makes the exact bytes that people approve.
func (s *Service) setManifest(tx *store.Tx, row *store.Release, m *fw.Manifest, actor fw.PersonID) error {
	if err := versionFree(tx, m, row.ID); err != nil {
		return err
	}
	m.Release, m.ProposedBy, m.CreatedAt, m.Nonce = row.ID, actor, tx.Now().Unix(), nonce()
	b, err := json.Marshal(m)
	if err != nil {
		return fw.Wrap(fw.Internal, err, "cannot encode the manifest")
	}
	if len(b) > maxManifest {
		return fw.Errorf(fw.TooLarge, "the manifest would be %d bytes and the limit is %d: shorten notes and advisory", len(b), maxManifest)
	}
	digest := fw.DigestOf(b)
	row.Version, row.Type, row.State, row.Proposer = m.Version, m.ReleaseType, fw.ReleaseInReview, actor
	row.Manifest, row.ManifestDigest = b, digest[:]
	return nil
}

// versionFree refuses a version that another release of the product has, or
// that devices would take for it: versions that differ only in build metadata
// that is no number.
func versionFree(tx *store.Tx, m *fw.Manifest, self fw.ReleaseID) error {
	rows, err := store.Releases(tx, store.ReleaseFilter{Product: m.Product, Limit: math.MaxInt32})
	if err != nil {
		return err
	}
	for _, r := range rows {
		if r.ID == self || r.State == fw.ReleaseWithdrawn {
			continue
		}
		if order, err := policy.CompareVersions(r.Version, m.Version); err != nil || order == 0 {
			return fw.Wrap(fw.Conflict, err, "%s %s is release %s, which is %s: choose another version, or withdraw that one first", m.Product, r.Version, r.ID, r.State)
		}
	}
	return nil
}

func (s *Service) recordProposal(tx *store.Tx, row store.Release, actor fw.PersonID) error {
	_, err := s.o.Ledger.Append(tx, ledger.Entry{
		Type: evidence.TypeReleaseProposed, Actor: string(actor),
		Streams: []evidence.StreamID{evidence.ReleaseStream(row.ID)},
		Data:    evidence.Proposed{Document: row.Manifest},
	})
	return err
}

// Withdraw takes a release back for good: no device is offered it again. One
// person suffices, because it lowers trust.
func (s *Service) Withdraw(ctx context.Context, id fw.ReleaseID, reason string, actor fw.PersonID) (store.Release, error) {
	if reason == "" {
		return store.Release{}, fw.Errorf(fw.Invalid, "say why release %s is withdrawn", id)
	}
	if err := checkText("reason", reason, maxReason); err != nil {
		return store.Release{}, err
	}
	var row store.Release
	err := s.o.DB.Tx(ctx, func(tx *store.Tx) error {
		var err error
		if row, err = store.ReleaseByID(tx, id); err != nil {
			return err
		}
		if row.State == fw.ReleaseWithdrawn {
			return nil // done, by whoever was first and for their reason
		}
		if err := store.SetReleaseState(tx, id, row.State, fw.ReleaseWithdrawn, reason); err != nil {
			return err
		}
		row.State, row.WithdrawnReason = fw.ReleaseWithdrawn, reason
		s.changed(tx, row.Product)
		_, err = s.o.Ledger.Append(tx, ledger.Entry{
			Type: evidence.TypeReleaseWithdrawn, Actor: string(actor),
			Streams: []evidence.StreamID{evidence.ReleaseStream(id)},
			Data:    evidence.Withdrawn{Release: id, Reason: reason},
		})
		return err
	})
	return row, err
}
