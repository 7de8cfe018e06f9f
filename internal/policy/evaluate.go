package policy

import (
	"slices"
	"strconv"
	"strings"

	"github.com/writ-project/writ/internal/fw"
)

// Evaluate decides whether the device described by f may install the release
// described by t now. It is pure: the same terms and facts give the same
// decision anywhere. All checks are made and listed, whatever the first ones
// say; see the package comment for each.
func Evaluate(t *Terms, f Facts) Decision {
	n := 32
	if t != nil && t.Policy != nil {
		n += t.Policy.checks()
	}
	e := evaluation{t: t, f: &f, checks: make([]Check, 0, n)}
	if e.terms() {
		e.identity()
		e.lifecycle()
		e.compatibility()
		e.versions()
		e.integrity()
		e.release()
		e.campaign()
		e.membership()
		e.limits()
		e.times()
		e.attempts()
		e.preference()
		e.policy()
	}
	return e.decision()
}

// evaluation is one decision in the making.
type evaluation struct {
	t      *Terms
	f      *Facts
	checks []Check
}

// is records a check that holds when ok, and otherwise fails for reason.
func (e *evaluation) is(c Check, ok bool) {
	c.OK = ok
	if ok {
		c.Reason = ""
	}
	e.checks = append(e.checks, c)
}

func (e *evaluation) decision() Decision {
	d := Decision{Checks: e.checks, Allow: len(e.checks) > 0}
	preference := true
	for i := range e.checks {
		c := &e.checks[i]
		if c.OK {
			continue
		}
		d.Allow = false
		preference = preference && (c.Reason == fw.ReasonOptedOut || c.Reason == fw.ReasonPostponed)
		if !slices.Contains(d.Reasons, c.Reason) {
			d.Reasons = append(d.Reasons, c.Reason)
		}
	}
	d.Deferred = !d.Allow && preference && len(d.Reasons) > 0
	return d
}

// terms checks that there is something to decide by. Without it no other
// check has a meaning, so a failure here stands alone.
func (e *evaluation) terms() bool {
	t := e.t
	switch {
	case t == nil || t.Plan == nil:
		e.is(Check{Name: "terms", Reason: fw.ReasonCampaignNotRunning, Observed: "no plan"}, false)
	case t.Manifest == nil || t.Publication == nil:
		e.is(Check{Name: "terms", Reason: fw.ReasonReleaseNotPublished, Observed: "no manifest or publication"}, false)
	case t.Cohort == nil:
		e.is(Check{Name: "terms", Reason: fw.ReasonNotInCohort, Observed: "no cohort"}, false)
	default:
		return true
	}
	return false
}

func (e *evaluation) identity() {
	d, now := &e.f.Device, e.f.Now
	c := &d.Cert
	e.is(Check{Name: "identity", Reason: fw.ReasonIdentityUnknown, Observed: string(d.ID)}, d.ID != "")
	e.is(Check{Name: "certificate", Reason: fw.ReasonCertificateUnknown, Observed: c.Serial}, c.Known)

	state := Check{Name: "certificate_state", Observed: string(c.State), Wanted: string(fw.CertActive)}
	ok := false
	switch c.State {
	case fw.CertActive, fw.CertIssued:
		// Issued and presented: the device has proved that it holds the key.
		ok = true
	case fw.CertHeld:
		state.Reason = fw.ReasonCertificateHeld
	case fw.CertRevoked, fw.CertSuperseded:
		state.Reason = fw.ReasonCertificateRevoked
	default:
		state.Reason = fw.ReasonCertificateUnknown
	}
	e.is(state, ok)

	// The ends of the validity period belong to it (RFC 5280, section 4.1.2.5).
	valid := Check{Name: "certificate_validity", Observed: itoa(now), Wanted: span(c.NotBefore, c.NotAfter)}
	switch {
	case !c.Known:
		valid.Reason = fw.ReasonCertificateUnknown
	case now < c.NotBefore:
		valid.Reason = fw.ReasonCertificateNotYet
	case now > c.NotAfter:
		valid.Reason = fw.ReasonCertificateExpired
	}
	e.is(valid, valid.Reason == "")
}

func (e *evaluation) lifecycle() {
	c := Check{Name: "lifecycle", Observed: string(e.f.Device.State), Wanted: string(fw.DeviceActive), Reason: fw.ReasonLifecycle}
	ok := false
	switch e.f.Device.State {
	case fw.DeviceActive:
		ok = true
	case fw.DeviceQuarantined:
		ok, c.Reason = e.t.Plan.Remediation, fw.ReasonQuarantined
	case fw.DeviceManufactured, fw.DeviceClaimed, fw.DeviceSuspended, fw.DeviceRevoked, fw.DeviceDecommissioned:
		// A claimed device gets the baseline release only, and no plan can
		// say yet that its release is one.
	}
	e.is(c, ok)
}

func (e *evaluation) compatibility() {
	d, m := &e.f.Device, e.t.Manifest
	e.is(Check{Name: "product", Reason: fw.ReasonProductMismatch, Observed: string(d.Product), Wanted: string(m.Product)},
		d.Product != "" && d.Product == m.Product && d.Product == e.t.Plan.Product && d.Product == e.t.Publication.Product)

	hw := Check{Name: "hardware", Reason: fw.ReasonHardwareMismatch, Observed: string(d.Hardware)}
	ok := d.Hardware != "" && slices.Contains(m.Hardware, d.Hardware)
	if !ok {
		hw.Wanted = list(m.Hardware)
	}
	e.is(hw, ok)

	comp := Check{Name: "component", Reason: fw.ReasonComponentUnknown}
	ok = len(e.t.Publication.Images) > 0
	for i := range e.t.Publication.Images {
		if name := e.t.Publication.Images[i].Component; component(d, name) == nil {
			ok, comp.Wanted = false, string(name)
		}
	}
	e.is(comp, ok)
}

func (e *evaluation) integrity() {
	s := e.f.Device.Integrity
	e.is(Check{Name: "integrity", Reason: fw.ReasonIntegrity, Observed: s, Wanted: IntegrityOK}, s == "" || s == IntegrityOK)
}

// release checks that the release is on offer, and is the one the plan names:
// the plan's own, or in a rollback the one to go back to.
func (e *evaluation) release() {
	c := Check{Name: "release", Observed: string(e.f.Campaign.ReleaseState), Wanted: string(fw.ReleasePublished)}
	switch e.f.Campaign.ReleaseState {
	case fw.ReleasePublished:
	case fw.ReleaseWithdrawn:
		c.Reason = fw.ReasonReleaseWithdrawn
	case fw.ReleaseDraft, fw.ReleaseInReview, fw.ReleaseApproved:
		c.Reason = fw.ReasonReleaseNotPublished
	default:
		c.Reason = fw.ReasonReleaseNotPublished
	}
	e.is(c, c.Reason == "")

	p, pub := e.t.Plan, e.t.Publication
	wantRelease, wantDigest := p.Release, p.Publication
	if e.f.Update.Rollback {
		wantRelease, wantDigest = "", fw.Digest{}
		if p.Rollback != nil {
			wantRelease, wantDigest = p.Rollback.Release, p.Rollback.Publication
		}
	}
	e.is(Check{Name: "release_of_plan", Reason: fw.ReasonReleaseNotPublished, Observed: string(pub.Release), Wanted: string(wantRelease)},
		wantRelease != "" && pub.Release == wantRelease && e.t.Manifest.Release == wantRelease && e.f.Campaign.Publication == wantDigest)
}

func (e *evaluation) campaign() {
	want := fw.CampaignRunning
	if e.f.Update.Rollback {
		want = fw.CampaignRollingBack
	}
	c := &e.f.Campaign
	e.is(Check{Name: "campaign", Reason: fw.ReasonCampaignNotRunning, Observed: string(c.State), Wanted: string(want)},
		c.State == want && c.ID == e.t.Plan.Campaign)
	quorum := max(1, e.t.Plan.Quorum)
	e.is(Check{Name: "approvals", Reason: fw.ReasonApprovalsMissing, Observed: strconv.Itoa(c.Approvals), Wanted: strconv.Itoa(quorum)},
		c.Approvals >= quorum)
}

// membership checks that the device is selected and that the update and its
// stage can take it. A rollback asks only whether the device was updated by
// this campaign: one that has left the cohort since must still get back.
func (e *evaluation) membership() {
	f := e.f
	u, s := &f.Update, &f.Stage
	if u.Rollback {
		e.is(Check{Name: "stage", Reason: fw.ReasonStageNotOpen, Wanted: "member"}, u.Member)
		e.is(Check{Name: "update_state", Reason: fw.ReasonUpdateState, Observed: string(u.State)}, canRevert(u.State))
		return
	}
	e.cohort("cohort", e.t.Cohort)
	if e.t.StageCohort != nil {
		e.cohort("stage_cohort", e.t.StageCohort)
	}
	// Stages after the first running one wait; a soaking or passed one has
	// its devices, which may try again, and takes no others.
	open := s.State == fw.StageRunning || u.Member && (s.State == fw.StageSoaking || s.State == fw.StagePassed)
	if u.Member {
		open = open && u.Stage == s.Index
	}
	e.is(Check{Name: "stage", Reason: fw.ReasonStageNotOpen, Observed: string(s.State), Wanted: string(fw.StageRunning)},
		open && s.Index >= 0 && s.Index < len(e.t.Plan.Stages))
	e.is(Check{Name: "stage_room", Reason: fw.ReasonStageFull, Observed: strconv.Itoa(s.Members), Wanted: strconv.Itoa(s.Limit)},
		u.Member || s.Members >= 0 && s.Members < s.Limit)
	e.is(Check{Name: "update_state", Reason: fw.ReasonUpdateState, Observed: string(u.State)}, u.State.CanMove(fw.UpdateAuthorized))
}

// canRevert reports whether an update in state s may have left its release on
// the device.
func canRevert(s fw.UpdateState) bool {
	switch s {
	case fw.UpdateAuthorized, fw.UpdateDelivered, fw.UpdateInstalled, fw.UpdateConfirmed, fw.UpdateFailed, fw.UpdatePaused:
		return true
	case fw.UpdatePending, fw.UpdateRefused, fw.UpdateDeferred, fw.UpdateRejected, fw.UpdateRolledBack, fw.UpdateCancelled, fw.UpdateSuperseded:
	}
	return false
}

func (e *evaluation) cohort(name string, c *Condition) {
	// One made elsewhere than by CompileCondition has no parts and selects nothing.
	answer, seen := CannotTell, ""
	if len(c.conjuncts) > 0 {
		answer, seen = c.match(newActivation(&e.f.Device))
	}
	e.is(Check{Name: name, Reason: fw.ReasonNotInCohort, Observed: seen, Wanted: c.expr}, answer == True)
}

func (e *evaluation) limits() {
	c, p := &e.f.Campaign, e.t.Plan
	e.is(Check{Name: "concurrency", Reason: fw.ReasonConcurrency, Observed: strconv.Itoa(c.Open), Wanted: limit(p.MaxConcurrent)},
		p.MaxConcurrent == 0 || c.Open < p.MaxConcurrent)
	if e.f.Update.Rollback {
		return
	}
	e.is(Check{Name: "rate", Reason: fw.ReasonRate, Observed: strconv.Itoa(c.GrantedLastMinute), Wanted: limit(p.RatePerMinute)},
		p.RatePerMinute == 0 || c.GrantedLastMinute < p.RatePerMinute)
}

func (e *evaluation) preference() {
	d, now := &e.f.Device, e.f.Now
	if e.t.Plan.Mandatory || e.f.Update.Rollback {
		return
	}
	e.is(Check{Name: "opt_out", Reason: fw.ReasonOptedOut}, !d.OptedOut)
	c := Check{Name: "postponed", Reason: fw.ReasonPostponed}
	if d.PostponedUntil != 0 {
		c.Observed, c.Wanted = itoa(now), itoa(d.PostponedUntil)
	}
	e.is(c, now >= d.PostponedUntil)
}

// policy adds a check for each part of each condition. They come last and can
// only take away.
func (e *evaluation) policy() {
	want, p := e.t.Plan.Policy, e.t.Policy
	if !want.IsZero() || p != nil {
		c := Check{Name: "policy", Reason: fw.ReasonPolicy}
		ok := p != nil && len(p.rules) > 0 && e.f.Campaign.Policy == want
		if !ok {
			c.Observed, c.Wanted = e.f.Campaign.Policy.String(), want.String()
		}
		e.is(c, ok)
	}
	if p == nil {
		return
	}
	a := newActivation(&e.f.Device)
	a.facts, a.terms = e.f, e.t
	for i := range p.rules {
		r := &p.rules[i]
		for j := range r.when.conjuncts {
			cj := &r.when.conjuncts[j]
			c := Check{Name: r.checks[j], Wanted: cj.text}
			answer := cj.answer(a)
			if answer != True {
				c.Reason, c.Message, c.Observed = fw.ReasonPolicy, r.message, cj.observed(a)
				if answer == CannotTell {
					c.Reason = fw.ReasonPolicyAbsent
				}
			}
			e.is(c, answer == True)
		}
	}
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func span(from, to int64) string { return itoa(from) + ".." + itoa(to) }

// limit shows a limit, where 0 is none.
func limit(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func list[S ~string](names []S) string {
	text := make([]string, len(names))
	for i, n := range names {
		text[i] = string(n)
	}
	return strings.Join(text, ", ")
}
