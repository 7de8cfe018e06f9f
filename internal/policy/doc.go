// Package policy decides whether one device may install one release now, and
// says why not. It is the specification of that decision.
//
// [Evaluate] is a function of recorded facts ([Facts], a snapshot) and of
// documents the facts name by digest ([Terms]). It reads no clock and does no
// I/O, so the offline verifier runs the same code on the recorded inputs years
// later and must get the same [Decision]. Denial is a value with reasons,
// never an error, and the zero Decision denies.
//
// # The checks
//
// All are made and listed in this order; a decision allows only if every one
// holds. Those marked R are not asked of a rollback authorization
// (UpdateFacts.Rollback), which exists to take devices off a bad release.
//
//	terms                 plan, manifest, publication and cohort are there (listed only when it fails, and then alone)
//	identity              the device has an id
//	certificate           the certificate presented is on file for it
//	certificate_state     issued or active; not held, superseded or revoked
//	certificate_validity  not_before <= now <= not_after
//	lifecycle             active; quarantined only if the plan is a remediation; nothing else
//	product, hardware     the device's product is the plan's and the release's; its hardware is listed
//	component             the device has every component the release installs
//	version            R  the versions to compare can be read ("cannot tell" denies; never 0.0.0)
//	from_version       R  the manifest's constraint, if it has one
//	not_installed         some component runs another digest than the release's
//	downgrade             no version goes down; in a rollback: the plan names where to
//	security_counter      no counter goes down; there is no exception
//	integrity             never assessed, or ok
//	release               published, not withdrawn
//	release_of_plan       the publication is the one the plan names, or in a rollback its rollback release
//	campaign              running; in a rollback: rolling_back
//	approvals             at least the plan's quorum
//	cohort, stage_cohort R both expressions are true; false and cannot tell deny
//	stage                 running, or soaking or passed for a member of it; in a rollback: a member
//	stage_room         R  members < limit, or a member already
//	update_state          the update may become authorized; in a rollback: it may have left its release on the device
//	concurrency           open authorizations < max_concurrent
//	rate               R  authorizations in the last minute < rate_per_minute
//	schedule           R  not_before <= now <= not_after of the plan
//	window                the daily window in UTC
//	attempts              fewer than the plan's; in a rollback fewer than twice the plan's
//	back_off           R  backoff_seconds after the first attempt, doubled after each further one
//	opt_out, postponed R  the device's own preference, unless the plan is mandatory
//	policy, policy:NAME   every part of every condition of the policy
//
// If only the device's own preference fails, Decision.Deferred is set: nobody
// is at fault and the device is asked again.
//
// # Conditions
//
// Cohorts and policies are written in CEL. Names are flat and typed
// (device.version, device.cert.not_after, device.attributes["region"]); a
// name that does not exist or a wrong type is refused when the text is
// uploaded. There are no macros but has(), so no loops, and the cost of an
// expression is bounded by its text and checked at upload.
//
// An expression has three answers: true, false, and cannot tell because
// something it asks about is absent. && and || treat cannot tell as SQL treats
// NULL: false && absent is false, true || absent is true. So a cohort
// translated to SQL selects the same devices. A decision denies on cannot
// tell, and says which name was absent.
//
// A policy can only narrow: its conditions are further checks, and no check
// of Go code depends on them. Adding a condition never turns a denial into
// permission. The operands of a top-level && are separate checks, so that a
// refusal names the one that failed.
//
// # Example
//
// A policy document:
//
//	{"type": "writ-policy/v1", "name": "gateways", "conditions": [
//	  {"name": "region", "expr": "device.attributes.region in ['eu', 'uk']"},
//	  {"name": "power", "expr": "device.attributes.power == 'mains' && device.cert.not_after - now > 86400",
//	   "message": "Plug the device in first."}]}
//
// For a device in the EU that never said how it is powered, the last checks of
// the decision are
//
//	policy:region   ok
//	policy:power#1  policy_attribute_absent  device.attributes["power"] is absent
//	policy:power#2  ok
//
// and the decision denies with reason policy_attribute_absent.
package policy
