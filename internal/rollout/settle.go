package rollout

import "github.com/writ-project/writ/internal/fw"

// settle makes every move that follows from the status and the time. Each
// round makes at least one, and none can be made twice in the same second
// without an event in between, so it ends.
func (m *machine) settle() {
	for m.step() {
	}
}

// step makes the next move, if there is one.
func (m *machine) step() bool {
	switch m.s.State {
	case fw.CampaignScheduled:
		if m.now < m.p.NotBefore {
			return false
		}
		m.campaign(fw.CampaignRunning, ReasonDue, 0)
		return true
	case fw.CampaignRunning:
		return m.guard() || m.expire() || m.advance()
	case fw.CampaignPaused:
		// Failures that come in while paused still count; nothing advances.
		return m.guard()
	case fw.CampaignRollingBack:
		if t := m.s.Total(); t.Confirmed+t.Open > 0 {
			return false
		}
		m.campaign(fw.CampaignRolledBack, ReasonReverted, m.s.Stage)
		return true
	case fw.CampaignDraft, fw.CampaignInReview, fw.CampaignApproved, fw.CampaignCompleted, fw.CampaignAborted, fw.CampaignRolledBack:
		return false
	}
	return false
}

// guard fails the current stage when its gate trips, or when a failure gate
// of a stage that passed does: a device of an earlier stage that fails late
// is news about the same release.
func (m *machine) guard() bool {
	sp, st := m.stage()
	if st.State == fw.StageFailed {
		return false // acted upon already
	}
	why, gate := Reason(""), m.s.Stage
	for i := range m.s.Stage {
		if why = failureGate(&m.p.Stages[i], &m.s.Stages[i].Tally); why != "" {
			gate = i
			break
		}
	}
	open := st.State == fw.StageRunning || st.State == fw.StageSoaking
	if why == "" && open {
		why = tripped(sp, st)
	}
	if why == "" {
		return false
	}
	moved := false
	if open { // a stage that still waits has nothing to fail
		m.move(fw.StageFailed, why, gate)
		moved = true
	}
	to := fw.CampaignPaused
	if m.p.OnFailure == fw.FailureRollBack {
		to = fw.CampaignRollingBack
	}
	if m.s.State != to {
		m.campaign(to, ReasonStageFailed, gate)
		moved = true
	}
	return moved
}

// expire ends a campaign whose time is over and whose current stage cannot
// pass any more without a new authorization.
func (m *machine) expire() bool {
	if m.p.NotAfter == 0 || m.now <= m.p.NotAfter {
		return false
	}
	sp, st := m.stage()
	switch st.State {
	case fw.StageSoaking:
		return false // needs no more authorizations
	case fw.StageRunning:
		if st.Tally.Confirmed+st.Tally.Open >= needed(sp, st) {
			return false
		}
	case fw.StageWaiting, fw.StagePassed, fw.StageFailed:
	}
	m.campaign(fw.CampaignAborted, ReasonNotAfter, m.s.Stage)
	return true
}

// advance opens, soaks and passes stages.
func (m *machine) advance() bool {
	sp, st := m.stage()
	switch st.State {
	case fw.StageWaiting:
		return m.open(sp, st)
	case fw.StageRunning:
		switch {
		case st.Limit == 0:
			m.pass(ReasonEmpty)
		case st.Tally.Confirmed < needed(sp, st):
			return false
		case sp.SoakSeconds > 0:
			m.move(fw.StageSoaking, ReasonMinimum, m.s.Stage)
			st.SoakFrom = m.now
		default:
			m.pass(ReasonMinimum)
		}
		return true
	case fw.StageSoaking:
		switch {
		case st.Tally.Confirmed < needed(sp, st):
			m.move(fw.StageRunning, ReasonMinimumLost, m.s.Stage)
			st.SoakFrom = 0
		case m.now < st.SoakFrom+sp.SoakSeconds:
			return false
		default:
			m.pass(ReasonSoaked)
		}
		return true
	case fw.StagePassed, fw.StageFailed:
		return false
	}
	return false
}

func (m *machine) open(sp *fw.StagePlan, st *Stage) bool {
	if sp.NeedsApproval && !st.Approved {
		return false
	}
	why := ReasonPrevious
	switch {
	case sp.NeedsApproval:
		why = ReasonApproved
	case m.s.Stage == 0:
		why = ReasonFirst
	}
	st.Limit = m.limit(m.s.Stage)
	st.StartedAt = m.now
	m.move(fw.StageRunning, why, m.s.Stage)
	return true
}

// pass ends the current stage and goes on to the next, or ends the campaign.
func (m *machine) pass(why Reason) {
	m.move(fw.StagePassed, why, m.s.Stage)
	if m.s.Stage == len(m.s.Stages)-1 {
		m.campaign(fw.CampaignCompleted, ReasonAllPassed, m.s.Stage)
		return
	}
	m.s.Stage++
}

// NextTimer returns when Apply is to be called with a tick if nothing else
// happens before, in Unix seconds: the scheduled start, the end of a soak or
// the end of the campaign's time. It is now for what is already due, and 0
// when time alone changes nothing.
func NextTimer(p *fw.Plan, s Status, now int64) int64 {
	if s.Stage < 0 || s.Stage >= len(s.Stages) || len(s.Stages) != len(p.Stages) {
		return 0
	}
	next := int64(0)
	at := func(t int64) {
		if t = max(t, now); next == 0 || t < next {
			next = t
		}
	}
	switch s.State {
	case fw.CampaignScheduled:
		at(p.NotBefore)
	case fw.CampaignRunning:
		st := &s.Stages[s.Stage]
		if st.State == fw.StageSoaking {
			at(st.SoakFrom + p.Stages[s.Stage].SoakSeconds)
		}
		if p.NotAfter >= now && p.NotAfter != 0 {
			at(p.NotAfter + 1)
		}
	case fw.CampaignDraft, fw.CampaignInReview, fw.CampaignApproved, fw.CampaignPaused, fw.CampaignCompleted, fw.CampaignAborted, fw.CampaignRollingBack, fw.CampaignRolledBack:
	}
	return next
}
