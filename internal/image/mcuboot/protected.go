package mcuboot

import (
	"crypto"
	"fmt"

	"github.com/writ-project/writ/internal/image"
)

// entry is one TLV as Sign reads and writes it.
type entry struct {
	typ  uint16
	data []byte
}

// protected returns what the settings put into the protected area, in imgtool's
// order. The boot record is apart from the rest because it names the signer.
func (s *settings) protected(record []byte) ([]entry, error) {
	var out []entry
	if c := s.counter; c != nil {
		if *c > 0xffffffff {
			return nil, fmt.Errorf("checking security counter: %d does not fit 32 bits: %w", *c, image.ErrBadOptions)
		}
		out = append(out, entry{tlvSecCnt, le.AppendUint32(nil, uint32(*c))})
	}
	if record != nil {
		out = append(out, entry{tlvBootRec, record})
	}
	out = append(out, s.deps...)
	if s.Vendor != "" {
		vid, err := vendorUUID(s.Vendor)
		if err != nil {
			return nil, err
		}
		cid, err := nameUUID(vid, s.Class)
		if err != nil {
			return nil, err
		}
		out = append(out, entry{tlvUUIDVid, vid[:]}, entry{tlvUUIDCid, cid[:]})
	}
	return append(out, s.tlvs...), nil
}

// bootRecord encodes the CBOR map of the measured-boot record: software type,
// version, hash of the signer's key, name of the hash, and zeros where the
// bootloader will put the image digest. It finds that place by counting from
// the end, so that the digest must come last, which is not the order of
// deterministic CBOR (RFC 8949, section 4.2.1).
func bootRecord(swType string, v Version, h crypto.Hash, signer []byte) []byte {
	const count = 5
	b := []byte{cborMap | count}
	b = appendCBOR(append(b, recordType), cborText, []byte(swType))
	b = appendCBOR(append(b, recordVersion), cborText, fmt.Appendf(nil, "%d.%d.%d", v.Major, v.Minor, v.Revision))
	b = appendCBOR(append(b, recordSigner), cborBytes, signer)
	b = appendCBOR(append(b, recordHash), cborText, fmt.Appendf(nil, "SHA%d", h.Size()*8))
	return appendCBOR(append(b, recordDigest), cborBytes, make([]byte, h.Size()))
}

// recordPrefix is how a boot record of this software type starts.
func recordPrefix(swType string) []byte {
	return appendCBOR([]byte{cborMap | 5, recordType}, cborText, []byte(swType))
}

// Major types of CBOR (RFC 8949, section 3.1), shifted into place.
const (
	cborBytes = 2 << 5
	cborText  = 3 << 5
	cborMap   = 5 << 5
)

// appendCBOR appends a string of at most 255 bytes.
func appendCBOR(b []byte, major byte, data []byte) []byte {
	if len(data) < 24 {
		b = append(b, major|byte(len(data))) //nolint:gosec // G115: less than 24
	} else {
		b = append(b, major|24, byte(len(data))) //nolint:gosec // G115: digests and short names
	}
	return append(b, data...)
}

// encodeArea returns a whole TLV area, or nothing when it has no entries.
func encodeArea(magic uint16, entries []entry) ([]byte, error) {
	if len(entries) == 0 {
		return nil, nil
	}
	size := tlvInfoSize
	for _, e := range entries {
		size += tlvHeadSize + len(e.data)
	}
	if size > 0xffff {
		return nil, fmt.Errorf("checking TLVs: an area of %d bytes is over the limit of 65535: %w", size, image.ErrBadOptions)
	}
	b := le.AppendUint16(make([]byte, 0, size), magic)
	b = le.AppendUint16(b, uint16(size)) // checked above
	for _, e := range entries {
		b = le.AppendUint16(b, e.typ)
		b = le.AppendUint16(b, uint16(len(e.data))) //nolint:gosec // G115: less than size
		b = append(b, e.data...)
	}
	return b, nil
}
