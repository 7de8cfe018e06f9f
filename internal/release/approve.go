package release

import (
	"context"
	"encoding/json"

	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/review"
	"github.com/writ-project/writ/internal/store"
)

// Signature is one person's approval as it is handed in.
type Signature struct {
	Person  fw.PersonID
	Subject fw.Digest // of the bytes that were signed, for a better answer when they are outdated; zero: not said
	Armored string    // SSHSIG, namespace writ-approval
}

// current refuses a signature that was made over other bytes than doc.
func (g Signature) current(what string, doc []byte) error {
	if !g.Subject.IsZero() && g.Subject != fw.DigestOf(doc) {
		return fw.Errorf(fw.Conflict, "%s was edited since: read it again and approve what it says now", what)
	}
	return nil
}

// ApproveRelease takes an approval of a release's manifest. When it completes
// the product's quorum, the release becomes approved.
func (s *Service) ApproveRelease(ctx context.Context, id fw.ReleaseID, g Signature) (store.Release, error) {
	var row store.Release
	err := s.o.DB.Tx(ctx, func(tx *store.Tx) error {
		var err error
		if row, err = store.ReleaseByID(tx, id); err != nil {
			return err
		}
		if row.State != fw.ReleaseInReview && row.State != fw.ReleaseApproved {
			return fw.Errorf(fw.Conflict, "release %s is %s: only a release in review can be approved", id, row.State)
		}
		if err := g.current("release "+string(id), row.Manifest); err != nil {
			return err
		}
		_, err = s.o.Approvals.Submit(tx, review.Subject{
			Kind: review.KindRelease, Document: row.Manifest, Proposer: row.Proposer,
			Streams: []evidence.StreamID{evidence.ReleaseStream(id)},
		}, g.Person, g.Armored)
		if err != nil || row.State == fw.ReleaseApproved {
			return err
		}
		product, err := store.ProductByID(tx, row.Product)
		if err != nil {
			return err
		}
		res, _, err := s.o.Approvals.Count(tx, row.Manifest, product.Quorum, row.Proposer)
		if err != nil || !res.Met() {
			return err
		}
		if err := store.SetReleaseState(tx, id, fw.ReleaseInReview, fw.ReleaseApproved, ""); err != nil {
			return err
		}
		row.State = fw.ReleaseApproved
		return nil
	})
	return row, err
}

// ApproveCampaign takes an approval of a campaign's plan.
func (s *Service) ApproveCampaign(ctx context.Context, id fw.CampaignID, g Signature) (store.Campaign, error) {
	return s.approveCampaign(ctx, id, g, func(row store.Campaign) (review.Kind, []byte, error) {
		return review.KindCampaign, row.Plan, nil
	})
}

// ApproveStage takes an approval of opening a stage of a campaign.
func (s *Service) ApproveStage(ctx context.Context, id fw.CampaignID, stage int, g Signature) (store.Campaign, error) {
	return s.approveCampaign(ctx, id, g, func(row store.Campaign) (review.Kind, []byte, error) {
		var plan fw.Plan
		if err := json.Unmarshal(row.Plan, &plan); err != nil {
			return "", nil, fw.Wrap(fw.Corrupt, err, "the stored plan of campaign %s cannot be read", id)
		}
		if stage < 0 || stage >= len(plan.Stages) {
			return "", nil, fw.Errorf(fw.Invalid, "campaign %s has %d stages, numbered from 0", id, len(plan.Stages))
		}
		if !plan.Stages[stage].NeedsApproval {
			return "", nil, fw.Errorf(fw.Conflict, "stage %d of campaign %s opens by itself and needs no approval", stage, id)
		}
		doc, err := s.o.StageDocument(row, stage, plan.Stages[stage].Name)
		return review.KindStage, doc, err
	})
}

func (s *Service) approveCampaign(ctx context.Context, id fw.CampaignID, g Signature, document func(store.Campaign) (review.Kind, []byte, error)) (store.Campaign, error) {
	var row store.Campaign
	err := s.o.DB.Tx(ctx, func(tx *store.Tx) error {
		var err error
		if row, err = store.CampaignByID(tx, id); err != nil {
			return err
		}
		switch row.State {
		case fw.CampaignInReview, fw.CampaignApproved, fw.CampaignScheduled, fw.CampaignRunning, fw.CampaignPaused:
		case fw.CampaignDraft, fw.CampaignCompleted, fw.CampaignAborted, fw.CampaignRollingBack, fw.CampaignRolledBack:
			return fw.Errorf(fw.Conflict, "campaign %s is %s, so there is nothing to approve", id, row.State)
		}
		kind, doc, err := document(row)
		if err != nil {
			return err
		}
		if err := g.current("campaign "+string(id), doc); err != nil {
			return err
		}
		_, err = s.o.Approvals.Submit(tx, review.Subject{
			Kind: kind, Document: doc, Proposer: row.Proposer,
			Streams: []evidence.StreamID{evidence.CampaignStream(id)},
		}, g.Person, g.Armored)
		if err != nil {
			return err
		}
		if err := s.o.CampaignApproved(tx, id); err != nil {
			return err
		}
		row, err = store.CampaignByID(tx, id)
		return err
	})
	return row, err
}
