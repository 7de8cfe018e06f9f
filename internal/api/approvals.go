package api

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/writ-project/writ/apitypes"
	"github.com/writ-project/writ/internal/access"
	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/campaign"
	"github.com/writ-project/writ/internal/enroll"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/release"
	"github.com/writ-project/writ/internal/review"
	"github.com/writ-project/writ/internal/store"
)

type subjectQuery struct {
	Type  apitypes.SubjectType `query:"subject_type"`
	ID    string               `query:"id"`
	Stage int                  `query:"stage" minimum:"0"`
}

// subject is what an approval is of, with what counts.
type subject struct {
	doc      []byte
	proposer fw.PersonID
	need     int
}

func (s *server) approvals() {
	register(s, op{http.MethodGet, "/approvals", access.ReleasesRead, "The exact bytes to be approved, and who approved them"}, func(ctx context.Context, in *subjectQuery) (*body[apitypes.Approvals], error) {
		return s.standing(ctx, in)
	})
	register(s, op{http.MethodPost, "/approvals", access.ApprovalsWrite, "Submit the caller's SSH signature over those bytes"}, func(ctx context.Context, in *body[apitypes.NewApproval]) (*body[apitypes.Approvals], error) {
		a := in.Body
		if err := s.submit(ctx, a); err != nil {
			return nil, err
		}
		return s.standing(ctx, &subjectQuery{a.SubjectType, a.ID, a.Stage})
	})
}

func (s *server) submit(ctx context.Context, a apitypes.NewApproval) error {
	g := release.Signature{Person: who(ctx).Person, Subject: a.Digest, Armored: a.Signature}
	var err error
	switch a.SubjectType {
	case apitypes.SubjectRelease:
		_, err = s.o.Releases.ApproveRelease(ctx, fw.ReleaseID(a.ID), g)
	case apitypes.SubjectCampaign:
		_, err = s.o.Releases.ApproveCampaign(ctx, fw.CampaignID(a.ID), g)
	case apitypes.SubjectStage:
		_, err = s.o.Releases.ApproveStage(ctx, fw.CampaignID(a.ID), a.Stage, g)
	case apitypes.SubjectLifecycle:
		err = s.o.DB.Tx(ctx, func(tx *store.Tx) error {
			doc, req, err := enroll.OpenRelease(tx, fw.DeviceID(a.ID))
			if err != nil {
				return err
			}
			if !a.Digest.IsZero() && a.Digest != fw.DigestOf(doc) {
				return fw.Errorf(fw.Conflict, "the request for device %s has changed since you signed it: read it again and sign it", a.ID)
			}
			_, err = s.o.Approvals.Submit(tx, review.Subject{
				Kind: review.KindLifecycle, Document: doc, Proposer: req.RequestedBy,
				Streams: []evidence.StreamID{evidence.DeviceStream(fw.DeviceID(a.ID))},
			}, g.Person, g.Armored)
			return err
		})
	default:
		err = unknownSubject(a.SubjectType)
	}
	return err
}

func unknownSubject(t apitypes.SubjectType) error {
	return fw.Errorf(fw.Invalid, "subject_type must be release, campaign, stage or lifecycle, not %q", t)
}

func (s *server) find(q store.Queryer, in *subjectQuery) (subject, error) {
	switch in.Type {
	case apitypes.SubjectRelease:
		r, err := store.ReleaseByID(q, fw.ReleaseID(in.ID))
		if err != nil {
			return subject{}, err
		}
		p, err := store.ProductByID(q, r.Product)
		return subject{r.Manifest, r.Proposer, p.Quorum}, err
	case apitypes.SubjectCampaign, apitypes.SubjectStage:
		c, err := store.CampaignByID(q, fw.CampaignID(in.ID))
		if err != nil {
			return subject{}, err
		}
		var plan fw.Plan
		if err := json.Unmarshal(c.Plan, &plan); err != nil {
			return subject{}, fw.Wrap(fw.Corrupt, err, "the stored plan of %s cannot be read", c.ID)
		}
		if in.Type == apitypes.SubjectCampaign {
			return subject{c.Plan, c.Proposer, plan.Quorum}, nil
		}
		if in.Stage >= len(plan.Stages) {
			return subject{}, fw.Errorf(fw.Invalid, "campaign %s has %d stages, numbered from 0", c.ID, len(plan.Stages))
		}
		doc, err := campaign.StageDocument(c, in.Stage, plan.Stages[in.Stage].Name)
		return subject{doc, c.Proposer, plan.Quorum}, err
	case apitypes.SubjectLifecycle:
		doc, req, err := enroll.OpenRelease(q, fw.DeviceID(in.ID))
		return subject{doc, req.RequestedBy, 1}, err
	}
	return subject{}, unknownSubject(in.Type)
}

func (s *server) standing(ctx context.Context, in *subjectQuery) (*body[apitypes.Approvals], error) {
	q := s.o.DB.Snapshot(ctx)
	sub, err := s.find(q, in)
	if err != nil {
		return nil, err
	}
	res, _, err := s.o.Approvals.Count(q, sub.doc, sub.need, sub.proposer)
	if err != nil {
		return nil, err
	}
	return one(apitypes.Approvals{
		SubjectType: in.Type, ID: in.ID, Document: sub.doc, Digest: fw.DigestOf(sub.doc), Proposer: sub.proposer, Need: sub.need, Met: res.Met(),
		Counted: each(res.Counted, func(c approval.Counted) apitypes.Counted {
			return apitypes.Counted{Person: c.Person, Fingerprint: c.Fingerprint}
		}),
		Rejected: each(res.Rejected, func(r approval.Rejected) apitypes.Uncounted {
			return apitypes.Uncounted{Person: r.Person, Reason: r.Reason}
		}),
	}, nil)
}
