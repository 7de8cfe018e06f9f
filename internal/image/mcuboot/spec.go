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
	flagNonBootable     = 0x10
	flagRAMLoad         = 0x20
	flagROMFixed        = 0x100
	flagsCompressed     = 0x200 | 0x400 | 0x800 // LZMA1, LZMA2, ARM Thumb filter
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
	tlvEncRSA    = 0x30 // RSA-OAEP
	tlvEncKW     = 0x31 // AES key wrap
	tlvEncEC256  = 0x32 // ECIES on P-256
	tlvEncX25519 = 0x33 // ECIES on X25519
	// tlvEncX25519SHA512 is the same with HKDF and HMAC over SHA-512.
	tlvEncX25519SHA512 = 0x34
	tlvDepend          = 0x40
	tlvSecCnt          = 0x50
	tlvBootRec         = 0x60
	tlvUUIDVid         = 0x74
	tlvUUIDCid         = 0x75
	firstProtTLV       = tlvDepend // types below never belong in the protected area
)

// eciesInfo is the info of HKDF (RFC 5869) when the image key is encrypted.
const eciesInfo = "MCUBoot_ECIES_v1"

// Keys of the boot record, a CBOR map: the software component of Arm's PSA
// attestation token.
const (
	recordType    = 1
	recordDigest  = 2
	recordVersion = 4
	recordSigner  = 5
	recordHash    = 6
)

// Limits.
const (
	// MaxSize is the largest image file accepted, in bytes. Slots of
	// microcontrollers are far smaller; the limit bounds the time an upload
	// can take to check.
	MaxSize = 256 << 20

	// MaxPureSign is the largest signed region in bytes that Sign takes for a
	// pure Ed25519 signature. A [crypto.Signer] wants the whole message at once,
	// so it is held in memory. Verify streams and has no such limit.
	MaxPureSign = 16 << 20

	// maxSignatures bounds the public-key operations one image can cause.
	maxSignatures = 8

	// maxTLVs bounds how many entries an area can have.
	maxTLVs = 256

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
