// Package swu reads, builds, signs and verifies SWUpdate's .swu images.
//
// The specification is SWUpdate's doc/source/sw-description.rst and
// signed_images.rst; the archive is cpio's newc format, described in cpio(5).
// docs/formats/swu.md has it byte by byte.
//
// # Layout
//
//	sw-description        what to install where, in libconfig or JSON
//	sw-description.sig    the signature over the bytes of sw-description
//	…                     the files that it names, in any order
//	TRAILER!!!            then zeros to a multiple of 512 bytes
//
// Each file follows a header of 110 bytes, a magic (070701, or 070702 with
// checksums) and 13 numbers of 8 hexadecimal digits, and its name with a zero.
// Name and content are padded with zeros to multiples of 4 bytes.
//
// # What is signed
//
// The description, and through the sha256 in each of its entries every file. The
// signature is CMS, detached, or, for devices built that way, a bare RSA
// signature over the SHA-256 of the description. The device's configuration
// says which; the image does not.
//
// # What Verify demands
//
// SWUpdate skips files that no entry for the device at hand names, so an archive
// could carry anything. Which entries apply depends on the board, the operator's
// selection and on links, none of which is known here. So all of it must be right:
//
//   - every file in the archive is named by the description, and every file that
//     it names is there; each is there once, as a plain file under a plain name;
//   - every entry with a file name has a sha256, and it is right;
//   - the version is the same wherever one is given, and the same goes for the
//     sha256 of a file that several entries name;
//   - padding is zeros, and nothing follows it.
//
// The header fields for owner, time, mode and device are not signed. SWUpdate
// does not look at them, and neither do we; Sign writes fixed values.
//
// # What it does not say
//
// There is no security counter: devices compare versions (swupdate -N), and
// the release statement and the authorization carry the counter. Files may be
// encrypted; their digests are of what is stored, so they verify without the
// key, and [image.Info.Encrypted] stays false.
//
// # Sign
//
// Sign builds an image with a [Layout], or signs an existing one, signed or not,
// whose description stays as it is to the byte and must agree with the release.
// It has its own readers for both cpio and descriptions (encode.go, scan.go),
// and Inspect and Verify have theirs (archive.go, libconfig.go, json.go).
package swu
