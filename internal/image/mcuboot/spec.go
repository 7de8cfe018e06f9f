package mcuboot

import "github.com/writ-project/writ/internal/image"

// Numbers of the specification: boot/bootutil/include/bootutil/image.h.
const (
	imageMagic   = 0x96f3b83d
	tlvInfoMagic = 0x6907
	tlvProtMagic = 0x6908

	headerSize  = 32
	tlvInfoSize = 4
	tlvHeadSize = 4

	flagEncryptedAES128 = 0x04
	flagEncryptedAES256 = 0x08
	flagsEncrypted      = flagEncryptedAES128 | flagEncryptedAES256
)

// TLV types.
const (
	tlvKeyHash   = 0x01
	tlvPubKey    = 0x02
	tlvSHA256    = 0x10
	tlvSHA384    = 0x11
	tlvSHA512    = 0x12
	tlvRSA2048   = 0x20
	tlvECDSA     = 0x22
	tlvRSA3072   = 0x23
	tlvEd25519   = 0x24
	tlvSigPure   = 0x25
	tlvEncFirst  = 0x30 // RSA-OAEP
	tlvEncLast   = 0x34 // ECIES-X25519 with HMAC-SHA-512
	tlvDepend    = 0x40
	tlvSecCnt    = 0x50
	tlvBootRec   = 0x60
	tlvUUIDVid   = 0x74
	tlvUUIDCid   = 0x75
	firstProtTLV = tlvDepend // types below never belong in the protected area
)

// Limits.
const (
	// MaxSize is the largest image file accepted, in bytes. Slots of
	// microcontrollers are far smaller; the limit bounds the time an upload
	// can take to check.
	MaxSize = 256 << 20

	// maxSignatures bounds the public-key operations one image can cause.
	maxSignatures = 8

	defaultHeaderSize = 0x200

	// trailerSize is the room the bootloader keeps at the end of a slot with a
	// write size of 8 and 128 sectors, imgtool's defaults: status area, four
	// flags (swap size, swap info, copy done, image ok) and the magic.
	trailerSize = 128*3*8 + 4*8 + 16
)

// Format implements [image.Format] for MCUboot images.
type Format struct{}

var _ image.Format = Format{}

// Name returns "mcuboot".
func (Format) Name() string { return "mcuboot" }

// Detect reports whether prefix starts with the MCUboot magic.
func (Format) Detect(prefix []byte) bool {
	return len(prefix) >= 4 && le.Uint32(prefix) == imageMagic
}
