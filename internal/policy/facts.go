package policy

import "github.com/writ-project/writ/internal/fw"

// Facts is the snapshot a decision is made from. It is recorded verbatim as
// JSON in the decision's evidence record, so every name below is part of the
// record format, and a decision must come out the same from a copy that went
// through JSON. Times are Unix seconds, UTC.
type Facts struct {
	Now      int64         `json:"now"`
	Device   DeviceFacts   `json:"device"`
	Update   UpdateFacts   `json:"update,omitzero"`
	Campaign CampaignFacts `json:"campaign"`
	Stage    StageFacts    `json:"stage"`
}

// DeviceFacts is what is known of the device that asks.
type DeviceFacts struct {
	ID             fw.DeviceID       `json:"id"`
	Product        fw.ProductID      `json:"product"`
	Hardware       fw.HardwareID     `json:"hardware"`
	State          fw.DeviceState    `json:"state"`
	Cert           CertFacts         `json:"cert,omitzero"`
	Components     []ComponentFacts  `json:"components,omitempty"`
	Attributes     map[string]string `json:"attributes,omitempty"`
	OptedOut       bool              `json:"opted_out,omitempty"`
	PostponedUntil int64             `json:"postponed_until,omitempty"`
	Integrity      string            `json:"integrity,omitempty"` // "" (never assessed), IntegrityOK or IntegritySuspect
}

// Values of DeviceFacts.Integrity. Any other value but "" is treated as
// suspect: a word this version does not know cannot be good news.
const (
	IntegrityOK      = "ok"
	IntegritySuspect = "suspect"
)

// CertFacts is the certificate the device authenticated with.
type CertFacts struct {
	Known     bool         `json:"known,omitempty"` // on file for this device
	State     fw.CertState `json:"state,omitempty"`
	Serial    string       `json:"serial,omitempty"`
	NotBefore int64        `json:"not_before,omitempty"`
	NotAfter  int64        `json:"not_after,omitempty"`
}

// ComponentFacts is what the device runs in one updatable part, and how far
// that statement can be believed.
type ComponentFacts struct {
	Name            fw.ComponentName `json:"name"`
	Version         string           `json:"version"`
	Digest          fw.Digest        `json:"digest,omitzero"`
	SecurityCounter uint64           `json:"security_counter,omitempty"`
	Assurance       fw.Assurance     `json:"assurance,omitempty"`
}

// UpdateFacts is where this device stands in this campaign. The zero value is
// a device that was never considered before.
type UpdateFacts struct {
	State       fw.UpdateState `json:"state,omitempty"`
	Attempts    int            `json:"attempts,omitempty"`     // authorizations given so far, but for those a campaign pause withdrew
	LastAttempt int64          `json:"last_attempt,omitempty"` // when the last one was given
	Member      bool           `json:"member,omitempty"`       // already counted in a stage
	Stage       int            `json:"stage,omitempty"`        // the stage it is counted in
	Rollback    bool           `json:"rollback,omitempty"`     // this asks for the rollback release
}

// CampaignFacts is the campaign at the moment of the decision. In a rollback
// Publication is the one rolled back to.
type CampaignFacts struct {
	ID                fw.CampaignID    `json:"id"`
	State             fw.CampaignState `json:"state"`
	Plan              fw.Digest        `json:"plan,omitzero"`
	Publication       fw.Digest        `json:"publication,omitzero"`
	Policy            fw.Digest        `json:"policy,omitzero"`
	ReleaseState      fw.ReleaseState  `json:"release_state"`
	Approvals         int              `json:"approvals"`      // distinct valid approvers of the plan
	Open              int              `json:"open,omitempty"` // open authorizations in all stages
	GrantedLastMinute int              `json:"granted_last_minute,omitempty"`
}

// StageFacts is the stage that would take the device: the one it is a member
// of, or else the campaign's current one.
type StageFacts struct {
	Index   int           `json:"index"`
	State   fw.StageState `json:"state"`
	Limit   int           `json:"limit"`
	Members int           `json:"members"`
}
