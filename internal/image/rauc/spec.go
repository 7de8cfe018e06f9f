package rauc

import "github.com/writ-project/writ/internal/image/cms"

// Numbers of the container (RAUC reference manual, "Bundle Formats") and of
// what it is made of. Sign and Verify share these and nothing that computes.
const (
	blockSize   = 4096 // bytes; unit of padding, of dm-verity data and of its tree
	trailerSize = 8    // bytes of the CMS length at the very end, big-endian
)

// Limits. A file that breaks one is refused, whatever else it says.
const (
	// MaxSize is the largest bundle accepted, in bytes.
	MaxSize = 64 << 30
	// MaxCMS is the largest signature accepted, in bytes. It holds the
	// manifest in the verity format.
	MaxCMS = cms.MaxSize
	// MaxManifest is the largest manifest accepted, in bytes.
	MaxManifest = 64 << 10

	maxText   = 256  // bytes in compatible, version and names
	maxImages = 64   // [image.*] groups
	maxLine   = 4096 // bytes in one line of a manifest
)

// Bundle formats, as the manifest names them.
const (
	formatPlain  = "plain"
	formatVerity = "verity"
	formatCrypt  = "crypt"
)

// dm-verity as RAUC sets it up: format version 1, SHA-256, 4096-byte blocks, no
// superblock (Linux Documentation/admin-guide/device-mapper/verity.rst).
const (
	veritySum  = 32                    // bytes in a digest and in the salt
	verityFan  = blockSize / veritySum // digests in one block of the tree
	minPayload = 2 * blockSize         // RAUC refuses a smaller verity payload
)

// squashfs 4.0 (Linux fs/squashfs/squashfs_fs.h describes the same layout).
// Everything is little-endian.
const (
	squashMagic  = "hsqs"
	squashHeader = 96   // bytes of the superblock
	metaSize     = 8192 // bytes in a metadata block, uncompressed, at most
	manifestName = "manifest.raucm"
)
