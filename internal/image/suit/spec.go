package suit

// Numbers of draft-ietf-suit-manifest-37, section 11 and the CDDL in appendix
// A, and of COSE (RFC 9052 and 9053, RFC 9864 for -9 and -19, RFC 9054 for
// hashes). Sign and Verify share these and nothing else.

const (
	tagEnvelope = 107
	tagSign1    = 18
)

// Major types of CBOR (RFC 8949, section 3.1).
const (
	majorUint = iota
	majorNint
	majorBytes
	majorText
	majorArray
	majorMap
	majorTag
	majorSimple
)

// Members of the envelope and of the manifest. The severable ones are the same
// in both.
const (
	keyAuthentication = 2
	keyManifest       = 3

	keyVersion   = 1
	keySequence  = 2
	keyCommon    = 3
	keyReference = 4
	keyValidate  = 7
	keyLoad      = 8
	keyInvoke    = 9

	keyPayloadFetch = 16
	keyInstall      = 20
	keyText         = 23

	manifestVersion = 1
)

// Members of common.
const (
	keyComponents = 2
	keyShared     = 4
)

// Commands.
const (
	condVendor       = 1
	condClass        = 2
	condImageMatch   = 3
	condSlot         = 5
	condCheckContent = 6
	condAbort        = 14
	condDevice       = 24

	dirSetIndex = 12
	dirTryEach  = 15
	dirWrite    = 18
	dirOverride = 20
	dirFetch    = 21
	dirCopy     = 22
	dirInvoke   = 23
	dirSwap     = 31
	dirRun      = 32
)

// Parameters.
const (
	paramVendor      = 1
	paramClass       = 2
	paramDigest      = 3
	paramSlot        = 5
	paramStrictOrder = 12
	paramSoftFailure = 13
	paramSize        = 14
	paramContent     = 18
	paramURI         = 21
	paramSource      = 22
	paramInvokeArgs  = 23
	paramDevice      = 24
)

// Reporting policies, as the examples of the draft use them: all of it for
// conditions, only failures for directives.
const (
	reportAll      = 15
	reportFailure  = 2
	maxReportFlags = 15
)

// Text of the manifest and of a component.
const (
	textDescription = 1
	textUpdate      = 2
	textJSON        = 3
	textYAML        = 4

	textVendorName     = 1
	textModelName      = 2
	textVendorDomain   = 3
	textModelInfo      = 4
	textComponent      = 5
	textVersion        = 6
	textPrivateHighest = -257
)

// COSE header labels and algorithms.
const (
	headerAlg  = 1
	headerCrit = 2
	headerKid  = 4

	algES256   = -7
	algEdDSA   = -8
	algESP256  = -9
	algEd25519 = -19
	algSHA256  = -16
	algSHA384  = -43
	algSHA512  = -44
)

// algorithmNames are the names of COSE for what this package signs with.
var algorithmNames = map[int64]string{algES256: "ES256", algEdDSA: "EdDSA", algESP256: "ESP256", algEd25519: "Ed25519"}
