// Package rollout turns a plan, what happened and the time into the moves of a
// campaign and its stages. It is the specification of those moves.
//
// [Apply] is a function: a status, an event and the time of it give the next
// status and the transitions, in order. The server stores all of them; the
// offline verifier replays the events of a campaign's stream with their
// recorded times and must reach the same statuses and transitions. Nothing
// here reads a clock or does I/O.
//
// # Stages
//
// Stages run one after the other: waiting, running, soaking, passed or failed.
// A stage opens when the one before it has passed, and, if the plan says so,
// when it was approved. Its limit is fixed when it opens ([StageLimit]) and
// only grows, when the cohort is counted again and has grown. While running it
// takes new devices up to its limit; from then on only its members may try
// again. A device keeps its place whatever becomes of it, so the limit bounds
// the devices that ever got the release, not those that have it now.
//
// A running stage passes when enough of its devices are confirmed, no failure
// gate trips, and it has soaked for as long as the plan says. Enough is
//
//   - min_confirmed, but no more than the stage has places;
//   - if that is 0, every device of the stage that has not left the campaign;
//     where the plan has a failure gate, except those lost to failure with no
//     attempt left, of which the gate says how many are too many;
//   - never less than one, unless the stage is empty.
//
// If a confirmed device falls back while the stage soaks and too few remain,
// the stage runs again and the soak starts over. A stage for which no device
// is left (a small share of a small cohort) passes at once.
//
// # Failure gates
//
// max_failures trips when more attempts failed than it says (failed, rejected
// by the device, or fallen back); a retry does not undo one, nor does a device
// that finishes after its attempt was given up. A stage also fails when too
// few devices are left that could still confirm. A failed gate fails the
// current stage and pauses the campaign or rolls it back, as the plan says.
// The failure gates of passed stages stay on guard: late failures there are
// news about the same release and fail the stage that is current then.
//
// max_failure_percent trips when the failure rate is above it with confidence.
// A plain percentage would stop on noise: with a limit of 5 percent, one
// failure among the first ten devices says almost nothing. The gate is a
// sequential test instead: [EValue] is evidence against "each device fails
// with a chance of at most the limit", and the gate trips when it reaches
// 1/alpha. The chance that it ever does so in this stage although the limit is
// kept is at most alpha, however often one looks (Ville's inequality). Alpha
// is per stage.
//
// What it looks at are devices, not attempts: members of the stage, and those
// among them that ever failed. A member whose end is not known counts as not
// failed. That is deliberate. Failures are often reported sooner than
// successes, which wait for a restart and a health check; a test over finished
// devices would see ten failures of ten while ninety devices are still
// rebooting, and would stop a release that keeps its limit. Members are
// counted in the order of their authorization, which knows nothing of the
// outcome, and the e-value only grows as outcomes turn out to be failures, so
// it never exceeds that of the test that knew all outcomes at once, and the
// promise holds whatever the order of reports. The price is that a bad release
// is noticed later when very many devices are in flight: max_failures and
// max_concurrent bound that.
//
// # Pausing, resuming, ending
//
// While paused nothing is authorized, reports still count, and gates can
// still trip. What was authorized and is not delivered becomes paused when its
// device is next heard of, and cancelled once the campaign has ended. A paused
// device is not open, so that max_concurrent has room for another, but keeps
// its place in the stage: it may hold the authorization and install all the
// same, and then two devices would be in one place. Resuming over a tripped gate acknowledges the failures so far:
// they are recorded as forgiven and the gates start again from there. A resume
// with no gate tripped forgives nothing. A stage none of whose devices can
// confirm any more cannot be resumed.
//
// A campaign is completed when its last stage passes. It is aborted by an
// operator, or once not_after is over and the current stage can no longer pass
// without a new authorization. It rolls back because a gate or an operator says
// so, and is rolled back when no device is left that runs the release or may
// be about to (none open, none confirmed), or when an operator closes it. In
// these three states nothing moves any more; reports are still counted.
//
// # Worked example
//
// Two stages, canary (count 2, max_failures 0, soak 600 s) and rest (100
// percent), on_failure pause, for a cohort of 5:
//
//	at    event                              transitions
//	1000  started, cohort 5                  campaign approved -> running, stage 0 waiting -> running (limit 2)
//	1010  a, b -> authorized, new members
//	1020  c -> authorized, new member        error Conflict: the stage is full
//	1100  a -> confirmed
//	1110  b -> failed                        stage 0 running -> failed (max_failures), campaign running -> paused
//	2000  resume                             campaign paused -> running, stage 0 failed -> running; 1 failure forgiven
//	2010  b -> authorized
//	2100  b -> confirmed                     stage 0 running -> soaking (minimum_confirmed); NextTimer 2700
//	2700  tick                               stage 0 soaking -> passed (soaked), stage 1 waiting -> running (limit 3)
//	2710  c, d, e -> authorized
//	2900  c, d, e -> confirmed               stage 1 running -> passed, campaign running -> completed
//
// More examples are in testdata, in a form that is also the test.
package rollout
