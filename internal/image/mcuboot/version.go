package mcuboot

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/writ-project/writ/internal/image"
)

var le = binary.LittleEndian

// Version is the version in an MCUboot header.
type Version struct {
	Major, Minor uint8
	Revision     uint16
	Build        uint32
}

// ParseVersion reads "major.minor.revision" with an optional "+build". Numbers
// have no leading zeros and fit u8, u8, u16 and u32.
func ParseVersion(s string) (Version, error) {
	core, build, hasBuild := strings.Cut(s, "+")
	parts := strings.Split(core, ".")
	if len(parts) != 3 {
		return Version{}, fmt.Errorf("parsing version %q: want major.minor.revision+build: %w", s, image.ErrBadOptions)
	}
	if !hasBuild {
		build = "0"
	}
	var n [4]uint64
	for i, p := range append(parts, build) {
		bits := [4]int{8, 8, 16, 32}[i]
		v, err := strconv.ParseUint(p, 10, bits)
		if err != nil || strconv.FormatUint(v, 10) != p {
			name := [4]string{"major", "minor", "revision", "build"}[i]
			return Version{}, fmt.Errorf("parsing version %q: %s %q is not a decimal number of at most %d bits: %w",
				s, name, p, bits, image.ErrBadOptions)
		}
		n[i] = v
	}
	// ParseUint was told the width of each.
	return Version{Major: uint8(n[0]), Minor: uint8(n[1]), Revision: uint16(n[2]), Build: uint32(n[3])}, nil //nolint:gosec // G115: bounded by bits above
}

// String returns "1.2.3+4", without the build when it is 0. ParseVersion reads
// it back.
func (v Version) String() string {
	s := fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Revision)
	if v.Build != 0 {
		s += fmt.Sprintf("+%d", v.Build)
	}
	return s
}
