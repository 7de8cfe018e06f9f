package rollout

import (
	"slices"

	"github.com/writ-project/writ/internal/fw"
)

// Apply returns the status after event e at time now, and the transitions it
// caused in order. It is deterministic: replaying a campaign's events with
// their recorded times gives the same statuses and transitions. On an error
// nothing happened and s is returned unchanged: kind Invalid for an event that
// makes no sense, Conflict for one that comes at the wrong time, Corrupt when
// the status contradicts the event or the plan.
func Apply(p *fw.Plan, s Status, e Event, now int64) (Status, []Transition, error) {
	if len(s.Stages) == 0 {
		s.Stages = New(p).Stages
	}
	if len(p.Stages) == 0 || len(s.Stages) != len(p.Stages) || s.Stage < 0 || s.Stage >= len(s.Stages) {
		return s, nil, fw.Errorf(fw.Corrupt, "the campaign's status has %d stages and is at stage %d, but its plan has %d stages", len(s.Stages), s.Stage, len(p.Stages))
	}
	m := machine{p: p, s: s.Clone(), now: now}
	if err := m.handle(e); err != nil {
		return s, nil, err
	}
	m.settle()
	return m.s, m.out, nil
}

// machine is one application of one event.
type machine struct {
	p   *fw.Plan
	s   Status
	now int64
	out []Transition
}

func (m *machine) stage() (*fw.StagePlan, *Stage) {
	return &m.p.Stages[m.s.Stage], &m.s.Stages[m.s.Stage]
}

// campaign moves the campaign, because of the gate of the given stage.
func (m *machine) campaign(to fw.CampaignState, why Reason, gate int) {
	m.record(TransitionCampaign, string(m.s.State), string(to), why, gate)
	m.s.State = to
}

// move moves the current stage, because of the gate of the given stage.
func (m *machine) move(to fw.StageState, why Reason, gate int) {
	_, st := m.stage()
	m.record(TransitionStage, string(st.State), string(to), why, gate)
	st.State = to
}

func (m *machine) record(kind TransitionKind, from, to string, why Reason, gate int) {
	t := m.s.Stages[gate].Tally
	m.out = append(m.out, Transition{
		Kind: kind, Stage: m.s.Stage, From: from, To: to, Reason: why,
		Gate: gate, Tally: t, E: eValue(&m.p.Stages[gate], &t),
	})
}

// handle does what the event itself says; what follows from it is settle's.
func (m *machine) handle(e Event) error {
	switch e.Kind {
	case EventStarted:
		return m.start(e)
	case EventUpdateMoved:
		return m.updateMoved(e)
	case EventTick:
		m.recount(e)
		return nil
	case EventRecount:
		if e.Cohort < 1 {
			return fw.Errorf(fw.Invalid, "a recount must say how many devices the cohort selects")
		}
		m.recount(e)
		return nil
	case EventPause:
		return m.operator(fw.CampaignPaused, fw.CampaignRunning)
	case EventResume:
		return m.resume(e)
	case EventAbortKeep:
		return m.operator(fw.CampaignAborted, fw.CampaignDraft, fw.CampaignInReview, fw.CampaignApproved, fw.CampaignScheduled, fw.CampaignRunning, fw.CampaignPaused)
	case EventAbortRevert:
		return m.operator(fw.CampaignRollingBack, fw.CampaignRunning, fw.CampaignPaused)
	case EventStageApproved:
		return m.stageApproved(e)
	case EventRollbackDone:
		return m.rollbackDone(e)
	}
	return fw.Errorf(fw.Invalid, "unknown campaign event %q", e.Kind)
}

// operator moves the campaign because somebody decided so.
func (m *machine) operator(to fw.CampaignState, from ...fw.CampaignState) error {
	if slices.Contains(from, m.s.State) {
		m.campaign(to, ReasonOperator, m.s.Stage)
		return nil
	}
	return fw.Errorf(fw.Conflict, "a campaign that is %s cannot become %s", m.s.State, to)
}

func (m *machine) start(e Event) error {
	if m.s.State != fw.CampaignApproved {
		return fw.Errorf(fw.Conflict, "a campaign that is %s cannot be started; it must be approved", m.s.State)
	}
	if e.Cohort < 1 {
		return fw.Errorf(fw.Conflict, "the cohort selects no device; check its expression before starting")
	}
	m.recount(e)
	if m.now < m.p.NotBefore {
		m.campaign(fw.CampaignScheduled, ReasonScheduled, 0)
		return nil
	}
	m.campaign(fw.CampaignRunning, ReasonOperator, 0)
	return nil
}

// recount takes new cohort sizes for the stages to come, and lets the open
// one grow with its cohort. No limit ever shrinks: its places may be taken.
func (m *machine) recount(e Event) {
	if e.Cohort < 1 {
		return
	}
	for i := m.s.Stage; i < len(m.s.Stages); i++ {
		st := &m.s.Stages[i]
		if st.State != fw.StageWaiting && st.State != fw.StageRunning {
			continue
		}
		st.Cohort = e.Cohort
		if m.p.Stages[i].Cohort != "" && i < len(e.StageCohorts) && e.StageCohorts[i] > 0 {
			st.Cohort = e.StageCohorts[i]
		}
		if st.State == fw.StageRunning {
			st.Limit = max(st.Limit, m.limit(i))
		}
	}
}

// limit returns the size of stage i now.
func (m *machine) limit(i int) int {
	before := 0
	for j := range i {
		before += m.s.Stages[j].Tally.Members
	}
	return StageLimit(m.p, i, m.s.Stages[i].Cohort, before)
}

func (m *machine) resume(e Event) error {
	if err := m.operator(fw.CampaignRunning, fw.CampaignPaused); err != nil {
		return err
	}
	m.recount(e)
	// Resuming over a tripped gate acknowledges what tripped it; a pause
	// with all gates quiet forgives nothing.
	sp, st := m.stage()
	for i := range m.s.Stage {
		if failureGate(&m.p.Stages[i], &m.s.Stages[i].Tally) != "" {
			m.s.Stages[i].Tally.forgive()
		}
	}
	if st.State == fw.StageFailed {
		st.Tally.forgive()
		st.SoakFrom = 0
		m.move(fw.StageRunning, ReasonOperator, m.s.Stage)
	}
	if st.State == fw.StageRunning && tripped(sp, st) != "" {
		return fw.Errorf(fw.Conflict, "stage %q cannot be resumed: no device is left in it that could confirm the release; abort the campaign", sp.Name)
	}
	return nil
}

func (m *machine) stageApproved(e Event) error {
	if e.Stage < 0 || e.Stage >= len(m.s.Stages) {
		return fw.Errorf(fw.Invalid, "the plan has no stage %d", e.Stage)
	}
	sp, st := &m.p.Stages[e.Stage], &m.s.Stages[e.Stage]
	switch {
	case !sp.NeedsApproval:
		return fw.Errorf(fw.Conflict, "stage %q needs no approval", sp.Name)
	case st.Approved || st.State != fw.StageWaiting:
		return fw.Errorf(fw.Conflict, "stage %q is already approved", sp.Name)
	case !m.s.State.Live() && m.s.State != fw.CampaignApproved && m.s.State != fw.CampaignScheduled:
		return fw.Errorf(fw.Conflict, "the campaign is %s; its stages need no approval any more", m.s.State)
	}
	st.Approved = true
	m.recount(e)
	return nil
}

func (m *machine) rollbackDone(e Event) error {
	if m.s.State != fw.CampaignRollingBack {
		return fw.Errorf(fw.Conflict, "a campaign that is %s is not rolling back", m.s.State)
	}
	t := m.s.Total()
	if t.Confirmed+t.Open == 0 {
		return nil // settle ends it
	}
	if e.Actor == "" {
		return fw.Errorf(fw.Conflict, "%d devices may still run the release", t.Confirmed+t.Open)
	}
	m.campaign(fw.CampaignRolledBack, ReasonOperator, m.s.Stage)
	return nil
}

func (m *machine) updateMoved(e Event) error {
	if !e.From.CanMove(e.To) {
		return fw.Errorf(fw.Conflict, "an update that is %q cannot become %q", e.From, e.To)
	}
	if e.Stage < 0 || e.Stage >= len(m.s.Stages) {
		return fw.Errorf(fw.Invalid, "the plan has no stage %d", e.Stage)
	}
	if e.To == fw.UpdateAuthorized {
		if err := m.admit(e); err != nil {
			return err
		}
	} else if e.NewMember {
		return fw.Errorf(fw.Invalid, "only an authorization makes a device a member of a stage, not %q", e.To)
	}
	if e.Outside {
		return nil
	}
	return m.s.Stages[e.Stage].Tally.move(e, m.s.State == fw.CampaignRollingBack || m.s.State == fw.CampaignRolledBack)
}

// admit checks that the device may be authorized. The decision has asked the
// same questions (policy.Evaluate); here they are asked of the rows that are
// about to change, which is what makes the limit hold.
func (m *machine) admit(e Event) error {
	if m.s.State != fw.CampaignRunning {
		return fw.Errorf(fw.Conflict, "the campaign is %s", m.s.State)
	}
	fresh := e.From == "" || e.From == fw.UpdatePending || e.From == fw.UpdateRefused || e.From == fw.UpdateDeferred
	st := &m.s.Stages[e.Stage]
	switch {
	case e.Outside || e.NewMember && !fresh || !e.NewMember && e.From == "":
		return fw.Errorf(fw.Invalid, "a device authorized from %q is new to its stage or a member of it, not both", e.From)
	case !e.NewMember && (st.State == fw.StageWaiting || st.State == fw.StageFailed):
		return fw.Errorf(fw.Conflict, "stage %q is %s", m.p.Stages[e.Stage].Name, st.State)
	case !e.NewMember:
		return nil // has its place already
	case e.Stage != m.s.Stage || st.State != fw.StageRunning:
		return fw.Errorf(fw.Conflict, "stage %q takes no new devices", m.p.Stages[e.Stage].Name)
	case st.Tally.Members >= st.Limit:
		return fw.Errorf(fw.Conflict, "stage %q is full: %d of %d", m.p.Stages[e.Stage].Name, st.Tally.Members, st.Limit)
	}
	return nil
}
