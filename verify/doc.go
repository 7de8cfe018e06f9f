// Package verify checks an exported bundle of evidence: that its bytes are
// those of the log, that nothing was left out, that every signature in it is
// good, and that every decision in it was right. It has no network and no
// database. Its memory does not grow with the number of records, only with that
// of devices, campaigns and streams, about 2 KiB for a device, and is bounded:
// see [Options.MaxMemory].
//
// # What it promises
//
// A bundle is verified only if all of the following hold; otherwise the report
// says for which record they do not.
//
//   - Bytes: each record hashes to its commitment, each commitment is in the
//     tree of the checkpoint, the checkpoint is signed by the log key, and every
//     earlier checkpoint, the auditor's own among them, is a prefix of it.
//   - Order: the records of each exported stream are there from number 1 to the
//     number that the bundle's last epoch proves to be the end, each naming the
//     commitment of the one before.
//   - Signatures: approvers' over exactly the document they approved, under the
//     roster of that moment; the roster root's over each roster; the device CA's
//     over each certificate; each device's over its reports.
//   - Quorums: approvals are counted again for each release, start, stage and
//     release from quarantine, and must give the recorded result.
//   - Releases: what was published is what was signed under a decision about
//     exactly the approved manifest.
//   - Decisions: each is made again by [policy.Evaluate] from the recorded facts
//     and the documents they name by digest, and must come out the same in every
//     check. The facts about campaign, stage, update, device state and
//     certificate must be those that the records before it add up to, and the
//     authorizations of the last minute are counted again.
//   - Authorizations: behind each decision that allows stands the authorization
//     that was signed on it. It must be signed by an authorization key of the
//     log that devices are told of, have the claims of which the decision has
//     the digest, and say what the decision and the plan say: device, its key,
//     update, times, images. Each device's sequence numbers only grow.
//   - Moves: the events of a campaign are replayed through [rollout.Apply] and
//     must give the recorded transitions; each event must be the one that the
//     update's state and the device's signed words call for.
//
// A record that cannot be judged (made by another version of the rules, or
// resting on an erased record or one outside the bundle) makes the bundle
// incomplete, not failed.
//
// # What it does not promise
//
// Nobody outside the operator's control has witnessed the log, so nothing here
// is proof against the operator. A device's statement is the device's. Each
// report lists what it does not prove in [Report.NotProven].
//
// # How it works
//
// Workers decode records and check what each one says by itself. One goroutine
// goes through them in order of index, follows the streams, keeps the state of
// campaigns, updates and certificates, and hands what needs a signature check
// or the rules back to workers. A record is held in memory only between those.
//
// # Example
//
//	f, err := os.Open("campaign.writ-bundle")
//	...
//	report, err := verify.Verify(ctx, f, verify.Options{TrustedLogKey: vkey})
//	if err == nil && report.Verdict == verify.Verified { ... }
package verify
