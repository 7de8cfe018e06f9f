package update

import (
	"context"

	"github.com/writ-project/writ/internal/docket"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/rollout"
	"github.com/writ-project/writ/internal/store"
)

// sweepPage is how many expired updates one transaction moves.
const sweepPage = 200

// Sweep counts updates as failed whose authorization expired without a word
// from the device. What the device reports later is still recorded and moves
// the update on. The server calls it every few seconds.
func (s *Service) Sweep(ctx context.Context) error {
	for {
		before := s.o.Now().Unix() - int64(s.o.Grace.Seconds())
		due, err := store.ExpiredUpdates(s.o.DB.Snapshot(ctx), before, sweepPage)
		if err != nil || len(due) == 0 {
			return err
		}
		for _, u := range due {
			if err := s.o.DB.Tx(ctx, func(tx *store.Tx) error { return s.expire(tx, u.ID, before) }); err != nil {
				return err
			}
		}
		if len(due) < sweepPage {
			return nil
		}
	}
}

func (s *Service) expire(tx *store.Tx, id fw.UpdateID, before int64) error {
	u, err := store.UpdateByID(tx, id)
	if err != nil {
		return err
	}
	if u.State != fw.UpdateAuthorized && u.State != fw.UpdateDelivered {
		return nil // it reported meanwhile
	}
	a, err := store.AuthorizationByID(tx, u.Authorization)
	if err != nil || a.ExpiresAt >= before {
		return err
	}
	l, err := s.o.Campaigns.Open(tx, u.Campaign)
	if err != nil {
		return err
	}
	e := rollout.Event{
		Kind: rollout.EventUpdateMoved, Stage: u.Stage, From: u.State, To: fw.UpdateFailed,
		PriorFailures: u.Failures, Exhausted: u.Attempts >= l.Terms.Plan.Attempts,
	}
	moves, err := s.o.Campaigns.Apply(tx, l, e)
	if err != nil {
		return err
	}
	_, err = s.o.Ledger.Append(tx, ledger.Entry{
		Type: evidence.TypeUpdateMoved, Actor: "server", Streams: streams(l, u.Device),
		Data: docket.Moved{Campaign: u.Campaign, Update: u.ID, Device: u.Device, From: u.State, To: fw.UpdateFailed, Reason: fw.FailExpired, Event: &e, Transitions: moves},
	})
	if err != nil {
		return err
	}
	u.State, u.Reason, u.RefusalKey = fw.UpdateFailed, fw.FailExpired, ""
	u.Failures++
	return store.PutUpdate(tx, &u)
}
