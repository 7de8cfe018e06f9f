// Package release turns uploaded images into signed, published releases, and
// keeps the products they belong to.
//
// # A release
//
// A release is proposed as a [Draft]. What is approved of it is a manifest
// (fw.Manifest): JSON bytes made once, stored, and never encoded again. From
// then on
//
//	in_review ──quorum──▶ approved ──Publish──▶ published
//	     ▲───────edit────────┘                      │
//	     └── any of these ──Withdraw──▶ withdrawn ◀─┘
//
// # What it promises
//
//   - A proposal is checked before anyone is asked to approve it: every field,
//     that the images and the SBOM are here with the announced digests, that
//     each image is well formed and not encrypted, and that it can be signed
//     with the version, counter and hardware of the manifest. The last is
//     tried with a key that is thrown away.
//   - An edit makes new bytes, so every approval of the old ones is void, and
//     whoever edits is the proposer from then on.
//   - A version of a product is in use once, until its release is withdrawn.
//   - Nothing is signed without a quorum that is counted from the approvers'
//     signatures at that moment, by this package when it writes the key_use
//     record, by the signer for itself, and once more when the release is
//     published.
//   - Every signed image is read back from the disk and verified by the
//     format's Verify, which shares no code with its Sign, against the public
//     key on file. Version, security counter, product and hardware must be
//     those of the manifest.
//   - Images are signed outside any database transaction. Publishing is one
//     transaction at the end: the artifacts, the release_signed records, the
//     publication and the release_published record appear together. After a
//     crash before it, [Service.Publish] is run again; permits that were
//     spent stay spent and new key_use records are made. What the crash left
//     behind is not reachable by any device.
//   - A withdrawn release is never offered again.
//
// What it does not promise: that an image is what its source code says. The
// approvers vouch for the bytes.
//
// # Example
//
//	uploads := releases.Uploads()
//	up, err := uploads.Start(ctx, "rita", digest, size)
//	n, err := uploads.Write(ctx, "rita", up.ID, up.Offset, body)
//	got, err := uploads.Finish(ctx, "rita", up.ID)
//	row, err := releases.Propose(ctx, release.Draft{
//		Product: "thermostat", Version: "1.2.0", Type: fw.ReleaseFunctional,
//		Components: []release.DraftComponent{{Name: fw.MainComponent, Format: "mcuboot", Input: digest, SecurityCounter: 3}},
//	}, "rita")
//	row, err = releases.ApproveRelease(ctx, row.ID, release.Signature{Person: "ann", Armored: armored})
//	row, err = releases.Publish(ctx, row.ID, "rita")
package release
