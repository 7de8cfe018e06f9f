// Package apitypes is the JSON of writ's REST API v1, shared by the server and
// the typed client. Names are those of the glossary; times are Unix seconds;
// byte slices are base64; digests are "sha256:" and 64 hexadecimal digits.
package apitypes

import (
	"encoding/json"

	"github.com/writ-project/writ/internal/fw"
)

// Status is what the server says of itself.
type Status struct {
	Version string                 `json:"version"`
	Log     string                 `json:"log"`     // origin
	LogKey  string                 `json:"log_key"` // signed-note verifier key
	Records int64                  `json:"records"`
	Devices map[fw.DeviceState]int `json:"devices"`

	Database      string `json:"database"` // sqlite, postgres
	StartedAt     int64  `json:"started_at"`
	UptimeSeconds int64  `json:"uptime_seconds"`
}

// Identity is who a token belongs to.
type Identity struct {
	Person fw.PersonID `json:"person"`
	Token  string      `json:"token"`
	Roles  []fw.Role   `json:"roles"`
}

// Person is an operator.
type Person struct {
	ID        fw.PersonID `json:"id"`
	Name      string      `json:"name"`
	CreatedAt int64       `json:"created_at,omitempty"`
	Disabled  bool        `json:"disabled,omitempty"`
}

// NewToken asks for an access token.
type NewToken struct {
	Person     fw.PersonID `json:"person"`
	Name       string      `json:"name"`
	Roles      []fw.Role   `json:"roles"`
	TTLSeconds int64       `json:"ttl_seconds"`
}

// Token is an access token. Secret is set once, when it is made.
type Token struct {
	ID        string      `json:"id"`
	Person    fw.PersonID `json:"person"`
	Name      string      `json:"name"`
	Roles     []fw.Role   `json:"roles"`
	CreatedAt int64       `json:"created_at"`
	ExpiresAt int64       `json:"expires_at"`
	RevokedAt int64       `json:"revoked_at,omitempty"`
	Secret    string      `json:"secret,omitempty"`
}

// Approver is a person on the roster and their SSH keys, authorized_keys
// lines.
type Approver struct {
	Person fw.PersonID `json:"person"`
	Keys   []string    `json:"keys"`
}

// NewApprover adds a key to the roster.
type NewApprover struct {
	Person fw.PersonID `json:"person"`
	Key    string      `json:"key"`
}

// Roster is the signed list of approvers.
type Roster struct {
	Version   int64      `json:"version"`
	Digest    fw.Digest  `json:"digest"`
	Approvers []Approver `json:"approvers"`
	Envelope  []byte     `json:"envelope"`
}

// NewKey asks for a signing key.
type NewKey struct {
	Name      fw.KeyName `json:"name"`
	Purpose   fw.Purpose `json:"purpose"`
	Algorithm string     `json:"algorithm,omitempty"` // empty: the purpose's default
}

// KeyChain gives a signing key its certificates.
type KeyChain struct {
	Certificates string `json:"certificates"` // PEM, the key's own first
}

// Key is a signing key's public side.
type Key struct {
	Name      fw.KeyName `json:"name"`
	Purpose   fw.Purpose `json:"purpose"`
	Algorithm string     `json:"algorithm"`
	KeyID     string     `json:"key_id"`
	Public    string     `json:"public"` // SubjectPublicKeyInfo, PEM
	State     string     `json:"state"`
	CreatedAt int64      `json:"created_at"`
}

// Product is what is sold.
type Product struct {
	ID             fw.ProductID    `json:"id"`
	Name           string          `json:"name"`
	Hardware       []fw.HardwareID `json:"hardware"`
	ImageKey       fw.KeyName      `json:"image_key"`
	Quorum         int             `json:"quorum"`
	RetentionYears int             `json:"retention_years,omitempty"`
	SupportUntil   int64           `json:"support_until,omitempty"`
	Provenance     *ProvenanceRule `json:"provenance,omitempty"` // absent: no build provenance is demanded
	CreatedAt      int64           `json:"created_at,omitempty"`
}

// ProvenanceRule is the build provenance that a product demands.
type ProvenanceRule struct {
	Builder string   `json:"builder"` // the builder's id
	Source  string   `json:"source"`  // URI of the source, without revision
	Keys    []string `json:"keys"`    // SubjectPublicKeyInfo, PEM: one of them signed it
}

// NewDevice is one line of a serial list.
type NewDevice struct {
	ID         fw.DeviceID       `json:"id"`
	Hardware   fw.HardwareID     `json:"hardware"`
	Attributes map[string]string `json:"attributes,omitempty"`
}

// Registration asks for devices to be registered, at most 1000.
type Registration struct {
	Product fw.ProductID `json:"product"`
	Devices []NewDevice  `json:"devices"`
}

// Registered is what became of one line.
type Registered struct {
	ID      fw.DeviceID `json:"id"`
	Outcome string      `json:"outcome"` // registered, exists, conflict, blocked, invalid
	Detail  string      `json:"detail,omitempty"`
}

// Component is what runs in one updatable part of a device.
type Component struct {
	Name            fw.ComponentName `json:"name"`
	Version         string           `json:"version"`
	Digest          fw.Digest        `json:"digest,omitzero"`
	SecurityCounter uint64           `json:"security_counter,omitempty"`
	Assurance       fw.Assurance     `json:"assurance,omitempty"`
}

// Certificate is one credential of a device.
type Certificate struct {
	Serial    string       `json:"serial"`
	State     fw.CertState `json:"state"`
	Status    string       `json:"status"` // what the clock says: valid, renewal_due, expired, not_yet_valid
	NotBefore int64        `json:"not_before"`
	NotAfter  int64        `json:"not_after"`
}

// Device is one unit.
type Device struct {
	ID           fw.DeviceID       `json:"id"`
	Product      fw.ProductID      `json:"product"`
	Hardware     fw.HardwareID     `json:"hardware"`
	State        fw.DeviceState    `json:"state"`
	StateReason  string            `json:"state_reason,omitempty"`
	StateAt      int64             `json:"state_at"`
	Attributes   map[string]string `json:"attributes,omitempty"`
	Components   []Component       `json:"components,omitempty"`
	OptedOut     bool              `json:"opted_out,omitempty"`
	LastSeen     int64             `json:"last_seen,omitempty"`
	Certificates []Certificate     `json:"certificates,omitempty"`
	Updates      []Update          `json:"updates,omitempty"`
}

// EnrolmentToken is a one-time right to enrol. The secret is shown once.
type EnrolmentToken struct {
	Device    fw.DeviceID `json:"device"`
	Secret    string      `json:"secret"`
	ExpiresAt int64       `json:"expires_at"`
}

// TokenRequest asks for an enrolment token. Reopen is for a device that has
// enrolled before.
type TokenRequest struct {
	TTLSeconds int64 `json:"ttl_seconds"`
	Reopen     bool  `json:"reopen,omitempty"`
}

// Move asks for a lifecycle move.
type Move struct {
	To     fw.DeviceState `json:"to"`
	Reason string         `json:"reason"`
}

// ReleaseRequest asks for a device to leave quarantine.
type ReleaseRequest struct {
	Reason   string `json:"reason"`
	Evidence string `json:"evidence,omitempty"` // what shows that the device is good
}

// Document is exact bytes to be read and signed.
type Document struct {
	Document []byte    `json:"document"`
	Digest   fw.Digest `json:"digest"`
}

// Record is one evidence record.
type Record struct {
	Index      int64           `json:"index"`
	Type       string          `json:"type"`
	MS         int64           `json:"ms"` // Unix milliseconds
	Actor      string          `json:"actor"`
	Summary    string          `json:"summary,omitempty"` // for people; Data is what counts
	Commitment string          `json:"commitment"`
	Data       json.RawMessage `json:"data,omitempty"` // absent when erased
	Receipt    []byte          `json:"receipt,omitempty"`
}

// NewUpload announces a file.
type NewUpload struct {
	Digest fw.Digest `json:"digest"`
	Size   int64     `json:"size"`
}

// Upload is a file on its way.
type Upload struct {
	ID     string    `json:"id"`
	Digest fw.Digest `json:"digest"`
	Size   int64     `json:"size"`
	Offset int64     `json:"offset"`
	Done   bool      `json:"done"`
}

// Uploaded is a finished upload and what the image says of itself.
type Uploaded struct {
	Digest fw.Digest       `json:"digest"`
	Size   int64           `json:"size"`
	Image  json.RawMessage `json:"image,omitempty"`
	Unfit  string          `json:"unfit,omitempty"` // why it cannot be an image as it is
}

// DraftComponent is one image of a draft.
type DraftComponent struct {
	Name            fw.ComponentName `json:"name"`
	Format          string           `json:"format,omitempty"`
	Input           fw.Digest        `json:"input"`
	SecurityCounter uint64           `json:"security_counter"`
	Vendor          string           `json:"vendor,omitempty"` // DNS name or UUID, for formats with UUIDs
	Layout          json.RawMessage  `json:"layout,omitempty"` // options of the format: see docs/formats
}

// Draft is what is proposed as a release.
type Draft struct {
	Product     fw.ProductID     `json:"product"`
	Version     string           `json:"version"`
	Type        fw.ReleaseType   `json:"release_type"`
	MixedReason string           `json:"mixed_reason,omitempty"`
	Hardware    []fw.HardwareID  `json:"hardware,omitempty"`
	FromVersion string           `json:"from_version,omitempty"`
	Components  []DraftComponent `json:"components"`
	SBOM        fw.Digest        `json:"sbom,omitzero"`
	Provenance  fw.Digest        `json:"provenance,omitzero"`
	Notes       string           `json:"notes,omitempty"`
	Advisory    string           `json:"advisory,omitempty"`
}

// Release is a version of a product's firmware.
type Release struct {
	ID              fw.ReleaseID    `json:"id"`
	Product         fw.ProductID    `json:"product"`
	Version         string          `json:"version"`
	Type            fw.ReleaseType  `json:"release_type"`
	State           fw.ReleaseState `json:"state"`
	Proposer        fw.PersonID     `json:"proposer"`
	Manifest        json.RawMessage `json:"manifest"`
	Publication     json.RawMessage `json:"publication,omitempty"`
	WithdrawnReason string          `json:"withdrawn_reason,omitempty"`
	CreatedAt       int64           `json:"created_at"`
	PublishedAt     int64           `json:"published_at,omitempty"`
}

// Reason carries the operator's words.
type Reason struct {
	Reason string `json:"reason"`
}

// Policy is a versioned set of conditions.
type Policy struct {
	Digest    fw.Digest       `json:"digest"`
	Name      string          `json:"name"`
	Document  json.RawMessage `json:"document,omitempty"`
	CreatedAt int64           `json:"created_at,omitempty"`
}

// Stage is one stage of a campaign as it stands.
type Stage struct {
	Name       string        `json:"name"`
	State      fw.StageState `json:"state"`
	Limit      int           `json:"limit"`
	Members    int           `json:"members"`
	Open       int           `json:"open"`
	Confirmed  int           `json:"confirmed"`
	Failed     int           `json:"failed"`
	Rejected   int           `json:"rejected"`
	RolledBack int           `json:"rolled_back"`
	Failures   int           `json:"failures"`
}

// Campaign is a release offered to a cohort in stages.
type Campaign struct {
	ID         fw.CampaignID    `json:"id"`
	Name       string           `json:"name"`
	Product    fw.ProductID     `json:"product"`
	Release    fw.ReleaseID     `json:"release"`
	State      fw.CampaignState `json:"state"`
	Stage      int              `json:"stage"`
	Stages     []Stage          `json:"stages"`
	CohortSize int              `json:"cohort_size"`
	Proposer   fw.PersonID      `json:"proposer"`
	Plan       json.RawMessage  `json:"plan"`
	PlanDigest fw.Digest        `json:"plan_digest"`
	CreatedAt  int64            `json:"created_at"`
	StartedAt  int64            `json:"started_at,omitempty"`
}

// AbortMode says what becomes of devices that were updated.
type AbortMode string

// Abort modes.
const (
	AbortKeep   AbortMode = "keep"
	AbortRevert AbortMode = "revert"
)

// Operation is an operator's word to a running campaign.
type Operation struct {
	Mode AbortMode `json:"mode,omitempty"` // abort only
	Note string    `json:"note,omitempty"`
}

// Update is one device in one campaign.
type Update struct {
	ID            fw.UpdateID        `json:"id"`
	Campaign      fw.CampaignID      `json:"campaign"`
	Device        fw.DeviceID        `json:"device"`
	State         fw.UpdateState     `json:"state"`
	Stage         int                `json:"stage"`
	Attempts      int                `json:"attempts"`
	Failures      int                `json:"failures,omitempty"`
	Reason        fw.Reason          `json:"reason,omitempty"`
	Authorization fw.AuthorizationID `json:"authorization,omitempty"`
	UpdatedAt     int64              `json:"updated_at"`
}

// SubjectType is what an approval is of.
type SubjectType string

// Subject types.
const (
	SubjectRelease   SubjectType = "release"
	SubjectCampaign  SubjectType = "campaign"
	SubjectStage     SubjectType = "stage"
	SubjectLifecycle SubjectType = "lifecycle" // of a device, out of quarantine
)

// NewApproval submits the caller's signature.
type NewApproval struct {
	SubjectType SubjectType `json:"subject_type"`
	ID          string      `json:"id"`              // release, campaign or device
	Stage       int         `json:"stage,omitempty"` // of a campaign
	Digest      fw.Digest   `json:"digest,omitzero"` // of the bytes that were signed, for a better answer when they are outdated
	Signature   string      `json:"signature"`       // armored SSHSIG, namespace writ-approval
}

// Approvals is where an approval stands, with the bytes it is of.
type Approvals struct {
	SubjectType SubjectType `json:"subject_type"`
	ID          string      `json:"id"`
	Document    []byte      `json:"document"`
	Digest      fw.Digest   `json:"digest"`
	Proposer    fw.PersonID `json:"proposer"`
	Need        int         `json:"need"`
	Met         bool        `json:"met"`
	Counted     []Counted   `json:"counted,omitempty"`
	Rejected    []Uncounted `json:"rejected,omitempty"`
}

// Counted is an approval that counts.
type Counted struct {
	Person      fw.PersonID `json:"person"`
	Fingerprint string      `json:"fingerprint"`
}

// Uncounted is an approval on file that does not count, and why.
type Uncounted struct {
	Person fw.PersonID `json:"person"`
	Reason string      `json:"reason"`
}

// BundleQuery says what evidence to export: one of the two.
type BundleQuery struct {
	Campaign fw.CampaignID `json:"campaign,omitempty"`
	Device   fw.DeviceID   `json:"device,omitempty"`
	// Since is the size of a checkpoint that the auditor has from before: the
	// bundle then proves that the log is a continuation of it. 0: none.
	Since int64 `json:"since,omitempty"`
}

// Problem is an error (RFC 9457).
type Problem struct {
	Type      string  `json:"type,omitempty"`
	Title     string  `json:"title"`
	Status    int     `json:"status"`
	Detail    string  `json:"detail"`
	Kind      fw.Kind `json:"kind"`
	RequestID string  `json:"request_id,omitempty"`
}
