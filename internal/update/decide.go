package update

import (
	"slices"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/campaign"
	"github.com/writ-project/writ/internal/docket"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/policy"
	"github.com/writ-project/writ/internal/rollout"
	"github.com/writ-project/writ/internal/store"
)

// question is what is asked of one campaign about one device.
type question struct {
	target   *campaign.Target
	update   store.Update
	rollback bool // target is the plan's rollback release
	known    bool // the update is on file
	resend   bool // the device asks again for what it was given
	waiting  bool // an authorization is out under another nonce
	withdraw bool // an authorization is out and is to be taken back
}

// attempts returns how often this target was authorized, and when last. The
// way back has attempts of its own.
func (a *question) attempts() (n int, last int64) {
	if a.rollback && !a.update.Rollback {
		return 0, 0
	}
	return a.update.Attempts, a.update.LastAttempt
}

// consider goes through the live campaigns of the device's product, oldest
// first, until one authorizes.
func (s *Service) consider(q store.Queryer, v *visit) (found, error) {
	campaigns, err := s.campaigns(q, v.who.Device.Product)
	if err != nil {
		return found{}, err
	}
	if done, err := s.settleEnded(q, v); err != nil || !done {
		return found{write: true}, err
	}
	out := found{idle: true}
	for _, l := range campaigns {
		ask, err := s.ask(q, l, v)
		if err != nil {
			return found{}, err
		}
		if ask == nil {
			continue
		}
		out.idle = false
		one, err := s.answer(q, l, ask, v)
		if err != nil || one.granted != nil || one.write {
			return one, err
		}
		for _, r := range one.refused {
			if !slices.Contains(out.refused, r) {
				out.refused = append(out.refused, r)
			}
		}
	}
	return out, nil
}

// campaigns returns a product's live campaigns, oldest first.
func (s *Service) campaigns(q store.Queryer, p fw.ProductID) ([]*campaign.Live, error) {
	if tx, ok := q.(*store.Tx); ok {
		return s.o.Campaigns.OpenProduct(tx, p)
	}
	rows, err := store.LiveCampaigns(q, p)
	if err != nil {
		return nil, err
	}
	out := make([]*campaign.Live, len(rows))
	for i, row := range rows {
		if out[i], err = s.o.Campaigns.View(q, row); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// settled are the states in which a campaign has nothing more for a device:
// it is done, or its health check decides.
var settled = []fw.UpdateState{fw.UpdateConfirmed, fw.UpdateCancelled, fw.UpdateSuperseded, fw.UpdateInstalled}

// ask returns what is to be decided about the device in campaign l, or nil
// when there is nothing.
func (s *Service) ask(q store.Queryer, l *campaign.Live, v *visit) (*question, error) {
	u, known, err := store.UpdateOf(q, l.Row.ID, v.who.Device.ID)
	if err != nil {
		return nil, err
	}
	if !known {
		u = store.Update{Campaign: l.Row.ID, Device: v.who.Device.ID, RefusalIndex: -1}
	}
	ask := &question{target: &l.Terms.Forward, update: u, known: known}
	if l.Status.State == fw.CampaignRollingBack {
		if l.Terms.Back == nil || !u.Member || !runs(v.facts.Components, l.Terms.Forward.Publication) {
			return nil, nil
		}
		ask.target, ask.rollback = l.Terms.Back, true
	} else if slices.Contains(settled, u.State) {
		return nil, nil
	}
	if to, _ := withdrawn(u.State, l.Status.State); to != "" && !ask.rollback {
		ask.withdraw = true
		return ask, nil
	}
	if out := u.State.Open() && !ask.rollback || u.Rollback && ask.rollback; out {
		a, err := store.AuthorizationByID(q, u.Authorization)
		if err != nil {
			return nil, err
		}
		ask.resend = a.ExpiresAt > v.now && string(a.Nonce) == string(v.in.Nonce[:])
		// A forward update waits until the sweep has counted it as failed; a
		// rollback until its time is over.
		ask.waiting = !ask.resend && (!ask.rollback || a.ExpiresAt+int64(s.o.Grace.Seconds()) > v.now)
	}
	return ask, nil
}

// runs reports whether every image of pub is running.
func runs(have []policy.ComponentFacts, pub *fw.Publication) bool {
	for _, img := range pub.Images {
		if !slices.ContainsFunc(have, func(c policy.ComponentFacts) bool { return c.Name == img.Component && c.Digest == img.Digest }) {
			return false
		}
	}
	return true
}

// evaluate gathers the facts and decides.
func (s *Service) evaluate(q store.Queryer, l *campaign.Live, ask *question, v *visit) (policy.Facts, policy.Decision, error) {
	u := &ask.update
	plan := l.Terms.Plan
	approvals, err := s.o.Campaigns.PlanApprovals(q, l)
	if err != nil {
		return policy.Facts{}, policy.Decision{}, err
	}
	granted := 0
	if plan.RatePerMinute > 0 {
		if granted, err = store.CountGrantedSince(q, l.Row.ID, v.now-60); err != nil {
			return policy.Facts{}, policy.Decision{}, err
		}
	}
	state, err := releaseState(q, ask.target.Release)
	if err != nil {
		return policy.Facts{}, policy.Decision{}, err
	}
	stage := l.Status.Stage
	if u.Member {
		stage = u.Stage
	}
	attempts, last := ask.attempts()
	f := policy.Facts{
		Now:    v.now,
		Device: v.facts,
		Update: policy.UpdateFacts{State: u.State, Attempts: attempts, LastAttempt: last, Member: u.Member, Stage: u.Stage, Rollback: ask.rollback},
		Campaign: policy.CampaignFacts{
			ID: l.Row.ID, State: l.Status.State, Plan: l.Terms.PlanDigest, Publication: ask.target.PublicationDigest, Policy: plan.Policy,
			ReleaseState: state, Approvals: approvals, Open: l.Status.Total().Open, GrantedLastMinute: granted,
		},
	}
	if stage < len(l.Status.Stages) {
		st := &l.Status.Stages[stage]
		f.Stage = policy.StageFacts{Index: stage, State: st.State, Limit: st.Limit, Members: st.Tally.Members}
	}
	return f, policy.Evaluate(l.Terms.For(stage, ask.target), f), nil
}

// releaseState reads the state of a release, once per commit.
func releaseState(q store.Queryer, id fw.ReleaseID) (fw.ReleaseState, error) {
	type key struct {
		id      fw.ReleaseID
		changes int
	}
	tx, writing := q.(*store.Tx)
	if writing {
		if st, ok := tx.Batch().Cache[key{id, tx.Batch().Changes}].(fw.ReleaseState); ok {
			return st, nil
		}
	}
	st, err := store.ReleaseState(q, id)
	if err == nil && writing {
		tx.Batch().Cache[key{id, tx.Batch().Changes}] = st
	}
	return st, err
}

// answer decides about one campaign. A refusal that was given before with the
// same reasons is counted and costs no write; everything else is decided, and
// recorded, under the writer.
func (s *Service) answer(q store.Queryer, l *campaign.Live, ask *question, v *visit) (found, error) {
	if ask.resend {
		a, err := store.AuthorizationByID(q, ask.update.Authorization)
		return found{granted: &a, target: ask.target}, err
	}
	if ask.waiting {
		// A second authorization could be used beside the first.
		return found{refused: []fw.Reason{fw.ReasonUpdateState}}, nil
	}
	tx, writing := q.(*store.Tx)
	if !writing && (ask.withdraw || ask.update.RefusalKey == "") {
		return found{write: true}, nil
	}
	if ask.withdraw {
		if err := s.withdraw(tx, l, &ask.update); err != nil {
			return found{}, err
		}
	}
	facts, d, err := s.evaluate(q, l, ask, v)
	if err != nil {
		return found{}, err
	}
	switch {
	case !d.Allow && policy.RefusalKey(d) == ask.update.RefusalKey:
		s.repeated(tx, ask.update.ID)
		return found{refused: d.Reasons}, nil
	case !writing:
		return found{write: true}, nil
	}
	if !ask.known {
		ask.update.ID = fw.UpdateID(fw.NewID("upd", tx.Now()))
	}
	if !d.Allow {
		return found{refused: d.Reasons}, s.refuse(tx, l, ask, facts, d)
	}
	a, err := s.authorize(tx, l, ask, v, facts, d)
	return found{granted: a, target: ask.target}, err
}

// repeated counts a refusal that was given again, once its transaction, if
// there is one, is over.
func (s *Service) repeated(tx *store.Tx, id fw.UpdateID) {
	count := func() {
		s.mu.Lock()
		s.repeats[id]++
		s.mu.Unlock()
	}
	if tx == nil {
		count()
		return
	}
	tx.OnCommit(count)
}

// refuse records a refusal. A device that already has a place in a stage
// keeps the state it is in; another becomes refused or deferred.
func (s *Service) refuse(tx *store.Tx, l *campaign.Live, ask *question, f policy.Facts, d policy.Decision) error {
	u := ask.update
	to := u.State
	if !u.Member {
		to = fw.UpdateRefused
		if d.Deferred {
			to = fw.UpdateDeferred
		}
	}
	pos, err := s.o.Ledger.Append(tx, ledger.Entry{
		Type: evidence.TypeDecision, Actor: string(u.Device), Streams: streams(l, u.Device),
		Data: docket.Decision{Record: policy.NewRecord(f, d), Campaign: l.Row.ID, Update: u.ID, To: to, Repeats: u.RefusalCount},
	})
	if err != nil {
		return err
	}
	u.State, u.RefusalKey, u.RefusalCount, u.RefusalIndex = to, policy.RefusalKey(d), 0, pos.Index
	// Why an update failed or was rejected stays on file: the log has every
	// refusal since.
	if len(d.Reasons) > 0 && !u.Member {
		u.Reason = d.Reasons[0]
	}
	return ask.put(tx, &u)
}

// put stores u, the changed update of the question.
func (a *question) put(tx *store.Tx, u *store.Update) error {
	if a.known {
		return store.PutUpdate(tx, u)
	}
	return store.InsertUpdate(tx, u)
}

// authorize records an allowing decision, takes the place in the stage, and
// signs the authorization.
func (s *Service) authorize(tx *store.Tx, l *campaign.Live, ask *question, v *visit, f policy.Facts, d policy.Decision) (*store.Authorization, error) {
	u := ask.update
	data := docket.Decision{Record: policy.NewRecord(f, d), Campaign: l.Row.ID, Update: u.ID, To: fw.UpdateAuthorized, Repeats: u.RefusalCount}
	if ask.rollback {
		data.To = u.State // it leaves its state when it reports that it went back
	} else {
		e := rollout.Event{Kind: rollout.EventUpdateMoved, Stage: f.Stage.Index, From: u.State, To: fw.UpdateAuthorized, NewMember: !u.Member, PriorFailures: u.Failures, Exhausted: u.Attempts+1 >= l.Terms.Plan.Attempts}
		moves, err := s.o.Campaigns.Apply(tx, l, e)
		if err != nil {
			return nil, err
		}
		data.Event, data.Transitions = &e, moves
		u.State, u.Stage, u.Member = fw.UpdateAuthorized, f.Stage.Index, true
	}
	claims := s.claims(l, ask, v, f)
	sequence := int64(claims.Sequence) //nolint:gosec // G115: one more than an int64 that counts authorizations
	data.Claims, data.Authorization = authz.CoreDigest(claims), claims.ID
	pos, err := s.o.Ledger.Append(tx, ledger.Entry{Type: evidence.TypeDecision, Actor: string(u.Device), Streams: streams(l, u.Device), Data: data})
	if err != nil {
		return nil, err
	}
	claims.Decision, claims.Commitment = uint64(max(0, pos.Index)), fw.Digest(pos.Commitment)
	cose, err := s.sign(claims, pos.Index)
	if err != nil {
		return nil, err
	}
	attempts, _ := ask.attempts()
	u.Attempts, u.LastAttempt, u.Authorization, u.Rollback = attempts+1, v.now, claims.ID, ask.rollback
	u.Reason, u.RefusalKey, u.RefusalCount = "", "", 0
	if err := ask.put(tx, &u); err != nil {
		return nil, err
	}
	a := &store.Authorization{
		ID: claims.ID, Update: u.ID, Device: u.Device, Campaign: u.Campaign, Nonce: claims.Nonce[:], Sequence: sequence,
		DecisionIndex: pos.Index, COSE: cose, IssuedAt: claims.IssuedAt, ExpiresAt: claims.Expires,
	}
	if err := store.InsertAuthorization(tx, *a); err != nil {
		return nil, err
	}
	if err := store.SetDeviceSequence(tx, u.Device, sequence); err != nil {
		return nil, err
	}
	tx.OnCommit(func() { s.DeviceChanged(u.Device) })
	return a, nil
}

func streams(l *campaign.Live, d fw.DeviceID) []evidence.StreamID {
	return []evidence.StreamID{evidence.DeviceStream(d), evidence.CampaignStream(l.Row.ID)}
}
