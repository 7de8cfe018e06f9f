// Package suit signs and verifies SUIT envelopes: firmware described by a
// manifest that a device executes (draft-ietf-suit-manifest-37).
//
// SUIT was still an Internet-Draft when this was written. [Draft] is in what
// Inspect returns, so that a record made today says by which text it was read.
//
// An envelope is CBOR (RFC 8949), here in diagnostic notation:
//
//	107({
//	  2: << [ << [-16, manifest digest] >>,                 / authentication /
//	          << 18([<< {1: -9, 4: kid} >>, {}, null, signature]) >> ] >>,
//	  3: << {1: 1, 2: 7,                     / manifest: version, sequence number /
//	         3: << {2: [[h'00']],            / components /
//	                4: << [20, {1: vendor id, 2: class id, 3: << [-16, digest] >>, 14: 4099},
//	                       1, 15, 2, 15] >>} >>,       / for this vendor and class only /
//	         7: << [3, 15] >>,                         / validate: the digest fits /
//	         20: << [20, {21: "#image"}, 21, 2, 3, 15] >>,   / install: fetch, and the digest fits /
//	         23: [-16, digest of the text]} >>,
//	  23: << {"en": {[h'00']: {6: "1.2.3"}}} >>,       / severable text /
//	  "#image": h'...'})                               / integrated payload, if any /
//
// The COSE_Sign1 (RFC 9052) signs the digest of the manifest, the manifest names
// the digests of the image and of what can be severed from it.
// docs/formats/suit.md has every number and the traps.
//
// # Where the image is
//
// By default the envelope is detached: Sign writes the image unchanged and
// returns the envelope in [image.SignResult.Envelope], and Verify wants both.
// With "integrated" in the [Layout] the file is the envelope with the image in
// it. Verify also takes an envelope alone that names images elsewhere: what it
// vouches for then is the manifest. [Details] says which images that is.
//
// # Claims
//
// The security counter is the manifest's sequence number. Hardware are the class
// ids (UUIDs) that the manifest checks, Vendor the vendor id; see [ClassID].
// Version and product are the component version and model name of the text, and
// missing where the text is.
//
// # Example
//
//	opt := image.SignOptions{Version: "1.2.3", SecurityCounter: &counter, Vendor: "example.com", Hardware: []string{"board-a"}}
//	res, err := suit.Format{}.Sign(ctx, w, r, size, key, opt)
//	v, err := suit.Format{}.Verify(ctx, r, size, res.Envelope, []crypto.PublicKey{key.Public()})
package suit

import (
	"bytes"

	"github.com/writ-project/writ/internal/image"
)

// Draft is the text that this package implements.
const Draft = "draft-ietf-suit-manifest-37"

// Limits.
const (
	// MaxSize is the largest image or envelope accepted, in bytes.
	MaxSize = 16 << 30
	// MaxEnvelope is the largest envelope without its payloads, in bytes. So
	// much of an envelope is held in memory.
	MaxEnvelope = 64 << 10

	maxMembers    = 23   // of the envelope: what its first byte can say
	maxComponents = 16   // of a manifest
	maxCommands   = 1024 // read in all sequences together, branches as often as they are tried
	maxWorlds     = 64   // ways through a manifest; see world
	maxDepth      = 8    // of nested sequences, and of CBOR that is skipped
	maxSignatures = 8
	maxText       = 1024 // bytes in one text or URI
)

// Format implements [image.Format] for SUIT envelopes.
type Format struct{}

var _ image.Format = Format{}

// Name returns "suit".
func (Format) Name() string { return "suit" }

// Detect reports whether prefix begins an envelope: tag 107, a map of definite
// length, and the authentication wrapper first.
func (Format) Detect(prefix []byte) bool {
	return len(prefix) >= 4 && bytes.HasPrefix(prefix, []byte{0xd8, tagEnvelope}) &&
		prefix[2]>>5 == majorMap && prefix[2]&0x1f < 24 && prefix[3] == keyAuthentication
}
