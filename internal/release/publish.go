package release

import (
	"context"
	"encoding/json"
	"time"

	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/review"
	"github.com/writ-project/writ/internal/store"
)

// warrant is a release whose images may be signed.
type warrant struct {
	row       store.Release
	manifest  fw.Manifest
	quorum    review.Quorum
	decisions []int64 // index of the key_use record of each component
	actor     fw.PersonID
	at        time.Time
}

// Publish signs the images of an approved release, verifies them and makes
// them available to campaigns. A release that is published already is
// returned as it is. After a failure or a crash, publish again.
func (s *Service) Publish(ctx context.Context, id fw.ReleaseID, actor fw.PersonID) (store.Release, error) {
	select {
	case s.publishing <- struct{}{}:
		defer func() { <-s.publishing }()
	case <-ctx.Done():
		return store.Release{}, fw.Wrap(fw.Unavailable, ctx.Err(), "another release is being published: try again")
	}
	w, err := s.authorize(ctx, id, actor)
	if err != nil {
		return store.Release{}, err
	}
	if w.row.State == fw.ReleasePublished {
		return w.row, nil
	}
	if err := s.checkProvenance(ctx, &w.manifest); err != nil {
		return store.Release{}, err
	}
	images, err := s.signAll(ctx, w)
	if err != nil {
		return store.Release{}, err
	}
	st, err := s.state(ctx, w, images, actor)
	if err != nil {
		return store.Release{}, err
	}
	return s.publish(ctx, w, images, st, actor)
}

// authorize records, for each component, the decision that its key may be
// used. It counts the approvals from their signatures.
func (s *Service) authorize(ctx context.Context, id fw.ReleaseID, actor fw.PersonID) (*warrant, error) {
	var w *warrant
	err := s.o.DB.Tx(ctx, func(tx *store.Tx) error {
		w = &warrant{actor: actor, at: tx.Now()}
		var err error
		if w.row, err = store.ReleaseByID(tx, id); err != nil {
			return err
		}
		if w.row.State == fw.ReleasePublished {
			return nil
		}
		if w.quorum, err = s.approved(tx, w.row); err != nil {
			return err
		}
		if err := json.Unmarshal(w.row.Manifest, &w.manifest); err != nil {
			return fw.Wrap(fw.Corrupt, err, "the stored manifest of release %s cannot be read", id)
		}
		w.decisions = make([]int64, len(w.manifest.Components))
		for i, c := range w.manifest.Components {
			pos, err := s.o.Ledger.Append(tx, ledger.Entry{
				Type: evidence.TypeKeyUse, Actor: string(actor),
				Streams: []evidence.StreamID{evidence.KeyStream(c.Key), evidence.ReleaseStream(id)},
				Data: evidence.KeyUse{
					Purpose: fw.PurposeImage, Key: c.Key, Subject: c.InputDigest, Reason: "sign component " + string(c.Name) + " of an approved release",
					Document: w.row.Manifest, Approvals: w.quorum.Result,
				},
			})
			if err != nil {
				return err
			}
			w.decisions[i] = pos.Index
		}
		return nil
	})
	return w, err
}

// approved returns the quorum of a release that is approved now, counted from
// the signatures.
func (s *Service) approved(tx *store.Tx, row store.Release) (review.Quorum, error) {
	if row.State != fw.ReleaseApproved {
		return review.Quorum{}, fw.Errorf(fw.Conflict, "release %s is %s: only an approved release can be published", row.ID, row.State)
	}
	product, err := store.ProductByID(tx, row.Product)
	if err != nil {
		return review.Quorum{}, err
	}
	q, err := s.o.Approvals.Quorum(tx, row.Manifest, product.Quorum, row.Proposer)
	if err != nil {
		return q, err
	}
	if !q.Result.Met() {
		return q, fw.Errorf(fw.Forbidden, "release %s has %d of %d approvals that count today: ask another approver to run writ approve %s", row.ID, len(q.Result.Counted), q.Result.Need, row.ID)
	}
	return q, nil
}

// publish makes a release of the signed images, if it is still what was
// signed and still approved.
func (s *Service) publish(ctx context.Context, w *warrant, images []signedImage, st signedStatement, actor fw.PersonID) (store.Release, error) {
	id := w.row.ID
	var row store.Release
	err := s.o.DB.Tx(ctx, func(tx *store.Tx) error {
		var err error
		if row, err = store.ReleaseByID(tx, id); err != nil {
			return err
		}
		if row.State == fw.ReleasePublished {
			return nil // another replica was first, with images as good as ours
		}
		if _, err := s.approved(tx, row); err != nil {
			return err
		}
		if fw.DigestOf(row.Manifest) != fw.DigestOf(w.row.Manifest) {
			return fw.Errorf(fw.Conflict, "release %s was edited while it was being signed: publish it again", id)
		}
		for i, g := range images {
			if err := s.recordSigned(tx, w, i, g, actor); err != nil {
				return err
			}
		}
		if err := s.recordStated(tx, id, st, actor); err != nil {
			return err
		}
		return s.recordPublished(tx, &row, images, st.digest, actor)
	})
	return row, err
}

// recordSigned makes a signed image downloadable.
func (s *Service) recordSigned(tx *store.Tx, w *warrant, i int, g signedImage, actor fw.PersonID) error {
	c, id := w.manifest.Components[i], w.row.ID
	_, err := s.o.Ledger.Append(tx, ledger.Entry{
		Type: evidence.TypeReleaseSigned, Actor: string(actor),
		Streams: []evidence.StreamID{evidence.ReleaseStream(id), evidence.KeyStream(c.Key)},
		Data: evidence.Signed{
			Release: id, Component: c.Name, Format: c.Format, Input: c.InputDigest,
			Output: g.image.Digest, Size: g.image.Size, Envelope: g.image.Envelope,
			Key: c.Key, KeyID: g.image.KeyID, Algorithm: g.algorithm, Custody: g.record.Custody,
			Permit: g.record.Permit, Decision: w.decisions[i],
			Approvals: g.record.Approvals, Provenance: g.record.Provenance, RequestedBy: g.record.By, SignedAt: g.record.At,
		},
	})
	if err != nil {
		return err
	}
	if err := store.InsertArtifact(tx, store.Artifact{Digest: g.image.Digest, Release: id, Kind: ArtifactImage, Size: g.image.Size}); err != nil {
		return err
	}
	if g.image.Envelope.IsZero() {
		return nil
	}
	return store.InsertArtifact(tx, store.Artifact{Digest: g.image.Envelope, Release: id, Kind: ArtifactEnvelope, Size: g.envelopeSize})
}

// Kinds of artifacts.
const (
	ArtifactImage    = "image"
	ArtifactEnvelope = "envelope" // detached signature of a raw image
)

func (s *Service) recordPublished(tx *store.Tx, row *store.Release, images []signedImage, stated fw.Digest, actor fw.PersonID) error {
	p := fw.Publication{
		Type: fw.TypePublication, Release: row.ID, Product: row.Product, Version: row.Version,
		Manifest: fw.DigestOf(row.Manifest), Statement: stated, PublishedAt: tx.Now().Unix(),
	}
	for _, g := range images {
		p.Images = append(p.Images, g.image)
	}
	b, err := json.Marshal(p)
	if err != nil {
		return fw.Wrap(fw.Internal, err, "cannot encode the publication")
	}
	digest := fw.DigestOf(b)
	row.Publication, row.PublicationDigest, row.PublishedAt = b, digest[:], p.PublishedAt
	if err := store.PublishRelease(tx, *row); err != nil {
		return err
	}
	row.State = fw.ReleasePublished
	_, err = s.o.Ledger.Append(tx, ledger.Entry{
		Type: evidence.TypeReleasePublished, Actor: string(actor),
		Streams: []evidence.StreamID{evidence.ReleaseStream(row.ID)},
		Data:    evidence.Published{Document: b},
	})
	return err
}
