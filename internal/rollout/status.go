package rollout

import (
	"slices"

	"github.com/writ-project/writ/internal/fw"
)

// Status is where a campaign stands: the state rows of the database. It is a
// value; [Apply] returns a new one that shares nothing with the old.
type Status struct {
	State  fw.CampaignState `json:"state"`
	Stage  int              `json:"stage"` // index of the current stage
	Stages []Stage          `json:"stages"`
}

// Stage is the state of one stage. Times are Unix seconds, 0 when not yet.
type Stage struct {
	State     fw.StageState `json:"state"`
	Cohort    int           `json:"cohort,omitempty"`   // devices selected, as last counted
	Limit     int           `json:"limit,omitempty"`    // devices that may become members; set when the stage opens
	Approved  bool          `json:"approved,omitempty"` // for a stage that needs approval
	StartedAt int64         `json:"started_at,omitempty"`
	SoakFrom  int64         `json:"soak_from,omitempty"`
	Tally     Tally         `json:"tally"`
}

// Tally counts the devices of one stage, not attempts, except where it says
// so. A member is in at most one of Open, Confirmed, Failed, Rejected,
// RolledBack and Cancelled; a retry moves it. Failures and DevicesFailed never
// go down: neither a retry nor a late success undoes that something failed.
type Tally struct {
	Members    int `json:"members,omitempty"`     // devices ever authorized in this stage
	Open       int `json:"open,omitempty"`        // an authorization is out, its end unknown
	Confirmed  int `json:"confirmed,omitempty"`   // runs the new release and says so
	Failed     int `json:"failed,omitempty"`      // last attempt failed
	Rejected   int `json:"rejected,omitempty"`    // the device refused the bytes
	RolledBack int `json:"rolled_back,omitempty"` // fell back, or was taken back
	Cancelled  int `json:"cancelled,omitempty"`   // left the campaign: cancelled or superseded

	Failures      int `json:"failures,omitempty"`       // failed attempts of any kind
	DevicesFailed int `json:"devices_failed,omitempty"` // devices with at least one failed attempt
	Lost          int `json:"lost,omitempty"`           // devices that failed and have no attempt left

	// What an operator acknowledged by resuming; the gates start from there.
	FailuresForgiven      int `json:"failures_forgiven,omitempty"`
	DevicesFailedForgiven int `json:"devices_failed_forgiven,omitempty"`
	LostForgiven          int `json:"lost_forgiven,omitempty"`
}

// New returns the status of an approved campaign that has not started.
func New(p *fw.Plan) Status {
	s := Status{State: fw.CampaignApproved, Stages: make([]Stage, len(p.Stages))}
	for i := range s.Stages {
		s.Stages[i].State = fw.StageWaiting
	}
	return s
}

// Clone returns a copy of s that shares nothing with it.
func (s Status) Clone() Status {
	s.Stages = slices.Clone(s.Stages)
	return s
}

// Total sums the tallies of all stages.
func (s Status) Total() Tally {
	var t Tally
	for i := range s.Stages {
		u := &s.Stages[i].Tally
		t.Members += u.Members
		t.Open += u.Open
		t.Confirmed += u.Confirmed
		t.Failed += u.Failed
		t.Rejected += u.Rejected
		t.RolledBack += u.RolledBack
		t.Cancelled += u.Cancelled
		t.Failures += u.Failures
		t.DevicesFailed += u.DevicesFailed
		t.Lost += u.Lost
		t.FailuresForgiven += u.FailuresForgiven
		t.DevicesFailedForgiven += u.DevicesFailedForgiven
		t.LostForgiven += u.LostForgiven
	}
	return t
}
