// Package mender reads, signs and verifies Mender artifacts, version 3.
//
// The specification is mendersoftware/mender-artifact
// Documentation/artifact-format-v3.md; the reference tool is mender-artifact of
// Debian 12 (3.9).
//
// # Layout
//
// An artifact is a tar of regular files in this order:
//
//	version              {"format":"mender","version":3}
//	manifest             lines "<sha256 in hex>  <name>\n"
//	manifest.sig         absent from an unsigned artifact
//	header.tar[.gz|.zst] header-info, scripts/*, headers/NNNN/type-info, …/meta-data
//	data/0000.tar[…]     the files of the first payload
//	data/0001.tar[…]     and so on
//
// The manifest names version, the header as it is stored, and every payload file
// before compression as data/NNNN/<file>.
//
// # What is signed
//
// The signature is over the bytes of manifest, in base64 without line breaks:
// RSASSA-PKCS1-v1_5 with SHA-256, or ECDSA P-256 with SHA-256 as r and s in 32
// bytes each. It does not say whose it is, so [image.SignatureInfo] has no KeyID
// until Verify has found the key.
//
// The manifest covers content and names. Tar and compression headers (mode,
// owner and time of a payload file too) are not signed, in any Mender artifact:
// an update module must not act on them.
//
// # What Verify demands
//
//   - a signature by a given key, checked before anything that follows it is
//     interpreted or decompressed;
//   - every file in the manifest, and every file of the artifact in the manifest
//     and with the right digest, once;
//   - the order above; regular files only, in plain tar: no long names, links,
//     sparse files or global headers; names without a path in a payload;
//   - zeros only after the end of a tar, and nothing after that;
//   - JSON without a member that occurs twice, whatever the case of its letters;
//   - no more decompressed bytes than [expansion] allows.
//
// Augmented artifacts (manifest-augment) hold unsigned parts by design and are
// refused as unsupported. So is .xz, whose decoder needs more memory than a
// server should spend on one upload: write the artifact with gzip or none.
//
// # Version, security counter, hardware
//
// The hardware is the list of device types in artifact_depends. Mender has no
// version of its own, and no security counter:
//
//   - A name says a version when it ends in one, with a dot in it, at its start or
//     after one of "-_/: " and a v that is left out: "release-1.2.3", "v1.2.3". Names
//     are artifact_name and the provides of payloads that end in ".version".
//     Those of payloads are versions even without a dot, unless they repeat
//     artifact_name, which is what mender-artifact does on its own.
//   - The security counter is the provide "writ.security_counter" of a payload, in
//     decimal: mender-artifact write … --provides writ.security_counter:7
//
// Sign wants the options to agree with these where they are set: each version
// said, the counter (an artifact without one goes for zero), and exactly the
// device types.
//
// # Example
//
//	f := mender.Format{}
//	res, err := f.Sign(ctx, out, artifact, size, key, image.SignOptions{
//		Version: "1.2.3", Hardware: []string{"board-a"},
//	})
//	v, err := f.Verify(ctx, signed, res.Size, nil, []crypto.PublicKey{key.Public()})
package mender
