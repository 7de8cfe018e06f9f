package esp

import (
	"encoding/binary"

	"github.com/writ-project/writ/internal/image"
)

var le = binary.LittleEndian

// Numbers of the specification: esp_app_format.h, esp_app_desc.h,
// esp_secure_boot.h.
const (
	imageMagic  = 0xe9
	headerSize  = 24
	segHeadSize = 8
	maxSegments = 16
	checksumIV  = 0xef
	digestSize  = 32

	descMagic = 0xabcd5432
	descSize  = 256

	sectorSize = 4096
	blockMagic = 0xe7
	blockSize  = 1216
	blockCRC   = 1196 // offset of the CRC, and how much it covers
	maxBlocks  = 3

	versionRSA   = 2
	versionECDSA = 3
	hashSHA256   = 0
	hashSHA384   = 1
	curveP192    = 1
	curveP256    = 2
	curveP384    = 3
	rsaBits      = 3072
	rsaBytes     = rsaBits / 8
)

// MaxSize is the largest image file accepted, in bytes: the largest flash that
// the chips address.
const MaxSize = 128 << 20

// Format implements [image.Format] for ESP-IDF application images.
type Format struct{}

var _ image.Format = Format{}

// Name returns "esp".
func (Format) Name() string { return "esp" }

// Detect reports whether prefix starts with an image header. The magic is one
// byte, so the fields with few values are looked at as well.
func (Format) Detect(prefix []byte) bool {
	return len(prefix) >= headerSize &&
		prefix[0] == imageMagic &&
		prefix[1] >= 1 && prefix[1] <= maxSegments &&
		le.Uint32(prefix[19:]) == 0 && // reserved
		prefix[23] <= 1
}
