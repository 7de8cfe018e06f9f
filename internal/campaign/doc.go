// Package campaign is the shell around the pure rules of internal/rollout: it
// keeps campaigns in the database, feeds events to the rules, and records
// every event with the transitions it caused.
//
// # What it promises
//
//   - A plan is stored as the exact bytes that were proposed. Approvals are
//     signatures over those bytes. An edit makes new bytes, returns the
//     campaign to draft and so voids them.
//   - Starting needs the plan's quorum of approvers who are distinct and not
//     the proposer, counted again from their signatures at the moment of the
//     start and at every decision after it. Pausing needs one person.
//   - Every event of a campaign, in the order in which it happened, is a
//     record in the campaign's stream together with the transitions that
//     [rollout.Apply] made of it, so that a verifier can replay all of them.
//   - A plan is refused when it is proposed if no device of its cohort that has
//     checked in has every component of its release: a device takes all images
//     of a release or none.
//   - State, counters and evidence change in one transaction. Writers are
//     serial, so a stage limit that is read and then granted under is exact
//     (invariant I7).
package campaign
