package evidence

// Type says what a record claims. The list is closed; a type never changes
// meaning.
type Type string

// Record types, with the streams each belongs to.
//
//nolint:gosec // names of types, not credentials
const (
	TypeServerStarted      Type = "server_started"      // log
	TypeKeyCreated         Type = "key_created"         // key
	TypeKeyCertified       Type = "key_certified"       // key: it was given certificates
	TypePersonAdded        Type = "person_added"        // operator
	TypePersonDisabled     Type = "person_disabled"     // operator
	TypeTokenCreated       Type = "token_created"       // operator
	TypeTokenRevoked       Type = "token_revoked"       // operator
	TypeRoster             Type = "roster"              // log: a new roster of approvers
	TypeTrustBundle        Type = "trust_bundle"        // log: a new device trust bundle
	TypeProductCreated     Type = "product_created"     // product
	TypePolicyCreated      Type = "policy_created"      // policy
	TypeDeviceRegistered   Type = "device_registered"   // device
	TypeDeviceAttributes   Type = "device_attributes"   // device
	TypeEnrolmentToken     Type = "enrolment_token"     // device: a one-time token was made
	TypeLifecycleRequested Type = "lifecycle_requested" // device: somebody asks for more trust
	TypeDeviceState        Type = "device_state"        // device
	TypeCertificateIssued  Type = "certificate_issued"  // device
	TypeCertificateState   Type = "certificate_state"   // device
	TypeKeyUse             Type = "key_use"             // key, and the subject's: the allowing decision behind a permit
	TypeReleaseProposed    Type = "release_proposed"    // release
	TypeApproval           Type = "approval"            // the subject's
	TypeReleaseSigned      Type = "release_signed"      // release, key: one image
	TypeSigningRefused     Type = "signing_refused"     // release, key: the custodian of the key would not sign
	TypeReleaseStated      Type = "release_stated"      // release, keys: the release statement was signed
	TypeReleasePublished   Type = "release_published"   // release
	TypeReleaseWithdrawn   Type = "release_withdrawn"   // release
	TypeCampaignProposed   Type = "campaign_proposed"   // campaign, release
	TypeCampaignEvent      Type = "campaign_event"      // campaign, release: an event no device caused
	TypeDecision           Type = "decision"            // device, campaign: allow or deny, re-executable
	TypeReport             Type = "report"              // device, campaign: what a device says happened
	TypeUpdateMoved        Type = "update_moved"        // device, campaign: the server moved an update itself
	TypeIntegrity          Type = "integrity"           // device: something tried to be what it is not
	TypeAccessDenied       Type = "access_denied"       // device: a known device was turned away
	TypeRefusalSummary     Type = "refusal_summary"     // log: unauthenticated refusals, counted
	TypeEpoch              Type = "epoch"               // log
	TypeErased             Type = "erased"              // log, and the erased record's
)

// Types lists every record type in the order above.
var Types = []Type{
	TypeServerStarted,
	TypeKeyCreated,
	TypeKeyCertified,
	TypePersonAdded,
	TypePersonDisabled,
	TypeTokenCreated,
	TypeTokenRevoked,
	TypeRoster,
	TypeTrustBundle,
	TypeProductCreated,
	TypePolicyCreated,
	TypeDeviceRegistered,
	TypeDeviceAttributes,
	TypeEnrolmentToken,
	TypeLifecycleRequested,
	TypeDeviceState,
	TypeCertificateIssued,
	TypeCertificateState,
	TypeKeyUse,
	TypeReleaseProposed,
	TypeApproval,
	TypeReleaseSigned,
	TypeSigningRefused,
	TypeReleaseStated,
	TypeReleasePublished,
	TypeReleaseWithdrawn,
	TypeCampaignProposed,
	TypeCampaignEvent,
	TypeDecision,
	TypeReport,
	TypeUpdateMoved,
	TypeIntegrity,
	TypeAccessDenied,
	TypeRefusalSummary,
	TypeEpoch,
	TypeErased,
}

// known has every type under its own name, so that a decoded record shares the
// constant's memory.
var known = func() map[string]Type {
	m := make(map[string]Type, len(Types))
	for _, t := range Types {
		m[string(t)] = t
	}
	return m
}()

// Known reports whether t is in the list. A verifier that meets another one is
// older than the record and must say that it cannot judge it.
func (t Type) Known() bool { return known[string(t)] == t && t != "" }

// maxType bounds the name of a type, in bytes.
const maxType = 40

// wellFormed reports whether s could be the name of a type, of this version or
// a later one.
func wellFormed(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= maxType
}
