package evidence

import (
	"encoding/json"

	"github.com/writ-project/writ/internal/fw"
)

// The payloads whose form no other package owns. Byte slices are base64 in
// JSON. Documents are the exact bytes that were hashed and signed.

// Started is the payload of server_started.
type Started struct {
	Version  string `json:"version"`
	Database string `json:"database"` // sqlite, postgres
	LogKey   string `json:"log_key"`  // signed-note verifier key
}

// Key is the payload of key_created.
type Key struct {
	Name      fw.KeyName `json:"name"`
	Purpose   fw.Purpose `json:"purpose"`
	Algorithm string     `json:"algorithm"`
	KeyID     string     `json:"key_id"` // SHA-256 of the SubjectPublicKeyInfo, hexadecimal
	Public    []byte     `json:"public"` // SubjectPublicKeyInfo DER
	Custody   string     `json:"custody"`
}

// KeyCertified is the payload of key_certified.
type KeyCertified struct {
	Name         fw.KeyName `json:"name"`
	KeyID        string     `json:"key_id"`
	Certificates [][]byte   `json:"certificates"` // DER, the key's own first
}

// Operator is the payload of person_added, person_disabled, token_created and
// token_revoked.
type Operator struct {
	Person    fw.PersonID `json:"person"`
	Token     string      `json:"token,omitempty"` // the token's id, never its secret
	Roles     []fw.Role   `json:"roles,omitempty"`
	ExpiresAt int64       `json:"expires_at,omitempty"`
}

// Proposed is the payload of every record that puts a document on file:
// release_proposed, campaign_proposed, policy_created, lifecycle_requested,
// roster and trust_bundle (whose documents are their signed envelopes).
type Proposed struct {
	Document []byte `json:"document"`
}

// Product is the payload of product_created.
type Product struct {
	Product        fw.ProductID    `json:"product"`
	Name           string          `json:"name"`
	Hardware       []fw.HardwareID `json:"hardware"`
	ImageKey       fw.KeyName      `json:"image_key"`
	Quorum         int             `json:"quorum"`
	RetentionYears int             `json:"retention_years"`
	SupportUntil   int64           `json:"support_until,omitempty"`
	Provenance     json.RawMessage `json:"provenance,omitempty"` // statement.Rule; absent: none is demanded
}

// Registered is the payload of device_registered.
type Registered struct {
	Device     fw.DeviceID       `json:"device"`
	Product    fw.ProductID      `json:"product"`
	Hardware   fw.HardwareID     `json:"hardware"`
	State      fw.DeviceState    `json:"state"`
	Attributes map[string]string `json:"attributes,omitempty"`
}

// Attributes is the payload of device_attributes.
type Attributes struct {
	Device     fw.DeviceID       `json:"device"`
	Attributes map[string]string `json:"attributes"`
}

// EnrolmentToken is the payload of enrolment_token.
type EnrolmentToken struct {
	Device    fw.DeviceID `json:"device"`
	TokenHash fw.Digest   `json:"token_hash"`
	ExpiresAt int64       `json:"expires_at"`
	Reopened  bool        `json:"reopened,omitempty"` // for a device that had enrolled before
}

// DeviceState is the payload of device_state. A move that raises trust embeds
// what was approved and by whom.
type DeviceState struct {
	Device      fw.DeviceID    `json:"device"`
	From        fw.DeviceState `json:"from"`
	To          fw.DeviceState `json:"to"`
	Reason      string         `json:"reason"`
	Automatic   bool           `json:"automatic,omitempty"`
	RequestedBy fw.PersonID    `json:"requested_by,omitempty"`
	Document    []byte         `json:"document,omitempty"`
	Approvals   any            `json:"approvals,omitempty"` // approval.Result
}

// Certificate is the payload of certificate_issued and certificate_state.
type Certificate struct {
	Device     fw.DeviceID  `json:"device"`
	Serial     string       `json:"serial"` // hexadecimal
	From       fw.CertState `json:"from,omitempty"`
	To         fw.CertState `json:"to"`
	Reason     string       `json:"reason,omitempty"`
	Thumbprint []byte       `json:"thumbprint,omitempty"` // RFC 9679 of the key
	NotBefore  int64        `json:"not_before,omitempty"`
	NotAfter   int64        `json:"not_after,omitempty"`
	DER        []byte       `json:"der,omitempty"`
	Permit     fw.PermitID  `json:"permit,omitempty"`
}

// KeyUse is the payload of key_use: the allowing decision that a permit for
// images, certificates and rosters is minted from.
type KeyUse struct {
	Purpose fw.Purpose `json:"purpose"`
	Key     fw.KeyName `json:"key"`
	Subject fw.Digest  `json:"subject"` // SHA-256 of what may be signed
	Reason  string     `json:"reason"`
	// Document and Approvals are what an image signature stands on.
	Document  []byte `json:"document,omitempty"`
	Approvals any    `json:"approvals,omitempty"` // approval.Result
}

// Approval is the payload of approval. The signature is the approver's own,
// over exactly Document.
type Approval struct {
	SubjectType string      `json:"subject_type"` // release, campaign, stage, lifecycle
	Subject     fw.Digest   `json:"subject"`      // SHA-256 of Document
	Person      fw.PersonID `json:"person"`
	Fingerprint string      `json:"fingerprint"` // of the SSH key
	Roster      fw.Digest   `json:"roster"`      // the roster that lists the key
	Document    []byte      `json:"document"`
	Signature   string      `json:"signature"` // armored SSHSIG
}

// Signed is the payload of release_signed: one image.
type Signed struct {
	Release   fw.ReleaseID     `json:"release"`
	Component fw.ComponentName `json:"component"`
	Format    string           `json:"format"`
	Input     fw.Digest        `json:"input"`
	Output    fw.Digest        `json:"output"`
	Size      int64            `json:"size"`
	Envelope  fw.Digest        `json:"envelope,omitzero"`
	Key       fw.KeyName       `json:"key"`
	KeyID     string           `json:"key_id"`
	Algorithm string           `json:"algorithm"`
	Custody   string           `json:"custody"`
	Permit    fw.PermitID      `json:"permit"`
	Decision  int64            `json:"decision"` // index of the key_use record

	// What the custodian of the key had seen, by its own clock.
	Approvals   any         `json:"approvals,omitempty"`    // []approval.Counted
	Provenance  fw.Digest   `json:"provenance,omitzero"`    // of the build provenance in the manifest
	RequestedBy fw.PersonID `json:"requested_by,omitempty"` // as the server told it
	SignedAt    int64       `json:"signed_at,omitempty"`    // Unix seconds
}

// SigningRefused is the payload of signing_refused: the custodian of a key
// would not sign.
type SigningRefused struct {
	Release   fw.ReleaseID     `json:"release"`
	Component fw.ComponentName `json:"component,omitempty"` // of an image
	Purpose   fw.Purpose       `json:"purpose"`             // image, statement
	Key       fw.KeyName       `json:"key"`
	Decision  int64            `json:"decision"` // index of the key_use record that did not convince
	Kind      string           `json:"kind"`     // fw.Kind
	Reason    string           `json:"reason"`   // for people
}

// Stated is the payload of release_stated.
type Stated struct {
	Release  fw.ReleaseID `json:"release"`
	Envelope []byte       `json:"envelope"` // exact bytes of the release statement's DSSE envelope
	Custody  string       `json:"custody"`
	Uses     []StatedUse  `json:"uses"` // one for each signature, in order

	RequestedBy fw.PersonID `json:"requested_by,omitempty"`
}

// StatedUse is one key's part in a release statement.
type StatedUse struct {
	Key       fw.KeyName  `json:"key"`
	KeyID     string      `json:"key_id"`
	Algorithm string      `json:"algorithm"`
	Permit    fw.PermitID `json:"permit"`
	Decision  int64       `json:"decision"`            // index of the key_use record
	SignedAt  int64       `json:"signed_at,omitempty"` // Unix seconds, the custodian's clock
}

// Published is the payload of release_published.
type Published struct {
	Document []byte `json:"document"` // exact bytes of fw.Publication
}

// Withdrawn is the payload of release_withdrawn.
type Withdrawn struct {
	Release fw.ReleaseID `json:"release"`
	Reason  string       `json:"reason"`
}

// Integrity is the payload of integrity.
type Integrity struct {
	Device fw.DeviceID `json:"device"`
	Kind   string      `json:"kind"` // rejected, digest_mismatch
	Reason fw.Reason   `json:"reason"`
	Detail string      `json:"detail,omitempty"`
	Report int64       `json:"report"` // index of the report record
}

// AccessDenied is the payload of access_denied.
type AccessDenied struct {
	Device fw.DeviceID `json:"device"`
	Serial string      `json:"serial,omitempty"`
	Reason fw.Reason   `json:"reason"`
	What   string      `json:"what"` // check_in, report, artifact, renew
}

// RefusalSummary is the payload of refusal_summary: refusals of strangers,
// counted per reason, because each one singly could fill the log.
type RefusalSummary struct {
	From   int64          `json:"from"` // Unix seconds
	To     int64          `json:"to"`
	Counts map[string]int `json:"counts"`
}

// Erased is the payload of erased.
type Erased struct {
	Index      int64       `json:"index"`
	Commitment Commitment  `json:"commitment"`
	LegalBasis string      `json:"legal_basis"`
	ApprovedBy fw.PersonID `json:"approved_by"`
}
