package fw

import "encoding/json"

// The documents below are hashed and approved as exact JSON bytes: the server
// encodes each once, stores the bytes, and every later reader, the device and
// the offline verifier among them, hashes those bytes and never re-encodes.
// Times are Unix seconds, UTC.

// Document types, the "type" member of each.
const (
	TypeManifest    = "writ-release/v1"
	TypePublication = "writ-publication/v1"
	TypePlan        = "writ-plan/v1"
	TypeLifecycle   = "writ-lifecycle/v1"
	TypeStageGo     = "writ-stage/v1"
)

// Manifest is what is approved of a release: everything but the signatures.
type Manifest struct {
	Type        string              `json:"type"` // TypeManifest
	Release     ReleaseID           `json:"release"`
	Product     ProductID           `json:"product"`
	Version     string              `json:"version"`
	ReleaseType ReleaseType         `json:"release_type"`
	MixedReason string              `json:"mixed_reason,omitempty"`
	Hardware    []HardwareID        `json:"hardware"`               // compatibility; at least one
	FromVersion string              `json:"from_version,omitempty"` // version constraint, e.g. ">=1.0.0, <2.0.0"; empty: any
	Components  []ManifestComponent `json:"components"`             // in install order
	SBOM        Digest              `json:"sbom,omitzero"`          // of the attached SBOM file
	Provenance  Digest              `json:"provenance,omitzero"`    // of the attached build provenance, a DSSE envelope
	Notes       string              `json:"notes,omitempty"`        // for users
	Advisory    string              `json:"advisory,omitempty"`     // what is fixed, for security releases
	ProposedBy  PersonID            `json:"proposed_by"`
	CreatedAt   int64               `json:"created_at"`
	Nonce       string              `json:"nonce"` // 128 random bits, hexadecimal: two proposals never hash alike
}

// ManifestComponent is one image of a release before signing.
type ManifestComponent struct {
	Name            ComponentName `json:"name"`
	Format          string        `json:"format"` // mcuboot, raw
	SecurityCounter uint64        `json:"security_counter"`
	InputDigest     Digest        `json:"input_digest"`
	InputSize       int64         `json:"input_size"`
	Key             KeyName       `json:"key"` // the image signing key to be used
	// Vendor binds images of formats with UUIDs (MCUboot, SUIT) to a vendor, a
	// DNS name or UUID, and with it to the hardware; empty: not bound.
	Vendor string `json:"vendor,omitempty"`
	// Layout holds the options of the component's format, see
	// image.SignOptions. It is approved with everything else here.
	Layout json.RawMessage `json:"layout,omitempty"`
}

// Publication is a signed release: the manifest's digest and what the signer
// made of its inputs.
type Publication struct {
	Type        string        `json:"type"` // TypePublication
	Release     ReleaseID     `json:"release"`
	Product     ProductID     `json:"product"`
	Version     string        `json:"version"`
	Manifest    Digest        `json:"manifest"`
	Images      []SignedImage `json:"images"`             // in install order
	Statement   Digest        `json:"statement,omitzero"` // of the release statement's envelope
	PublishedAt int64         `json:"published_at"`
}

// SignedImage is one signed, verified image of a published release.
type SignedImage struct {
	Component       ComponentName `json:"component"`
	Format          string        `json:"format"`
	Version         string        `json:"version"`
	SecurityCounter uint64        `json:"security_counter"`
	Digest          Digest        `json:"digest"` // of the bytes a device downloads
	Size            int64         `json:"size"`
	Envelope        Digest        `json:"envelope,omitzero"` // of the detached signature, if the format has one
	KeyID           string        `json:"key_id"`            // SHA-256 of the SubjectPublicKeyInfo, hexadecimal
}

// FailureAction is what a failed gate does.
type FailureAction string

// Failure actions.
const (
	FailurePause    FailureAction = "pause"
	FailureRollBack FailureAction = "roll_back"
)

// Plan is the exact terms of a campaign.
type Plan struct {
	Type        string      `json:"type"` // TypePlan
	Campaign    CampaignID  `json:"campaign"`
	Name        string      `json:"name"`
	Product     ProductID   `json:"product"`
	Release     ReleaseID   `json:"release"`
	Publication Digest      `json:"publication"`
	Cohort      string      `json:"cohort"` // CEL over the device; "true" is every device of the product
	Policy      Digest      `json:"policy,omitzero"`
	Stages      []StagePlan `json:"stages"`

	Attempts         int           `json:"attempts"`                  // authorizations per device, at least 1
	BackoffSeconds   int64         `json:"backoff_seconds"`           // before the second attempt; doubles each time
	AuthorizationTTL int64         `json:"authorization_ttl_seconds"` // life of one authorization
	MaxConcurrent    int           `json:"max_concurrent,omitempty"`  // open authorizations in the campaign; 0: no limit
	RatePerMinute    int           `json:"rate_per_minute,omitempty"` // new authorizations; 0: no limit
	Window           *Window       `json:"window,omitempty"`          // when devices may be authorized; nil: always
	OnFailure        FailureAction `json:"on_failure"`
	QuarantineFailed bool          `json:"quarantine_failed,omitempty"` // quarantine devices that fail or reject
	Mandatory        bool          `json:"mandatory,omitempty"`         // device preference is not honoured
	Remediation      bool          `json:"remediation,omitempty"`       // quarantined devices may receive it
	Rollback         *RollbackTo   `json:"rollback,omitempty"`          // where a rollback leads; nil: the device's own other slot only
	Quorum           int           `json:"quorum"`                      // distinct approvers needed to start, at least 1
	NotBefore        int64         `json:"not_before,omitempty"`        // scheduled start
	NotAfter         int64         `json:"not_after,omitempty"`         // no authorization after it
	ProposedBy       PersonID      `json:"proposed_by"`
	CreatedAt        int64         `json:"created_at"`
	Nonce            string        `json:"nonce"`
}

// RollbackTo names the published release that a rollback takes devices to.
type RollbackTo struct {
	Release     ReleaseID `json:"release"`
	Publication Digest    `json:"publication"`
}

// StagePlan is the size and the gate of one stage. Exactly one of Count and
// Percent is set.
type StagePlan struct {
	Name    string `json:"name"`
	Count   int    `json:"count,omitempty"`   // devices in this stage
	Percent int    `json:"percent,omitempty"` // 1 to 100: cumulative share of the cohort reached when this stage is full
	Cohort  string `json:"cohort,omitempty"`  // narrows the plan's cohort for this stage

	MinConfirmed      int     `json:"min_confirmed,omitempty"`       // to pass; 0: every device of the stage
	MaxFailures       *int    `json:"max_failures,omitempty"`        // the gate trips above it; nil: no count limit
	MaxFailurePercent float64 `json:"max_failure_percent,omitempty"` // the gate trips when the rate is above it with confidence; 0: no rate limit
	Alpha             float64 `json:"alpha,omitempty"`               // chance of a false trip; 0 means 0.05
	SoakSeconds       int64   `json:"soak_seconds,omitempty"`        // wait after the minimum is met
	NeedsApproval     bool    `json:"needs_approval,omitempty"`      // approval by quorum before the stage opens
}

// Window is a daily span in UTC in which devices may be authorized. A span
// whose end is before its start passes midnight.
type Window struct {
	StartMinute int   `json:"start_minute"`       // of the day, 0 to 1439
	EndMinute   int   `json:"end_minute"`         // exclusive, 0 to 1440
	Weekdays    []int `json:"weekdays,omitempty"` // 0 is Sunday; empty: every day
}
