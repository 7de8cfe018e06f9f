package apitypes

import "github.com/writ-project/writ/internal/fw"

// The vocabulary, named here so that programs outside this module can use it.
// Ids and states are strings: DeviceID("gw-17"), DeviceState("quarantined").
type (
	AuthorizationID = fw.AuthorizationID
	CampaignID      = fw.CampaignID
	ComponentName   = fw.ComponentName
	DeviceID        = fw.DeviceID
	HardwareID      = fw.HardwareID
	KeyName         = fw.KeyName
	PersonID        = fw.PersonID
	ProductID       = fw.ProductID
	ReleaseID       = fw.ReleaseID
	UpdateID        = fw.UpdateID

	ReasonCode = fw.Reason

	Digest = fw.Digest
	Kind   = fw.Kind
	Role   = fw.Role

	Assurance     = fw.Assurance
	CampaignState = fw.CampaignState
	CertState     = fw.CertState
	DeviceState   = fw.DeviceState
	FailureAction = fw.FailureAction
	Purpose       = fw.Purpose
	ReleaseState  = fw.ReleaseState
	ReleaseType   = fw.ReleaseType
	StageState    = fw.StageState
	UpdateState   = fw.UpdateState

	Plan       = fw.Plan
	RollbackTo = fw.RollbackTo
	StagePlan  = fw.StagePlan
	Window     = fw.Window
)

// ParseDigest reads "sha256:" and 64 hexadecimal digits.
func ParseDigest(s string) (Digest, error) { return fw.ParseDigest(s) }

// DigestOf returns the SHA-256 of b.
func DigestOf(b []byte) Digest { return fw.DigestOf(b) }
