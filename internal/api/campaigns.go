package api

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/writ-project/writ/apitypes"
	"github.com/writ-project/writ/internal/access"
	"github.com/writ-project/writ/internal/campaign"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/store"
)

type campaignPath struct {
	ID fw.CampaignID `path:"id"`
}

type campaignBody[T any] struct {
	ID   fw.CampaignID `path:"id"`
	Body T
}

type stagePath struct {
	ID    fw.CampaignID `path:"id"`
	Stage int           `path:"stage" minimum:"0" maximum:"1000"`
}

func (s *server) campaigns() {
	s.policies()
	register(s, op{http.MethodGet, "/campaigns", access.CampaignsRead, "Campaigns, newest first"}, func(ctx context.Context, in *struct {
		Product fw.ProductID  `query:"product"`
		After   fw.CampaignID `query:"after" doc:"the last campaign of the page before"`
		Limit   int           `query:"limit" maximum:"1000" doc:"100 unless given"`
	},
	) (*body[[]apitypes.Campaign], error) {
		rows, err := store.Campaigns(s.o.DB.Snapshot(ctx), store.CampaignFilter{Product: in.Product, After: in.After, Limit: limit(in.Limit)})
		if err != nil {
			return nil, err
		}
		out := make([]apitypes.Campaign, len(rows))
		for i, row := range rows {
			if out[i], err = campaignOf(row); err != nil {
				return nil, err
			}
		}
		return list(out, nil)
	})
	register(s, op{http.MethodGet, "/campaigns/{id}", access.CampaignsRead, "A campaign and its stages"}, func(ctx context.Context, in *campaignPath) (*body[apitypes.Campaign], error) {
		return answer(store.CampaignByID(s.o.DB.Snapshot(ctx), in.ID))
	})
	register(s, op{http.MethodPost, "/campaigns", access.CampaignsWrite, "Propose a campaign, ready to be approved"}, func(ctx context.Context, in *body[fw.Plan]) (*body[apitypes.Campaign], error) {
		return answer(s.o.Campaigns.Propose(ctx, in.Body, who(ctx).Person))
	})
	register(s, op{http.MethodPut, "/campaigns/{id}", access.CampaignsWrite, "Replace the plan, which voids the approvals"}, func(ctx context.Context, in *campaignBody[fw.Plan]) (*body[apitypes.Campaign], error) {
		return answer(s.o.Campaigns.Edit(ctx, in.ID, in.Body, who(ctx).Person))
	})
	operation := func(what string, scope access.Scope, summary string, f func(ctx context.Context, id fw.CampaignID, o apitypes.Operation) (store.Campaign, error)) {
		register(s, op{http.MethodPost, "/campaigns/{id}/" + what, scope, summary}, func(ctx context.Context, in *campaignBody[apitypes.Operation]) (*body[apitypes.Campaign], error) {
			return answer(f(ctx, in.ID, in.Body))
		})
	}
	operation("start", access.CampaignsWrite, "Start an approved campaign", func(ctx context.Context, id fw.CampaignID, _ apitypes.Operation) (store.Campaign, error) {
		return s.o.Campaigns.Start(ctx, id, who(ctx).Person)
	})
	operation("pause", access.CampaignsStop, "Stop new authorizations", func(ctx context.Context, id fw.CampaignID, o apitypes.Operation) (store.Campaign, error) {
		return s.o.Campaigns.Pause(ctx, id, who(ctx).Person, o.Note)
	})
	operation("resume", access.CampaignsWrite, "Continue, acknowledging the failures so far", func(ctx context.Context, id fw.CampaignID, o apitypes.Operation) (store.Campaign, error) {
		return s.o.Campaigns.Resume(ctx, id, who(ctx).Person, o.Note)
	})
	operation("abort", access.CampaignsStop, "End, keeping (mode keep) or reverting (mode revert) what was updated", func(ctx context.Context, id fw.CampaignID, o apitypes.Operation) (store.Campaign, error) {
		switch o.Mode {
		case apitypes.AbortKeep:
			return s.o.Campaigns.AbortKeep(ctx, id, who(ctx).Person, o.Note)
		case apitypes.AbortRevert:
			return s.o.Campaigns.AbortRevert(ctx, id, who(ctx).Person, o.Note)
		}
		return store.Campaign{}, fw.Errorf(fw.Invalid, "say what becomes of updated devices: mode keep or revert")
	})
	operation("end-rollback", access.CampaignsWrite, "Declare a rollback done although devices remain", func(ctx context.Context, id fw.CampaignID, o apitypes.Operation) (store.Campaign, error) {
		return s.o.Campaigns.EndRollback(ctx, id, who(ctx).Person, o.Note)
	})
	register(s, op{http.MethodPost, "/campaigns/{id}/stages/{stage}/open", access.CampaignsWrite, "Open a stage whose approval is complete"}, func(ctx context.Context, in *stagePath) (*body[apitypes.Campaign], error) {
		return answer(s.o.Campaigns.OpenStage(ctx, in.ID, in.Stage, who(ctx).Person))
	})
	register(s, op{http.MethodGet, "/campaigns/{id}/updates", access.CampaignsRead, "A campaign's devices, in order of id"}, func(ctx context.Context, in *struct {
		ID    fw.CampaignID `path:"id"`
		After fw.DeviceID   `query:"after"`
		Limit int           `query:"limit" maximum:"1000"`
	},
	) (*body[[]apitypes.Update], error) {
		q := s.o.DB.Snapshot(ctx)
		if _, err := store.CampaignByID(q, in.ID); err != nil {
			return nil, err
		}
		rows, err := store.UpdatesOfCampaign(q, in.ID, in.After, limit(in.Limit))
		return list(each(rows, updateOf), err)
	})
	register(s, op{http.MethodGet, "/campaigns/{id}/document", access.CampaignsRead, "The plan, exactly the bytes that approvers sign"}, func(ctx context.Context, in *campaignPath) (*raw, error) {
		c, err := store.CampaignByID(s.o.DB.Snapshot(ctx), in.ID)
		return document(c.Plan, err)
	})
	register(s, op{http.MethodGet, "/campaigns/{id}/stages/{stage}/document", access.CampaignsRead, "What approvers of opening a stage sign, exact bytes"}, func(ctx context.Context, in *stagePath) (*raw, error) {
		sub, err := s.find(s.o.DB.Snapshot(ctx), &subjectQuery{apitypes.SubjectStage, string(in.ID), in.Stage})
		return document(sub.doc, err)
	})
	timeline(s, "/campaigns/{id}/timeline", access.CampaignsRead, evidence.CampaignStream, func(q store.Queryer, id fw.CampaignID) error {
		_, err := store.CampaignByID(q, id)
		return err
	})
}

func (s *server) policies() {
	register(s, op{http.MethodGet, "/policies", access.CampaignsRead, "Policies, newest first"}, func(ctx context.Context, _ *empty) (*body[[]apitypes.Policy], error) {
		rows, err := store.Policies(s.o.DB.Snapshot(ctx))
		return list(each(rows, policyOf), err)
	})
	register(s, op{http.MethodGet, "/policies/{id}", access.CampaignsRead, "A policy by its digest"}, func(ctx context.Context, in *idPath) (*body[apitypes.Policy], error) {
		d, err := fw.ParseDigest(in.ID)
		if err != nil {
			return nil, err
		}
		p, err := store.PolicyByDigest(s.o.DB.Snapshot(ctx), d)
		return one(policyOf(p), err)
	})
	register(s, op{http.MethodPost, "/policies", access.PoliciesWrite, "Store a policy document, exact bytes"}, func(ctx context.Context, in *body[apitypes.Document]) (*body[apitypes.Policy], error) {
		d, err := s.o.Campaigns.AddPolicy(ctx, in.Body.Document, who(ctx).Person)
		if err != nil {
			return nil, err
		}
		p, err := store.PolicyByDigest(s.o.DB.Snapshot(ctx), d)
		return one(policyOf(p), err)
	})
}

func policyOf(p store.Policy) apitypes.Policy {
	return apitypes.Policy{Digest: p.Digest, Name: p.Name, Document: p.Body, CreatedAt: p.CreatedAt}
}

func answer(row store.Campaign, err error) (*body[apitypes.Campaign], error) {
	if err != nil {
		return nil, err
	}
	return one(campaignOf(row))
}

func campaignOf(row store.Campaign) (apitypes.Campaign, error) {
	out := apitypes.Campaign{
		ID: row.ID, Name: row.Name, Product: row.Product, Release: row.Release, State: row.State, CohortSize: row.CohortSize,
		Proposer: row.Proposer, Plan: row.Plan, PlanDigest: fw.Digest(row.PlanDigest), CreatedAt: row.CreatedAt, StartedAt: row.StartedAt,
	}
	st, err := campaign.DecodeStatus(row)
	if err != nil {
		return out, err
	}
	var plan fw.Plan
	if err := json.Unmarshal(row.Plan, &plan); err != nil {
		return out, fw.Wrap(fw.Corrupt, err, "the stored plan of %s cannot be read", row.ID)
	}
	out.Stage = st.Stage
	for i := range st.Stages {
		g, t := &st.Stages[i], &st.Stages[i].Tally
		stage := apitypes.Stage{
			State: g.State, Limit: g.Limit, Members: t.Members, Open: t.Open, Confirmed: t.Confirmed,
			Failed: t.Failed, Rejected: t.Rejected, RolledBack: t.RolledBack, Failures: t.Failures,
		}
		if i < len(plan.Stages) {
			stage.Name = plan.Stages[i].Name
		}
		out.Stages = append(out.Stages, stage)
	}
	return out, nil
}
