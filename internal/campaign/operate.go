package campaign

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/writ-project/writ/internal/docket"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/rollout"
	"github.com/writ-project/writ/internal/store"
)

// StageGo is the document that approvers sign to open a stage.
type StageGo struct {
	Type     string        `json:"type"` // fw.TypeStageGo
	Campaign fw.CampaignID `json:"campaign"`
	Plan     fw.Digest     `json:"plan"`
	Stage    int           `json:"stage"`
	Name     string        `json:"name"`
}

// StageDocument returns the exact bytes that approvals of stage i sign.
func StageDocument(row store.Campaign, i int, name string) ([]byte, error) {
	b, err := json.Marshal(StageGo{Type: fw.TypeStageGo, Campaign: row.ID, Plan: fw.Digest(row.PlanDigest), Stage: i, Name: name})
	if err != nil {
		return nil, fw.Wrap(fw.Internal, err, "cannot encode the stage approval")
	}
	return b, nil
}

// Approved tells the service that an approval of the plan or of a stage of
// campaign id was recorded in tx. When it completes the plan's quorum, the
// campaign becomes approved.
func (s *Service) Approved(tx *store.Tx, id fw.CampaignID) error {
	row, err := store.CampaignByID(tx, id)
	if err != nil {
		return err
	}
	if row.State != fw.CampaignInReview {
		return nil
	}
	var plan fw.Plan
	if err := json.Unmarshal(row.Plan, &plan); err != nil {
		return fw.Wrap(fw.Corrupt, err, "the stored plan cannot be read")
	}
	res, _, err := s.live.Approvals(tx, row.Plan, plan.Quorum, row.Proposer)
	if err != nil || !res.Met() {
		return err
	}
	status, err := DecodeStatus(row)
	if err != nil {
		return err
	}
	status.State, row.State = fw.CampaignApproved, fw.CampaignApproved
	if row.Status, err = json.Marshal(status); err != nil {
		return fw.Wrap(fw.Internal, err, "cannot encode the status")
	}
	return store.PutCampaign(tx, row)
}

// operate feeds an operator's event to the rules and records it.
func (s *Service) operate(ctx context.Context, id fw.CampaignID, prepare func(tx *store.Tx, l *Live, d *docket.CampaignEvent) error) (store.Campaign, error) {
	var row store.Campaign
	err := s.db.Tx(ctx, func(tx *store.Tx) error {
		l, err := s.live.Open(tx, id)
		if err != nil {
			return err
		}
		d := docket.CampaignEvent{Campaign: id}
		if err := prepare(tx, l, &d); err != nil {
			return err
		}
		if err := s.apply(tx, l, &d); err != nil {
			return err
		}
		row = l.Row
		return nil
	})
	return row, err
}

func (s *Service) apply(tx *store.Tx, l *Live, d *docket.CampaignEvent) error {
	moves, err := s.live.Apply(tx, l, d.Event)
	if err != nil {
		return err
	}
	d.Transitions = moves
	actor := string(d.Event.Actor)
	if actor == "" {
		actor = "server"
	}
	_, err = s.ledger.Append(tx, ledger.Entry{
		Type: evidence.TypeCampaignEvent, Actor: actor,
		Streams: []evidence.StreamID{evidence.CampaignStream(l.Row.ID), evidence.ReleaseStream(l.Row.Release)},
		Data:    d,
	})
	return err
}

// census counts the devices of campaign id as they are now.
func (s *Service) census(ctx context.Context, id fw.CampaignID) (census, error) {
	q := s.db.Snapshot(ctx)
	row, err := store.CampaignByID(q, id)
	if err != nil {
		return census{}, err
	}
	return s.live.count(q, &row)
}

// Start starts an approved campaign, or schedules it if its plan says so.
func (s *Service) Start(ctx context.Context, id fw.CampaignID, actor fw.PersonID) (store.Campaign, error) {
	devices, err := s.census(ctx, id)
	if err != nil {
		return store.Campaign{}, err
	}
	return s.operate(ctx, id, func(tx *store.Tx, l *Live, d *docket.CampaignEvent) error {
		if l.Row.State != fw.CampaignApproved && l.Row.State != fw.CampaignScheduled {
			return fw.Errorf(fw.Conflict, "campaign %s is %s: only an approved campaign can be started", id, l.Row.State)
		}
		res, roster, err := s.live.Approvals(tx, l.Row.Plan, l.Terms.Plan.Quorum, l.Row.Proposer)
		if err != nil {
			return err
		}
		if !res.Met() {
			return fw.Errorf(fw.Forbidden, "campaign %s has %d of %d approvals: ask another approver to run writ approve campaign %s", id, len(res.Counted), res.Need, id)
		}
		d.Approvals, d.Roster = &res, roster
		d.Event = rollout.Event{Kind: rollout.EventStarted, Actor: actor}
		if err := devices.into(&d.Event, l); err != nil {
			return err
		}
		l.Row.StartedAt, l.Row.CohortSize = tx.Now().Unix(), d.Event.Cohort
		return store.PutCampaign(tx, l.Row)
	})
}

// Pause stops new authorizations at once. One person suffices. Those that are
// out are withdrawn at their devices' next contact, unless delivered.
func (s *Service) Pause(ctx context.Context, id fw.CampaignID, actor fw.PersonID, note string) (store.Campaign, error) {
	return s.simple(ctx, id, rollout.Event{Kind: rollout.EventPause, Actor: actor, Note: note})
}

// Resume continues a paused campaign and acknowledges the failures so far.
func (s *Service) Resume(ctx context.Context, id fw.CampaignID, actor fw.PersonID, note string) (store.Campaign, error) {
	devices, err := s.census(ctx, id)
	if err != nil {
		return store.Campaign{}, err
	}
	return s.operate(ctx, id, func(_ *store.Tx, l *Live, d *docket.CampaignEvent) error {
		d.Event = rollout.Event{Kind: rollout.EventResume, Actor: actor, Note: note}
		return devices.into(&d.Event, l)
	})
}

// AbortKeep ends a campaign; devices that were updated stay so.
func (s *Service) AbortKeep(ctx context.Context, id fw.CampaignID, actor fw.PersonID, note string) (store.Campaign, error) {
	return s.simple(ctx, id, rollout.Event{Kind: rollout.EventAbortKeep, Actor: actor, Note: note})
}

// AbortRevert takes the updated devices back to the plan's rollback release.
func (s *Service) AbortRevert(ctx context.Context, id fw.CampaignID, actor fw.PersonID, note string) (store.Campaign, error) {
	return s.simple(ctx, id, rollout.Event{Kind: rollout.EventAbortRevert, Actor: actor, Note: note})
}

// EndRollback declares a rollback done although devices remain.
func (s *Service) EndRollback(ctx context.Context, id fw.CampaignID, actor fw.PersonID, note string) (store.Campaign, error) {
	return s.simple(ctx, id, rollout.Event{Kind: rollout.EventRollbackDone, Actor: actor, Note: note})
}

func (s *Service) simple(ctx context.Context, id fw.CampaignID, e rollout.Event) (store.Campaign, error) {
	return s.operate(ctx, id, func(_ *store.Tx, _ *Live, d *docket.CampaignEvent) error {
		d.Event = e
		return nil
	})
}

// OpenStage opens a stage that waits for approval, when its quorum is met.
func (s *Service) OpenStage(ctx context.Context, id fw.CampaignID, stage int, actor fw.PersonID) (store.Campaign, error) {
	devices, err := s.census(ctx, id)
	if err != nil {
		return store.Campaign{}, err
	}
	return s.operate(ctx, id, func(tx *store.Tx, l *Live, d *docket.CampaignEvent) error {
		if stage < 0 || stage >= len(l.Terms.Plan.Stages) {
			return fw.Errorf(fw.Invalid, "campaign %s has %d stages, numbered from 0", id, len(l.Terms.Plan.Stages))
		}
		doc, err := StageDocument(l.Row, stage, l.Terms.Plan.Stages[stage].Name)
		if err != nil {
			return err
		}
		res, roster, err := s.live.Approvals(tx, doc, l.Terms.Plan.Quorum, l.Row.Proposer)
		if err != nil {
			return err
		}
		if !res.Met() {
			return fw.Errorf(fw.Forbidden, "stage %d has %d of %d approvals: ask another approver to run writ approve stage %s --stage %d", stage, len(res.Counted), res.Need, id, stage)
		}
		d.Approvals, d.Roster, d.Document = &res, roster, doc
		d.Event = rollout.Event{Kind: rollout.EventStageApproved, Stage: stage, Actor: actor}
		return devices.into(&d.Event, l)
	})
}

// Tick runs the timers that are due. The server calls it about once a second;
// several replicas may, because each campaign is read again under the lock.
func (s *Service) Tick(ctx context.Context, now int64) error {
	due, err := store.DueCampaigns(s.db.Snapshot(ctx), now)
	if err != nil {
		return err
	}
	for _, id := range due {
		devices, err := s.census(ctx, id)
		if err != nil {
			return fmt.Errorf("running the timer of campaign %s: %w", id, err)
		}
		err = s.db.Tx(ctx, func(tx *store.Tx) error {
			l, err := s.live.Open(tx, id)
			if err != nil {
				return err
			}
			if l.Row.NextTimer == 0 || l.Row.NextTimer > tx.Now().Unix() {
				return nil // another replica was first
			}
			d := docket.CampaignEvent{Campaign: id, Event: rollout.Event{Kind: rollout.EventTick}}
			if err := devices.into(&d.Event, l); err != nil {
				return err
			}
			return s.apply(tx, l, &d)
		})
		if err != nil {
			return fmt.Errorf("running the timer of campaign %s: %w", id, err)
		}
	}
	return nil
}
