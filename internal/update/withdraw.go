package update

import (
	"context"

	"github.com/writ-project/writ/internal/campaign"
	"github.com/writ-project/writ/internal/docket"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/rollout"
	"github.com/writ-project/writ/internal/store"
)

// withdrawn returns what becomes, at the device's next contact, of an update
// in state from when its campaign is in state c, or "" when it goes on. Only
// what the device has not reported to have is taken back: a device in the
// middle of an installation is best left to finish.
//
// A campaign that rolls back takes nothing back here. Its devices are counted
// as open until their authorization has expired, so that none is left behind
// on the release.
func withdrawn(from fw.UpdateState, c fw.CampaignState) (to fw.UpdateState, why fw.Reason) {
	ended := c == fw.CampaignAborted || c == fw.CampaignRolledBack
	switch {
	case from == fw.UpdateAuthorized && c == fw.CampaignPaused:
		return fw.UpdatePaused, fw.WithdrawPaused
	case from == fw.UpdateAuthorized && ended, from == fw.UpdatePaused && (ended || c == fw.CampaignCompleted):
		return fw.UpdateCancelled, fw.WithdrawEnded
	}
	return "", ""
}

// withdraw takes back the authorization of u, and records it. The device keeps
// its place in the stage, because it may install all the same; it no longer
// counts as open, and the attempt is not used up.
func (s *Service) withdraw(tx *store.Tx, l *campaign.Live, u *store.Update) error {
	from := u.State
	to, why := withdrawn(from, l.Status.State)
	if to == "" || u.Rollback {
		return nil
	}
	if from == fw.UpdateAuthorized {
		u.Attempts--
	}
	e := rollout.Event{
		Kind: rollout.EventUpdateMoved, Stage: u.Stage, From: from, To: to,
		PriorFailures: u.Failures, Exhausted: u.Attempts >= l.Terms.Plan.Attempts,
	}
	moves, err := s.o.Campaigns.Apply(tx, l, e)
	if err != nil {
		return err
	}
	if _, err := s.o.Ledger.Append(tx, ledger.Entry{
		Type: evidence.TypeUpdateMoved, Actor: "server", Streams: streams(l, u.Device),
		Data: docket.Moved{Campaign: u.Campaign, Update: u.ID, Device: u.Device, From: from, To: to, Reason: why, Event: &e, Transitions: moves},
	}); err != nil {
		return err
	}
	u.State, u.Reason, u.RefusalKey = to, why, ""
	return store.PutUpdate(tx, u)
}

// settleEnded takes back what the device was given in campaigns that have
// ended since. It reports false when there is something to take back and q
// only reads.
func (s *Service) settleEnded(q store.Queryer, v *visit) (bool, error) {
	if v.who.Device.AuthSeq == 0 {
		return true, nil // was never given anything
	}
	list, err := store.EndedUpdates(q, v.who.Device.ID)
	if err != nil || len(list) == 0 {
		return true, err
	}
	tx, writing := q.(*store.Tx)
	if !writing {
		return false, nil
	}
	for i := range list {
		l, err := s.o.Campaigns.Open(tx, list[i].Campaign)
		if err == nil {
			err = s.withdraw(tx, l, &list[i])
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// mayStart says whether the device may download images of a release now: not
// when that is what its newest authorization is for and the authorization is
// withdrawn, which is done here if it is due.
func (s *Service) mayStart(ctx context.Context, d fw.DeviceID, r fw.ReleaseID) error {
	g, err := store.NewestGrant(s.o.DB.Snapshot(ctx), d)
	if err != nil || g.Release != r || g.Update.Rollback {
		return err
	}
	if to, _ := withdrawn(g.Update.State, g.State); to != "" {
		// Read again under the writer: it may have been resumed, or reported on.
		err = s.o.DB.Tx(ctx, func(tx *store.Tx) error {
			if g, err = store.NewestGrant(tx, d); err != nil || g.Update.ID == "" {
				return err
			}
			l, err := s.o.Campaigns.Open(tx, g.Update.Campaign)
			if err != nil {
				return err
			}
			g.State = l.Status.State
			return s.withdraw(tx, l, &g.Update)
		})
		if err != nil {
			return err
		}
	}
	taken := g.Update.State == fw.UpdatePaused || g.Update.State == fw.UpdateCancelled
	if g.Release != r || g.Update.Rollback || !taken && (g.Update.State != fw.UpdateAuthorized || g.State != fw.CampaignRollingBack) {
		return nil
	}
	return fw.Errorf(fw.Conflict, "the authorization for this image is withdrawn: campaign %s is %s; drop the authorization, report nothing and check in again", g.Update.Campaign, g.State)
}
