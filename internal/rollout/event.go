package rollout

import "github.com/writ-project/writ/internal/fw"

// EventKind is what happened to a campaign.
type EventKind string

// Event kinds.
const (
	EventStarted       EventKind = "started"        // an operator starts an approved campaign; Cohort is counted
	EventUpdateMoved   EventKind = "update_moved"   // one device's update went From one state To another
	EventTick          EventKind = "tick"           // time passed; see NextTimer
	EventRecount       EventKind = "recount"        // the cohort was counted again
	EventPause         EventKind = "pause"          // an operator pauses
	EventResume        EventKind = "resume"         // an operator resumes, acknowledging the failures so far
	EventAbortKeep     EventKind = "abort_keep"     // an operator aborts; updated devices stay updated
	EventAbortRevert   EventKind = "abort_revert"   // an operator aborts; updated devices go back
	EventStageApproved EventKind = "stage_approved" // Stage got the approvals it needs
	EventRollbackDone  EventKind = "rollback_done"  // end the rollback; with an Actor even if devices remain
)

// Event is one thing that happened, recorded in the campaign's stream. Which
// fields count depends on Kind.
type Event struct {
	Kind  EventKind `json:"kind"`
	Stage int       `json:"stage,omitempty"` // update_moved, stage_approved

	// update_moved
	From          fw.UpdateState `json:"from,omitempty"`
	To            fw.UpdateState `json:"to,omitempty"`
	NewMember     bool           `json:"new_member,omitempty"`     // first authorization of this device in this campaign
	Outside       bool           `json:"outside,omitempty"`        // the device was never authorized in this campaign: nothing is counted
	PriorFailures int            `json:"prior_failures,omitempty"` // failure reports (failed, rejected, rolled_back) of this device in this campaign before this event
	Exhausted     bool           `json:"exhausted,omitempty"`      // no attempt is left to this member after this event; say so on every move

	// started, tick, recount, resume, stage_approved; 0 where not counted
	Cohort       int   `json:"cohort,omitempty"`        // devices the plan's cohort selects
	StageCohorts []int `json:"stage_cohorts,omitempty"` // per stage with its own cohort, devices it selects; 0 or missing: Cohort

	Actor fw.PersonID `json:"actor,omitempty"`
	Note  string      `json:"note,omitempty"` // the operator's words
}

// TransitionKind says what moved.
type TransitionKind string

// Transition kinds.
const (
	TransitionCampaign TransitionKind = "campaign"
	TransitionStage    TransitionKind = "stage"
)

// Reason is why a transition happened.
type Reason string

// Transition reasons.
const (
	ReasonOperator    Reason = "operator"            // somebody decided
	ReasonScheduled   Reason = "scheduled"           // not_before lies ahead
	ReasonDue         Reason = "due"                 // not_before was reached
	ReasonFirst       Reason = "campaign_started"    // the first stage opens with the campaign
	ReasonPrevious    Reason = "previous_passed"     // the stage before it passed
	ReasonApproved    Reason = "approved"            // the stage got its approval
	ReasonMinimum     Reason = "minimum_confirmed"   // enough devices confirmed
	ReasonMinimumLost Reason = "minimum_lost"        // confirmed devices fell back while soaking
	ReasonSoaked      Reason = "soaked"              // the soak time is over
	ReasonEmpty       Reason = "empty"               // no device left for this stage
	ReasonAllPassed   Reason = "all_stages_passed"   // nothing left to do
	ReasonMaxFailures Reason = "max_failures"        // more failures than the plan allows
	ReasonFailureRate Reason = "max_failure_percent" // the failure rate is above the limit with confidence
	ReasonUnreachable Reason = "minimum_unreachable" // too few devices left that could confirm
	ReasonStageFailed Reason = "stage_failed"        // the plan's failure action
	ReasonNotAfter    Reason = "not_after"           // the campaign's time is over
	ReasonReverted    Reason = "reverted"            // no device remains on the release
)

// Transition is one move of the campaign or of a stage. It is evidence: the
// verifier replays the events and must find the same transitions.
type Transition struct {
	Kind   TransitionKind `json:"kind"`
	Stage  int            `json:"stage"` // the stage that moved; for a campaign move its current stage
	From   string         `json:"from"`
	To     string         `json:"to"`
	Reason Reason         `json:"reason"`
	Gate   int            `json:"gate"`        // the stage whose gate decided: Stage, or an earlier, passed one
	Tally  Tally          `json:"tally"`       // of that stage at the moment of the move
	E      float64        `json:"e,omitempty"` // e-value of that stage's rate gate, 4 significant digits
}
