// Package docket holds the payloads of the records in which several rules
// meet: a decision with the rollout event it caused, a report, an event of a
// campaign. The services that write them and the verifier that re-executes
// them read the same types.
//
// # What it promises
//
// Every record that changes the status of a campaign carries the
// [rollout.Event] that changed it and the transitions that came of it. The
// records of a campaign's stream, in order, are therefore a complete script:
// replaying the events through [rollout.Apply] from [rollout.New] must give
// the same transitions and the same tallies, and each decision's facts must
// show the tallies of that moment.
package docket

import (
	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/policy"
	"github.com/writ-project/writ/internal/rollout"
)

// CampaignEvent is the payload of campaign_event: an event that no device
// caused.
type CampaignEvent struct {
	Campaign    fw.CampaignID        `json:"campaign"`
	Event       rollout.Event        `json:"event"`
	Transitions []rollout.Transition `json:"transitions,omitempty"`
	// Approvals are the approvers counted for a start or a stage, and Roster
	// the roster they were counted under.
	Approvals *approval.Result `json:"approvals,omitempty"`
	Roster    fw.Digest        `json:"roster,omitzero"`
	// Document holds the exact bytes that the approvals of a stage sign.
	Document []byte `json:"document,omitempty"`
}

// Decision is the payload of decision: the answer to one device's check-in
// for one campaign.
type Decision struct {
	policy.Record
	Campaign fw.CampaignID  `json:"campaign"`
	Update   fw.UpdateID    `json:"update"`
	To       fw.UpdateState `json:"to"` // where the update went: authorized, refused, deferred
	// Repeats counts how often the refusal before this decision was given
	// again with the same reasons.
	Repeats int64 `json:"repeats,omitempty"`
	// Claims is the digest of the authorization's claims without the place of
	// this record (authz.CoreDigest); zero for a refusal.
	Claims        fw.Digest            `json:"claims,omitzero"`
	Authorization fw.AuthorizationID   `json:"authorization,omitempty"`
	Event         *rollout.Event       `json:"event,omitempty"`
	Transitions   []rollout.Transition `json:"transitions,omitempty"`
}

// Report is the payload of report: what a device says happened, in its own
// signed bytes.
type Report struct {
	Device      fw.DeviceID          `json:"device"`
	Sequence    int64                `json:"sequence"`
	Signed      []byte               `json:"signed"` // COSE_Sign1
	Certificate string               `json:"certificate"`
	Assurance   fw.Assurance         `json:"assurance"`
	Says        fw.ReportEvent       `json:"says"`
	Reason      fw.Reason            `json:"reason,omitempty"`
	Campaign    fw.CampaignID        `json:"campaign,omitempty"`
	Update      fw.UpdateID          `json:"update,omitempty"`
	From        fw.UpdateState       `json:"from,omitempty"`
	To          fw.UpdateState       `json:"to,omitempty"` // equal to From: nothing moved, Note says why
	Implied     []fw.UpdateState     `json:"implied,omitempty"`
	Note        string               `json:"note,omitempty"`
	Event       *rollout.Event       `json:"event,omitempty"`
	Transitions []rollout.Transition `json:"transitions,omitempty"`
}

// Moved is the payload of update_moved: the server moved an update without a
// word from the device, because its authorization ran out, or its campaign
// was paused or ended.
type Moved struct {
	Campaign    fw.CampaignID        `json:"campaign"`
	Update      fw.UpdateID          `json:"update"`
	Device      fw.DeviceID          `json:"device"`
	From        fw.UpdateState       `json:"from"`
	To          fw.UpdateState       `json:"to"`
	Reason      fw.Reason            `json:"reason"`
	Event       *rollout.Event       `json:"event,omitempty"`
	Transitions []rollout.Transition `json:"transitions,omitempty"`
}
