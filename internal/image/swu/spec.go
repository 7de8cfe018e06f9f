package swu

import "github.com/writ-project/writ/internal/image"

// Format is SWUpdate's .swu.
type Format struct{}

var _ image.Format = Format{}

// Name returns "swu".
func (Format) Name() string { return "swu" }

// Detect recognises cpio archives, in the two forms that SWUpdate reads, whose
// first file is a description.
func (Format) Detect(prefix []byte) bool {
	const name = nameDescription + "\x00"
	if len(prefix) < headerSize+len(name) || string(prefix[headerSize:headerSize+len(name)]) != name {
		return false
	}
	magic := string(prefix[:len(magicNew)])
	return magic == magicNew || magic == magicCRC
}

// Numbers and names of the formats: cpio(5), and SWUpdate's
// doc/source/sw-description.rst and signed_images.rst.
const (
	magicNew   = "070701" // newc
	magicCRC   = "070702" // newc with checksums
	headerSize = 110      // bytes: the magic and 13 fields of 8 hexadecimal digits

	nameDescription = "sw-description"
	nameSignature   = "sw-description.sig"
	nameTrailer     = "TRAILER!!!"

	blockSize = 512 // bytes, to which cpio pads the archive

	// MaxFile is the largest file in an archive, in bytes: its size has 32 bits.
	MaxFile = 1<<32 - 1
	// MaxFiles is how many files an archive may have, those of the description
	// and its signature among them.
	MaxFiles = 256
	// MaxDescription is the largest sw-description, in bytes.
	MaxDescription = 256 << 10

	minRSABits   = 2048
	maxSignature = 64 << 10
	maxName      = 255      // bytes; SWUpdate's buffers hold 256
	maxPadding   = 64 << 10 // zero bytes after the trailer
)

// Signatures, as Layout and Details name them.
const (
	signCMS    = "cms"     // CMS; RSA signs with PKCS #1 v1.5
	signCMSPSS = "cms-pss" // CMS; RSA signs with PSS
	signRSA    = "rsa"     // RSA PKCS #1 v1.5 over the SHA-256, nothing around it
	signRSAPSS = "rsa-pss" // RSA PSS likewise
)
