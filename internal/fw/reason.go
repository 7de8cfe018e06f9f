package fw

// Reason is a machine-readable code for why something was denied or
// rejected. Codes are part of the wire formats and never change meaning.
type Reason string

// Reasons a decision gives, in the order of its checks.
const (
	ReasonIdentityUnknown     Reason = "identity_unknown"
	ReasonCertificateExpired  Reason = "certificate_expired"
	ReasonCertificateRevoked  Reason = "certificate_revoked"
	ReasonCertificateHeld     Reason = "certificate_held"
	ReasonCertificateUnknown  Reason = "certificate_unknown"
	ReasonCertificateNotYet   Reason = "certificate_not_yet_valid"
	ReasonLifecycle           Reason = "lifecycle_state"
	ReasonQuarantined         Reason = "quarantined"
	ReasonProductMismatch     Reason = "product_mismatch"
	ReasonHardwareMismatch    Reason = "hardware_mismatch"
	ReasonComponentUnknown    Reason = "component_unknown"
	ReasonFromVersion         Reason = "from_version"
	ReasonVersionUnreadable   Reason = "version_unreadable"
	ReasonAlreadyInstalled    Reason = "already_installed"
	ReasonDowngrade           Reason = "downgrade"
	ReasonSecurityCounter     Reason = "security_counter"
	ReasonIntegrity           Reason = "integrity"
	ReasonReleaseNotPublished Reason = "release_not_published"
	ReasonReleaseWithdrawn    Reason = "release_withdrawn"
	ReasonCampaignNotRunning  Reason = "campaign_not_running"
	ReasonNotInCohort         Reason = "not_in_cohort"
	ReasonStageNotOpen        Reason = "stage_not_open"
	ReasonStageFull           Reason = "stage_full"
	ReasonApprovalsMissing    Reason = "approvals_missing"
	ReasonConcurrency         Reason = "concurrency_limit"
	ReasonRate                Reason = "rate_limit"
	ReasonWindow              Reason = "outside_window"
	ReasonAttemptsExhausted   Reason = "attempts_exhausted"
	ReasonBackoff             Reason = "back_off"
	ReasonOptedOut            Reason = "opted_out"
	ReasonPostponed           Reason = "postponed"
	ReasonPolicy              Reason = "policy_condition"
	ReasonPolicyAbsent        Reason = "policy_attribute_absent"
	ReasonUpdateState         Reason = "update_state"
)

// Reasons a device gives when it rejects an authorization or an image.
const (
	RejectMalformed       Reason = "malformed"
	RejectSignature       Reason = "authorization_signature"
	RejectUnknownKey      Reason = "authorization_key_unknown"
	RejectSubject         Reason = "not_my_device_id"
	RejectKeyBinding      Reason = "not_my_key"
	RejectNonce           Reason = "nonce"
	RejectSequence        Reason = "replayed_sequence"
	RejectExpired         Reason = "expired"
	RejectNotYetValid     Reason = "not_yet_valid"
	RejectReceipt         Reason = "receipt"
	RejectNoAuthorization Reason = "no_authorization"
	RejectImageDigest     Reason = "image_digest"
	RejectImageSize       Reason = "image_size"
	RejectImageSignature  Reason = "image_signature"
	RejectImageFormat     Reason = "image_format"
	RejectImageVersion    Reason = "image_version"
	RejectHardware        Reason = "image_hardware"
	RejectSecurityCounter Reason = "image_security_counter"
	RejectFromDigest      Reason = "from_digest"
	RejectDowngrade       Reason = "image_downgrade"
	RejectTrustBundle     Reason = "trust_bundle"
	RejectStatement       Reason = "release_statement" // missing, not signed as required, or about something else
)

// Reasons why the server took an authorization back.
const (
	WithdrawPaused Reason = "campaign_paused"
	WithdrawEnded  Reason = "campaign_ended" // aborted, or over in another way
)

// Reasons a device gives when an update failed.
const (
	FailDownload  Reason = "download"
	FailInstall   Reason = "install_hook"
	FailHealth    Reason = "health_check"
	FailActivate  Reason = "activate_hook"
	FailBootLoop  Reason = "boot"
	FailNoSpace   Reason = "no_space"
	FailCancelled Reason = "cancelled"
	FailExpired   Reason = "authorization_expired" // no report before the authorization ran out
)
