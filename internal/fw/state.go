package fw

import "slices"

// transitions is a transition table: from each state, the states it may move to.
type transitions[S ~string] map[S][]S

func (t transitions[S]) allows(from, to S) bool {
	return slices.Contains(t[from], to)
}

// DeviceState is the decided lifecycle state of a device. Certificate expiry
// and the like are computed, never stored here.
type DeviceState string

// Device states in life-cycle order.
const (
	DeviceManufactured   DeviceState = "manufactured"   // identity evidence on file, no owner
	DeviceClaimed        DeviceState = "claimed"        // owner set, may enrol; baseline release only
	DeviceActive         DeviceState = "active"         // policy decides
	DeviceSuspended      DeviceState = "suspended"      // administrative hold, no updates
	DeviceQuarantined    DeviceState = "quarantined"    // security doubt, remediation releases only
	DeviceRevoked        DeviceState = "revoked"        // identity held compromised; final
	DeviceDecommissioned DeviceState = "decommissioned" // retired; final
)

// DeviceStates lists every device state in life-cycle order.
var DeviceStates = []DeviceState{DeviceManufactured, DeviceClaimed, DeviceActive, DeviceSuspended, DeviceQuarantined, DeviceRevoked, DeviceDecommissioned}

var deviceMoves = transitions[DeviceState]{
	"":                   {DeviceManufactured, DeviceClaimed},
	DeviceManufactured:   {DeviceClaimed, DeviceRevoked, DeviceDecommissioned},
	DeviceClaimed:        {DeviceActive, DeviceRevoked, DeviceDecommissioned},
	DeviceActive:         {DeviceSuspended, DeviceQuarantined, DeviceClaimed, DeviceRevoked, DeviceDecommissioned},
	DeviceSuspended:      {DeviceActive, DeviceQuarantined, DeviceClaimed, DeviceRevoked, DeviceDecommissioned},
	DeviceQuarantined:    {DeviceActive, DeviceRevoked, DeviceDecommissioned},
	DeviceRevoked:        nil,
	DeviceDecommissioned: nil,
}

// CanMove reports whether a device may go from s to next. Revoked and
// decommissioned are final.
func (s DeviceState) CanMove(next DeviceState) bool { return deviceMoves.allows(s, next) }

// Final reports whether s has no way out.
func (s DeviceState) Final() bool { return s == DeviceRevoked || s == DeviceDecommissioned }

// RaisesTrust reports whether moving from s to next raises trust, which needs
// a person other than the one who asked (invariant I5).
func (s DeviceState) RaisesTrust(next DeviceState) bool {
	return s == DeviceQuarantined && next == DeviceActive
}

// CertState is the decided state of a certificate. Expired and renewal due
// are computed from the clock.
type CertState string

// Certificate states in life-cycle order.
const (
	CertIssued     CertState = "issued" // not yet used by the device
	CertActive     CertState = "active"
	CertSuperseded CertState = "superseded"
	CertHeld       CertState = "held"
	CertRevoked    CertState = "revoked"
)

var certMoves = transitions[CertState]{
	"":             {CertIssued},
	CertIssued:     {CertActive, CertSuperseded, CertHeld, CertRevoked},
	CertActive:     {CertSuperseded, CertHeld, CertRevoked},
	CertSuperseded: {CertRevoked},
	CertHeld:       {CertActive, CertRevoked},
	CertRevoked:    nil,
}

// CanMove reports whether a certificate may go from s to next.
func (s CertState) CanMove(next CertState) bool { return certMoves.allows(s, next) }

// UpdateState is the state of one device in one campaign.
type UpdateState string

// Update states in life-cycle order, side exits after.
const (
	UpdatePending    UpdateState = "pending"
	UpdateAuthorized UpdateState = "authorized"
	UpdateDelivered  UpdateState = "delivered"
	UpdateInstalled  UpdateState = "installed"
	UpdateConfirmed  UpdateState = "confirmed"
	UpdateRefused    UpdateState = "refused"  // re-evaluated at the next check-in
	UpdateDeferred   UpdateState = "deferred" // the user postponed
	UpdateFailed     UpdateState = "failed"
	UpdateRejected   UpdateState = "rejected" // the device's verifier refused the bytes
	UpdatePaused     UpdateState = "paused"   // authorization withdrawn by a campaign pause
	UpdateRolledBack UpdateState = "rolled_back"
	UpdateCancelled  UpdateState = "cancelled"
	UpdateSuperseded UpdateState = "superseded"
)

// UpdateStates lists every update state in life-cycle order.
var UpdateStates = []UpdateState{UpdatePending, UpdateAuthorized, UpdateDelivered, UpdateInstalled, UpdateConfirmed, UpdateRefused, UpdateDeferred, UpdateFailed, UpdateRejected, UpdatePaused, UpdateRolledBack, UpdateCancelled, UpdateSuperseded}

var updateMoves = transitions[UpdateState]{
	"":               {UpdatePending, UpdateAuthorized, UpdateRefused, UpdateDeferred},
	UpdatePending:    {UpdateAuthorized, UpdateRefused, UpdateDeferred, UpdateCancelled, UpdateSuperseded},
	UpdateRefused:    {UpdateAuthorized, UpdateDeferred, UpdateCancelled, UpdateSuperseded},
	UpdateDeferred:   {UpdateAuthorized, UpdateRefused, UpdateCancelled, UpdateSuperseded},
	UpdateAuthorized: {UpdateDelivered, UpdateInstalled, UpdateConfirmed, UpdateFailed, UpdateRejected, UpdatePaused, UpdateRolledBack, UpdateCancelled, UpdateSuperseded},
	UpdateDelivered:  {UpdateInstalled, UpdateConfirmed, UpdateFailed, UpdateRejected, UpdatePaused, UpdateRolledBack, UpdateCancelled, UpdateSuperseded},
	UpdateInstalled:  {UpdateConfirmed, UpdateFailed, UpdateRejected, UpdateRolledBack},
	UpdateConfirmed:  {UpdateRolledBack},
	UpdateRejected:   {UpdateAuthorized, UpdateRefused, UpdateCancelled, UpdateSuperseded},
	// A device may report the end of an attempt after the server gave it up.
	UpdateFailed:     {UpdateInstalled, UpdateConfirmed, UpdateRejected, UpdateRolledBack, UpdatePending, UpdateAuthorized, UpdateRefused, UpdateCancelled, UpdateSuperseded},
	UpdateRolledBack: {UpdatePending, UpdateAuthorized, UpdateRefused, UpdateCancelled, UpdateSuperseded},
	// A paused device may already hold its authorization: what it then
	// reports is the truth and is recorded.
	UpdatePaused:     {UpdatePending, UpdateAuthorized, UpdateRefused, UpdateDelivered, UpdateInstalled, UpdateConfirmed, UpdateFailed, UpdateRejected, UpdateRolledBack, UpdateCancelled, UpdateSuperseded},
	UpdateCancelled:  nil,
	UpdateSuperseded: nil,
}

// CanMove reports whether an update may go from s to next.
func (s UpdateState) CanMove(next UpdateState) bool { return updateMoves.allows(s, next) }

// Open reports whether an authorization is out and its end not yet known: the
// states that occupy a place in a stage.
func (s UpdateState) Open() bool {
	return s == UpdateAuthorized || s == UpdateDelivered || s == UpdateInstalled
}

// CampaignState is the state of a campaign.
type CampaignState string

// Campaign states in life-cycle order.
const (
	CampaignDraft       CampaignState = "draft"
	CampaignInReview    CampaignState = "in_review"
	CampaignApproved    CampaignState = "approved"
	CampaignScheduled   CampaignState = "scheduled"
	CampaignRunning     CampaignState = "running"
	CampaignPaused      CampaignState = "paused"
	CampaignCompleted   CampaignState = "completed"
	CampaignAborted     CampaignState = "aborted"
	CampaignRollingBack CampaignState = "rolling_back"
	CampaignRolledBack  CampaignState = "rolled_back"
)

// CampaignStates lists every campaign state in life-cycle order.
var CampaignStates = []CampaignState{CampaignDraft, CampaignInReview, CampaignApproved, CampaignScheduled, CampaignRunning, CampaignPaused, CampaignCompleted, CampaignAborted, CampaignRollingBack, CampaignRolledBack}

var campaignMoves = transitions[CampaignState]{
	"":                  {CampaignDraft},
	CampaignDraft:       {CampaignInReview, CampaignAborted},
	CampaignInReview:    {CampaignDraft, CampaignApproved, CampaignAborted},
	CampaignApproved:    {CampaignDraft, CampaignScheduled, CampaignRunning, CampaignAborted},
	CampaignScheduled:   {CampaignDraft, CampaignRunning, CampaignAborted},
	CampaignRunning:     {CampaignPaused, CampaignCompleted, CampaignAborted, CampaignRollingBack},
	CampaignPaused:      {CampaignRunning, CampaignAborted, CampaignRollingBack},
	CampaignRollingBack: {CampaignRolledBack},
	CampaignCompleted:   nil,
	CampaignAborted:     nil,
	CampaignRolledBack:  nil,
}

// CanMove reports whether a campaign may go from s to next.
func (s CampaignState) CanMove(next CampaignState) bool { return campaignMoves.allows(s, next) }

// Live reports whether a campaign has started and not ended.
func (s CampaignState) Live() bool {
	return s == CampaignRunning || s == CampaignPaused || s == CampaignRollingBack
}

// StageState is the state of one stage of a campaign.
type StageState string

// Stage states in life-cycle order.
const (
	StageWaiting StageState = "waiting"
	StageRunning StageState = "running"
	StageSoaking StageState = "soaking"
	StagePassed  StageState = "passed"
	StageFailed  StageState = "failed"
)

var stageMoves = transitions[StageState]{
	"":           {StageWaiting},
	StageWaiting: {StageRunning},
	StageRunning: {StageSoaking, StagePassed, StageFailed},
	StageSoaking: {StagePassed, StageFailed, StageRunning},
	StageFailed:  {StageRunning}, // an operator resumes a paused campaign
	StagePassed:  nil,
}

// CanMove reports whether a stage may go from s to next.
func (s StageState) CanMove(next StageState) bool { return stageMoves.allows(s, next) }

// ReleaseState is the state of a release.
type ReleaseState string

// Release states in life-cycle order. A release is immutable from in_review
// on; an edit returns it to draft and voids its approvals.
const (
	ReleaseDraft     ReleaseState = "draft"
	ReleaseInReview  ReleaseState = "in_review"
	ReleaseApproved  ReleaseState = "approved"
	ReleasePublished ReleaseState = "published" // signed, verified again, may be offered
	ReleaseWithdrawn ReleaseState = "withdrawn" // never offered again; final
)

var releaseMoves = transitions[ReleaseState]{
	"":               {ReleaseDraft},
	ReleaseDraft:     {ReleaseInReview, ReleaseWithdrawn},
	ReleaseInReview:  {ReleaseDraft, ReleaseApproved, ReleaseWithdrawn},
	ReleaseApproved:  {ReleaseDraft, ReleasePublished, ReleaseWithdrawn},
	ReleasePublished: {ReleaseWithdrawn},
	ReleaseWithdrawn: nil,
}

// CanMove reports whether a release may go from s to next.
func (s ReleaseState) CanMove(next ReleaseState) bool { return releaseMoves.allows(s, next) }

// ReleaseType says what a release changes (CRA Annex I part II (2)).
type ReleaseType string

// Release types.
const (
	ReleaseSecurity   ReleaseType = "security"
	ReleaseFunctional ReleaseType = "functional"
	ReleaseMixed      ReleaseType = "mixed" // needs a reason
)

// Assurance says how far a device's statement can be believed. It is never
// upgraded (invariant I6).
type Assurance string

// Assurances from weakest to strongest.
const (
	AssuranceUnauthenticated Assurance = "unauthenticated"
	AssuranceToken           Assurance = "token"
	AssuranceMTLS            Assurance = "mtls"
	AssuranceDeviceSigned    Assurance = "device_signed"
)

// ReportEvent is what a device says happened.
type ReportEvent string

// Report events in the order of an update.
const (
	EventDelivered  ReportEvent = "delivered"
	EventInstalled  ReportEvent = "installed" // after the restart into the new slot
	EventConfirmed  ReportEvent = "confirmed" // health check passed on the running digest
	EventFailed     ReportEvent = "failed"
	EventRejected   ReportEvent = "rejected" // the verifier refused the authorization or the bytes
	EventRolledBack ReportEvent = "rolled_back"
)

// State returns the update state that event leads to.
func (e ReportEvent) State() (UpdateState, bool) {
	switch e {
	case EventDelivered:
		return UpdateDelivered, true
	case EventInstalled:
		return UpdateInstalled, true
	case EventConfirmed:
		return UpdateConfirmed, true
	case EventFailed:
		return UpdateFailed, true
	case EventRejected:
		return UpdateRejected, true
	case EventRolledBack:
		return UpdateRolledBack, true
	}
	return "", false
}

// Purpose is what a signing key may sign. One Go type per purpose wraps the
// key (internal/signer); the string form is stored.
type Purpose string

// Key purposes.
const (
	PurposeImage         Purpose = "image"
	PurposeAuthorization Purpose = "authorization"
	PurposeLog           Purpose = "log"
	PurposeDeviceCA      Purpose = "device_ca"
	PurposeRosterRoot    Purpose = "roster_root"
	PurposeStatement     Purpose = "statement" // release statements
)

// Role is what an operator may do.
type Role string

// Roles (DESIGN section 10).
const (
	RoleViewer          Role = "viewer"
	RoleDeviceOperator  Role = "device_operator"
	RoleFactory         Role = "factory"
	RoleReleaseEngineer Role = "release_engineer"
	RoleApprover        Role = "approver"
	RoleSecurityOfficer Role = "security_officer"
	RoleAuditor         Role = "auditor"
	RoleAdmin           Role = "admin"
)

// Roles lists every role.
var Roles = []Role{RoleViewer, RoleDeviceOperator, RoleFactory, RoleReleaseEngineer, RoleApprover, RoleSecurityOfficer, RoleAuditor, RoleAdmin}
