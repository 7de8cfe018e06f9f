package verify

import (
	"reflect"
	"slices"

	"github.com/writ-project/writ/internal/docket"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/policy"
	"github.com/writ-project/writ/internal/rollout"
)

type (
	movedDoc = docket.Moved
	eventDoc = docket.CampaignEvent
)

// campaign is where a replayed campaign stands.
type campaign struct {
	id       fw.CampaignID
	plan     *fw.Plan
	document []byte // exact bytes of the plan
	digest   fw.Digest
	cohort   *policy.Condition
	stages   []*policy.Condition
	status   rollout.Status
	started  bool
	erased   bool // a record of its stream is erased, so it cannot be replayed

	// The last counting of the plan's approvals, which costs signature checks.
	roster  fw.Digest
	rows    int
	counted int

	grants window // authorizations, when the plan limits their rate
}

// updateKey names one device in one campaign.
type updateKey struct {
	campaign fw.CampaignID
	device   fw.DeviceID
}

// update is where one device stands in one campaign.
type update struct {
	id            fw.UpdateID
	state         fw.UpdateState
	stage         int
	member        bool
	attempts      int
	last          int64
	failures      int
	authorization fw.AuthorizationID
	rollback      bool
	expires       int64  // of the authorization, Unix seconds
	sequence      uint64 // of the authorization, for a device the bundle has no records of
}

func (a *auditor) campaignProposed(it *item, document []byte) {
	p := new(fw.Plan)
	if err := strict(document, p); err != nil {
		a.fail(it, "the plan cannot be read: %v", err)
		return
	}
	if _, ok := it.rec.Link(evidence.CampaignStream(p.Campaign)); !ok {
		a.fail(it, "it is not in the stream of the campaign it proposes")
		return
	}
	c := a.campaigns[p.Campaign]
	if c == nil {
		a.outOfScope(it, p.Campaign)
		return
	}
	if c.started {
		a.fail(it, "the plan of campaign %s was changed after it had started", c.id)
		return
	}
	if err := rollout.Validate(p); err != nil {
		a.fail(it, "the plan breaks its own rules: %v", err)
		return
	}
	var err error
	if c.cohort, err = policy.CompileCondition(p.Cohort); err != nil {
		a.fail(it, "the plan's cohort cannot be read: %v", err)
		return
	}
	a.hold(4*len(document) + (1+len(p.Stages))*sizeCondition)
	c.stages = make([]*policy.Condition, len(p.Stages))
	for i, s := range p.Stages {
		if s.Cohort == "" {
			continue
		}
		if c.stages[i], err = policy.CompileCondition(s.Cohort); err != nil {
			a.fail(it, "the cohort of stage %d cannot be read: %v", i, err)
			return
		}
	}
	c.plan, c.document, c.digest = p, document, fw.DigestOf(document)
	c.status, c.rows = rollout.New(p), 0
	c.status.State = fw.CampaignInReview
}

// planApproved moves a campaign on when an approval completes its quorum.
func (a *auditor) planApproved(_ *item, subject fw.Digest) {
	for _, c := range a.campaigns {
		if c.plan != nil && c.digest == subject && c.status.State == fw.CampaignInReview && a.count(c.document, c.plan.Quorum, c.plan.ProposedBy).Met() {
			c.status.State = fw.CampaignApproved
		}
	}
}

// outOfScope counts a record of a campaign that this bundle does not replay.
func (a *auditor) outOfScope(_ *item, id fw.CampaignID) {
	a.counts.OutOfScope++
	if a.outside[id] == 0 {
		a.hold(sizeSmall)
	}
	a.outside[id]++
}

// replayed returns the campaign a record is about, nil when it cannot be
// replayed here.
func (a *auditor) replayed(it *item, id fw.CampaignID) *campaign {
	c := a.campaigns[id]
	switch {
	case c == nil:
		a.outOfScope(it, id)
		return nil
	case c.plan == nil:
		a.failIn(evidence.CampaignStream(id), it, "campaign %s has no plan on file", clip(string(id)))
		return nil
	case c.erased:
		a.lack(it, "campaign %s cannot be replayed past an erased record", c.id)
		return nil
	}
	return c
}

// apply replays an event and compares what comes of it.
func (a *auditor) apply(it *item, c *campaign, e *rollout.Event, said []rollout.Transition) {
	next, moves, err := rollout.Apply(c.plan, c.status, *e, it.rec.MS/1000)
	if err != nil {
		a.fail(it, "its event cannot happen: %v", err)
		return
	}
	a.counts.Events++
	a.counts.Transitions += int64(len(moves))
	if !slices.Equal(moves, said) {
		a.fail(it, "its event leads to %d transitions and it records %d, or others", len(moves), len(said))
	}
	c.status = next
	for i := range next.Stages {
		if s := &next.Stages[i]; s.Tally.Members > s.Limit {
			a.fail(it, "stage %d has %d devices and room for %d", i, s.Tally.Members, s.Limit)
		}
	}
}

// operated replays an event that no device caused.
func (a *auditor) operated(it *item, d *eventDoc) {
	c := a.replayed(it, d.Campaign)
	if c == nil {
		return
	}
	e := &d.Event
	switch e.Kind {
	case rollout.EventUpdateMoved:
		a.fail(it, "an update moves by a report or a decision, not by itself")
		return
	case rollout.EventStarted:
		c.started = true
		if what := a.quorum(c.document, d.Approvals, c.plan.Quorum, c.plan.ProposedBy); what != "" {
			a.fail(it, "campaign %s was started without approval: %s", c.id, what)
		}
	case rollout.EventStageApproved:
		var doc stageGo
		if !plain(d.Document, &doc) || doc.Type != fw.TypeStageGo || doc.Campaign != c.id || doc.Plan != c.digest || doc.Stage != e.Stage {
			a.fail(it, "what was approved is not the opening of stage %d of this plan", e.Stage)
		} else if what := a.quorum(d.Document, d.Approvals, c.plan.Quorum, c.plan.ProposedBy); what != "" {
			a.fail(it, "stage %d was opened without approval: %s", e.Stage, what)
		}
	case rollout.EventTick, rollout.EventRecount, rollout.EventPause, rollout.EventResume, rollout.EventAbortKeep, rollout.EventAbortRevert, rollout.EventRollbackDone:
		// The rules say whether it could happen; nobody has to approve it.
	}
	a.apply(it, c, e, d.Transitions)
}

// moved replays an update that the server moved.
func (a *auditor) moved(it *item, d *movedDoc) {
	c := a.replayed(it, d.Campaign)
	if c == nil {
		return
	}
	u := a.update(it, d.Campaign, d.Device, d.Update)
	if d.From == u.state && d.Event != nil && a.tookBack(it, c, u, d) {
		return
	}
	if d.From != u.state || d.To != fw.UpdateFailed || d.Event == nil {
		a.fail(it, "it moves update %s from %s to %s, and it was %s", d.Update, d.From, d.To, u.state)
		return
	}
	if out := u.state == fw.UpdateAuthorized || u.state == fw.UpdateDelivered; !out || d.Reason != fw.FailExpired || it.rec.MS/1000 <= u.expires {
		a.fail(it, "it counts update %s as failed (%s), and its authorization had not run out", d.Update, clip(string(d.Reason)))
	}
	want := rollout.Event{Kind: rollout.EventUpdateMoved, Stage: u.stage, From: u.state, To: d.To, PriorFailures: u.failures, Exhausted: u.attempts >= c.plan.Attempts}
	a.event(it, c, &want, d.Event, d.Transitions)
	u.state = d.To
	u.failures++
}

// tookBack replays an authorization that a pause or the end of the campaign
// took back, and reports whether d is that.
func (a *auditor) tookBack(it *item, c *campaign, u *update, d *movedDoc) bool {
	ended := c.status.State == fw.CampaignAborted || c.status.State == fw.CampaignRolledBack
	switch {
	case u.rollback:
		return false
	case d.To == fw.UpdatePaused && d.Reason == fw.WithdrawPaused && u.state == fw.UpdateAuthorized && c.status.State == fw.CampaignPaused:
		u.attempts--
	case d.To != fw.UpdateCancelled || d.Reason != fw.WithdrawEnded:
		return false
	case u.state == fw.UpdateAuthorized && ended:
		u.attempts--
	case u.state == fw.UpdatePaused && (ended || c.status.State == fw.CampaignCompleted):
	default:
		return false
	}
	want := rollout.Event{Kind: rollout.EventUpdateMoved, Stage: u.stage, From: u.state, To: d.To, PriorFailures: u.failures, Exhausted: u.attempts >= c.plan.Attempts}
	a.event(it, c, &want, d.Event, d.Transitions)
	u.state = d.To
	return true
}

// event compares a recorded event with the one that must have happened, and
// replays it.
func (a *auditor) event(it *item, c *campaign, want, said *rollout.Event, moves []rollout.Transition) {
	if said == nil || !reflect.DeepEqual(want, said) {
		a.fail(it, "its event is not the one that the update's state calls for")
		return
	}
	a.apply(it, c, want, moves)
}

// update returns where an update stands.
func (a *auditor) update(it *item, c fw.CampaignID, d fw.DeviceID, id fw.UpdateID) *update {
	k := updateKey{c, d}
	u := a.updates[k]
	if u == nil {
		u = &update{id: id}
		a.hold(sizeSmall + len(d) + len(id))
		a.updates[k] = u
	}
	if u.id != id {
		a.fail(it, "device %s has update %s in this campaign, not %s", clip(string(d)), u.id, clip(string(id)))
	}
	return u
}

// closeCampaign checks the end of a replayed campaign.
func (a *auditor) closeCampaign(c *campaign) {
	if !a.isWhole(evidence.CampaignStream(c.id)) {
		a.add(SeverityIncomplete, -1, "the stream of campaign %s is not in the bundle whole", clip(string(c.id)))
	} else if c.plan == nil && !c.erased {
		a.add(SeverityFailed, -1, "campaign %s has no plan in its own stream", clip(string(c.id)))
	}
}
