package verify

import (
	"bytes"
	"crypto"
	"encoding/json"
	"slices"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/policy"
	"github.com/writ-project/writ/internal/rollout"
)

// job is work that needs no order: signatures, and the rules.
type job interface{ run(f *findings) }

// decided checks a decision: its facts against what the records before it add
// up to, and then, by a worker, its answer against the rules.
func (a *auditor) decided(it *item, d *decision) {
	c := a.replayed(it, d.said.Campaign)
	if c == nil {
		a.unjudged = it.frame.Index
		return
	}
	a.counts.Decisions++
	f := &d.facts
	u := a.update(it, c.id, f.Device.ID, d.said.Update)
	a.deviceFacts(it, &f.Device)
	a.campaignFacts(it, c, u, f)
	terms, what := a.terms(c, f)
	if d.allow {
		a.counts.Allowed++
		a.granted(it, c, u, d)
		a.awaited = &awaited{it: it, d: d, plan: c.plan, terms: terms, u: u}
	} else {
		a.counts.Refused++
		to := u.state
		if !u.member {
			to = d.said.To
			if to != fw.UpdateRefused && to != fw.UpdateDeferred {
				a.fail(it, "a refusal cannot make the update %s", to)
			}
		}
		if d.said.To != to || d.said.Event != nil || d.said.Authorization != "" || !d.said.Claims.IsZero() {
			a.fail(it, "it is a refusal and moves the update or authorizes something")
		}
		u.state = to
	}
	if d.engine != policy.EngineVersion {
		a.lack(it, "it was made by %s and these are the rules of %s", clip(d.engine), policy.EngineVersion)
		return
	}
	if terms == nil {
		a.lack(it, "%s, which it rests on, is not in the bundle", what)
		return
	}
	a.jobs = append(a.jobs, &decisionJob{index: it.frame.Index, terms: terms, d: d})
}

// campaignFacts compares what a decision was told of the campaign, the stage
// and the update with the replay.
func (a *auditor) campaignFacts(it *item, c *campaign, u *update, f *policy.Facts) {
	st, cf := &c.status, &f.Campaign
	stage := st.Stage
	if u.member {
		stage = u.stage
	}
	attempts, last := u.attempts, u.last
	if f.Update.Rollback && !u.rollback {
		attempts, last = 0, 0 // the way back has attempts of its own
	}
	want := policy.UpdateFacts{State: u.state, Attempts: attempts, LastAttempt: last, Member: u.member, Stage: u.stage, Rollback: f.Update.Rollback}
	s := &st.Stages[min(stage, len(st.Stages)-1)]
	switch {
	case f.Now != it.rec.MS/1000:
		a.fail(it, "it was made for another time than the record's")
	case cf.ID != c.id || cf.Plan != c.digest || cf.Policy != c.plan.Policy:
		a.fail(it, "it was made for another plan than the one on file")
	case cf.State != st.State || cf.Open != st.Total().Open:
		a.fail(it, "it was told that the campaign is %s with %d open updates, and by the records it was %s with %d", cf.State, cf.Open, st.State, st.Total().Open)
	case f.Stage != policy.StageFacts{Index: stage, State: s.State, Limit: s.Limit, Members: s.Tally.Members}:
		a.fail(it, "it was told that stage %d is %s with %d of %d devices, and by the records stage %d was %s with %d of %d", f.Stage.Index, f.Stage.State, f.Stage.Members, f.Stage.Limit, stage, s.State, s.Tally.Members, s.Limit)
	case f.Update != want:
		a.fail(it, "it was told that the update is %q at attempt %d, and by the records it was %q at attempt %d", f.Update.State, f.Update.Attempts, want.State, want.Attempts)
	case cf.Approvals != a.approvers(c):
		a.fail(it, "it was told of %d approvals of the plan, and %d count", cf.Approvals, a.approvers(c))
	}
	a.rate(it, c, f)
	if p := a.docs.publications[cf.Publication]; p != nil {
		if r := a.releases[p.Release]; r != nil && r.state != cf.ReleaseState {
			a.fail(it, "it was told that release %s is %s, and by the records it was %s", p.Release, cf.ReleaseState, r.state)
		}
	}
}

// rate compares how many authorizations a decision was told were given in the
// last minute with how many were. A plan without a limit has them not counted.
func (a *auditor) rate(it *item, c *campaign, f *policy.Facts) {
	want, exact := 0, true
	if c.plan.RatePerMinute > 0 {
		want, exact = c.grants.since(f.Now - 60)
	}
	switch told := f.Campaign.GrantedLastMinute; {
	case !exact:
		a.lack(it, "the server's clock was set back by more than an hour, so how many authorizations the last minute had cannot be counted again")
	case told != want:
		a.fail(it, "it was told of %d authorizations in the last minute, and by the records there were %d", told, want)
	}
}

// approvers counts the plan's valid approvals now.
func (a *auditor) approvers(c *campaign) int {
	if a.ring.roster == nil {
		return 0
	}
	rows := 0
	if p := a.approvals[c.digest]; p != nil {
		rows = len(p.list)
	}
	if d := a.ring.roster.Digest(); c.roster != d || c.rows != rows {
		c.roster, c.rows = d, rows
		c.counted = len(a.count(c.document, c.plan.Quorum, c.plan.ProposedBy).Counted)
	}
	return c.counted
}

// granted replays an authorization.
func (a *auditor) granted(it *item, c *campaign, u *update, d *decision) {
	f := &d.facts
	if d.said.Authorization == "" || d.said.Claims.IsZero() {
		a.fail(it, "it allows and does not say which authorization it led to")
	}
	attempts := u.attempts
	if f.Update.Rollback {
		if !u.rollback {
			attempts = 0
		}
		if d.said.Event != nil || d.said.To != u.state {
			a.fail(it, "an authorization to go back does not move the update yet")
		}
	} else {
		want := rollout.Event{
			Kind: rollout.EventUpdateMoved, Stage: f.Stage.Index, From: u.state, To: fw.UpdateAuthorized, NewMember: !u.member,
			PriorFailures: u.failures, Exhausted: u.attempts+1 >= c.plan.Attempts,
		}
		a.event(it, c, &want, d.said.Event, d.said.Transitions)
		u.state, u.stage, u.member = fw.UpdateAuthorized, f.Stage.Index, true
	}
	u.attempts, u.last, u.authorization, u.rollback = attempts+1, f.Now, d.said.Authorization, f.Update.Rollback
	u.expires = expiry(c.plan, f.Now)
	if c.plan.RatePerMinute > 0 {
		before := len(c.grants.seconds)
		c.grants.add(f.Now)
		a.hold(16 * (len(c.grants.seconds) - before))
	}
}

// terms resolves the documents that a decision names, or says which is
// missing.
func (a *auditor) terms(c *campaign, f *policy.Facts) (*policy.Terms, string) {
	pub := a.docs.publications[f.Campaign.Publication]
	if pub == nil {
		return nil, "publication " + f.Campaign.Publication.String()
	}
	t := &policy.Terms{Plan: c.plan, Manifest: a.docs.manifests[pub.Manifest], Publication: pub, Cohort: c.cohort}
	if t.Manifest == nil {
		return nil, "manifest " + pub.Manifest.String()
	}
	if !f.Campaign.Policy.IsZero() {
		if t.Policy = a.docs.policies[f.Campaign.Policy]; t.Policy == nil {
			return nil, "policy " + f.Campaign.Policy.String()
		}
	}
	if i := f.Stage.Index; i >= 0 && i < len(c.stages) {
		t.StageCohort = c.stages[i]
	}
	return t, ""
}

// decisionJob makes a decision again and compares it byte for byte.
type decisionJob struct {
	index int64
	terms *policy.Terms
	d     *decision
}

func (j *decisionJob) run(f *findings) {
	again := policy.Evaluate(j.terms, j.d.facts)
	b, err := json.Marshal(again)
	if err != nil || !bytes.Equal(b, j.d.answer) {
		f.fail(j.index, "record %d (decision): made again from its facts, the decision comes out differently: allow=%t with reasons %v", j.index, again.Allow, again.Reasons)
	}
}

// reported checks a report against the device's own words and replays it.
func (a *auditor) reported(it *item, r *report) {
	a.counts.Reports++
	rep, said := &r.signed.Report, &r.said
	if rep.Device != said.Device || said.Sequence < 0 || rep.Sequence != uint64(said.Sequence) || rep.Event != said.Says || rep.Reason != said.Reason || said.Assurance != fw.AssuranceDeviceSigned {
		a.fail(it, "it says something else than the signed words of device %s in it", clip(string(rep.Device)))
	}
	if c := a.certs[said.Certificate]; c == nil {
		a.counts.Unsigned++
		if a.manifest.Scope.Campaign != "" || a.manifest.Scope.Device == said.Device {
			a.lack(it, "the certificate of device %s is not in the bundle, so its signature cannot be checked", clip(string(said.Device)))
		}
	} else {
		if c.device != said.Device {
			a.fail(it, "certificate %s is of device %s", clip(said.Certificate), c.device)
		} else if c.state != fw.CertActive && c.state != fw.CertIssued {
			a.fail(it, "certificate %s, which it came with, was %s and the server turns such a device away", clip(said.Certificate), c.state)
		}
		a.counts.Signatures++
		a.jobs = append(a.jobs, &reportJob{it.frame.Index, r.signed, c.pub})
	}
	if said.Campaign == "" {
		return
	}
	c := a.replayed(it, said.Campaign)
	if c == nil {
		return
	}
	u := a.update(it, c.id, said.Device, said.Update)
	to, e := a.word(c, u, rep)
	if said.From != u.state || said.To != to {
		a.fail(it, "it moves the update from %s to %s; by the records it was %s and becomes %s", said.From, said.To, u.state, to)
		return
	}
	if e == nil {
		if said.Event != nil {
			a.fail(it, "it moves nothing and has an event")
		}
		return
	}
	a.event(it, c, e, said.Event, said.Transitions)
	u.state = to
	if to == fw.UpdateFailed || to == fw.UpdateRejected || to == fw.UpdateRolledBack {
		u.failures++
	}
}

// word returns where a device's word takes its update, and the event of it,
// nil when it moves nothing.
func (a *auditor) word(c *campaign, u *update, rep *authz.Report) (fw.UpdateState, *rollout.Event) {
	to, ok := rep.Event.State()
	if !ok || rep.Authorization != u.authorization {
		return u.state, nil
	}
	if u.rollback {
		if to != fw.UpdateConfirmed || c.plan.Rollback == nil || !a.runs(rep, c.plan.Rollback.Publication) || !u.state.CanMove(fw.UpdateRolledBack) {
			return u.state, nil
		}
		return fw.UpdateRolledBack, &rollout.Event{Kind: rollout.EventUpdateMoved, Stage: u.stage, From: u.state, To: fw.UpdateRolledBack, PriorFailures: u.failures, Exhausted: true}
	}
	if (to == fw.UpdateConfirmed || to == fw.UpdateInstalled) && !a.runs(rep, c.plan.Publication) {
		to = fw.UpdateFailed
	}
	if to == u.state || !u.state.CanMove(to) || u.state == fw.UpdatePaused && to == fw.UpdateFailed && rep.Reason == fw.FailDownload {
		return u.state, nil
	}
	if u.state == fw.UpdatePaused {
		u.attempts++ // it made the attempt that was taken back
	}
	return to, &rollout.Event{Kind: rollout.EventUpdateMoved, Stage: u.stage, From: u.state, To: to, PriorFailures: u.failures, Exhausted: u.attempts >= c.plan.Attempts}
}

// runs reports whether the device says that it runs every image of a
// publication.
func (a *auditor) runs(rep *authz.Report, publication fw.Digest) bool {
	p := a.docs.publications[publication]
	if p == nil {
		return false
	}
	for _, img := range p.Images {
		if !slices.ContainsFunc(rep.Components, func(c authz.ReportedComponent) bool { return c.Name == img.Component && c.Digest == img.Digest }) {
			return false
		}
	}
	return true
}

// reportJob checks a device's signature.
type reportJob struct {
	index  int64
	signed *authz.SignedReport
	pub    crypto.PublicKey
}

func (j *reportJob) run(f *findings) {
	if err := j.signed.Verify(j.pub); err != nil {
		f.fail(j.index, "record %d (%s): the report is not signed by the device's key", j.index, evidence.TypeReport)
	}
}
