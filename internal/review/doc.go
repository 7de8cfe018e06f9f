// Package review keeps who may approve and what they approved. It is the shell
// around the pure rules of internal/approval, shared by every kind of thing
// that needs approval: releases, campaigns, stages, lifecycle changes.
//
// # Approvers
//
// [Approvers] keeps the roster. Each change makes the next version, which the
// signer signs with the roster root key under a permit minted from a key_use
// record, and which is put on file as a roster record. Versions are never
// changed or removed. Nobody adds a key for themselves (invariant I5), except
// for the first approver of a new server, whom nobody could add otherwise.
//
// The signer checks approvals against a roster of its own that moves only
// from one version to the next. It learns of a new version after the version
// is committed; [Approvers.SyncSigner] makes up for a crash in between.
//
// # Approvals
//
// [Approvals] takes SSH signatures over the exact bytes of a document, checks
// them with [approval.Quorum] under the newest roster, and stores each with an
// approval record that embeds the document and the signature, so that the
// record proves itself. An approval belongs to the digest of its document: an
// edit of the subject makes other bytes, for which nobody has approved.
//
// Stored approvals are counted from their signatures each time, under the
// roster of that moment: an approver who was removed no longer counts.
//
// # Example
//
//	approvers := review.NewApprovers(review.Options{DB: db, Ledger: l, Signer: s, Keystore: ks})
//	approvals := review.NewApprovals(l, approvers)
//	err := db.Tx(ctx, func(tx *store.Tx) error {
//		_, err := approvals.Submit(tx, review.Subject{
//			Kind: review.KindRelease, Document: row.Manifest, Proposer: row.Proposer,
//			Streams: []evidence.StreamID{evidence.ReleaseStream(row.ID)},
//		}, person, armored)
//		return err
//	})
//	res, roster, err := approvals.Count(db.Snapshot(ctx), row.Manifest, quorum, row.Proposer)
package review
