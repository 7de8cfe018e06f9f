package apitypes

import "github.com/writ-project/writ/internal/fw"

// The vocabulary, named here so that programs outside this module can use it.
// Ids and states are strings: DeviceID("gw-17"), DeviceState("quarantined").
type (
	// AuthorizationID names one authorization.
	AuthorizationID = fw.AuthorizationID
	// CampaignID names a campaign.
	CampaignID = fw.CampaignID
	// ComponentName names an updatable part of a device; "main" when there is one.
	ComponentName = fw.ComponentName
	// DeviceID names a device.
	DeviceID = fw.DeviceID
	// HardwareID is a compatibility id of a product variant.
	HardwareID = fw.HardwareID
	// KeyName names a signing key.
	KeyName = fw.KeyName
	// PersonID names an operator.
	PersonID = fw.PersonID
	// ProductID names a product.
	ProductID = fw.ProductID
	// ReleaseID names a release.
	ReleaseID = fw.ReleaseID
	// UpdateID names one device in one campaign.
	UpdateID = fw.UpdateID

	// Digest is a SHA-256.
	Digest = fw.Digest
	// Kind is a kind of error.
	Kind = fw.Kind
	// ReasonCode is why something was refused or failed.
	ReasonCode = fw.Reason
	// Role is what an operator's token may do.
	Role = fw.Role
	// Purpose is what a signing key is for.
	Purpose = fw.Purpose
	// Assurance is how much a device's word is worth.
	Assurance = fw.Assurance

	// CampaignState is the state of a campaign.
	CampaignState = fw.CampaignState
	// CertState is the state of a certificate.
	CertState = fw.CertState
	// DeviceState is the state of a device.
	DeviceState = fw.DeviceState
	// ReleaseState is the state of a release.
	ReleaseState = fw.ReleaseState
	// ReleaseType is what kind of change a release is.
	ReleaseType = fw.ReleaseType
	// StageState is the state of a stage.
	StageState = fw.StageState
	// UpdateState is the state of an update.
	UpdateState = fw.UpdateState

	// Plan is the exact terms of a campaign.
	Plan = fw.Plan
	// StagePlan is the size and the gate of one stage.
	StagePlan = fw.StagePlan
	// RollbackTo names the release that a rollback leads to.
	RollbackTo = fw.RollbackTo
	// Window is when devices may be authorized.
	Window = fw.Window
	// FailureAction is what a plan does when a gate trips.
	FailureAction = fw.FailureAction
)

// ParseDigest reads "sha256:" and 64 hexadecimal digits.
func ParseDigest(s string) (Digest, error) { return fw.ParseDigest(s) }

// DigestOf returns the SHA-256 of b.
func DigestOf(b []byte) Digest { return fw.DigestOf(b) }
