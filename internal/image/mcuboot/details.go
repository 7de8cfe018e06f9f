package mcuboot

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// Details is what [image.Info.Details] holds for MCUboot, as JSON.
type Details struct {
	Hash        string   `json:"hash"`           // of the image digest: sha256, sha384, sha512
	Pure        bool     `json:"pure,omitempty"` // the signatures are over the image, not its digest
	HeaderSize  int64    `json:"header_size"`    // bytes, with padding
	PayloadSize int64    `json:"payload_size"`   // bytes
	LoadAddress uint32   `json:"load_address,omitempty"`
	Flags       []string `json:"flags,omitempty"` // of the header

	Encryption   *Cipher      `json:"encryption,omitempty"`
	Dependencies []Dependency `json:"dependencies,omitempty"`
	BootRecord   *BootRecord  `json:"boot_record,omitempty"`
	// TLVs are the protected entries without a field of their own.
	TLVs []OtherTLV `json:"tlvs,omitempty"`
}

// Cipher says how an image is encrypted.
type Cipher struct {
	Cipher string `json:"cipher"` // aes-128-ctr, aes-256-ctr
	// KeyExchange is how the image key is encrypted: ecies-p256, ecies-x25519,
	// ecies-x25519-sha512, rsa-oaep, aes-kw; or none, when the payload is still
	// clear and awaits its last signature.
	KeyExchange string `json:"key_exchange"`
}

// BootRecord is the measured-boot record that the bootloader hands to the
// attestation service, with the image digest filled in.
type BootRecord struct {
	Type    string `json:"type,omitempty"` // of software
	Version string `json:"version,omitempty"`
	Signer  string `json:"signer_id,omitempty"` // hash of the signer's key, hexadecimal
	Hash    string `json:"hash,omitempty"`      // name of the digest's algorithm
	// Raw is a record that is not as above, in hexadecimal, cut off after
	// 64 bytes. Bootloaders pass it on as it is.
	Raw string `json:"raw,omitempty"`
}

// OtherTLV is a protected entry that writ gives no meaning to.
type OtherTLV struct {
	Type string `json:"type"` // 0x00a0
	Size int    `json:"size"` // bytes
	// Data is the first 64 bytes in hexadecimal.
	Data string `json:"data"`
}

// shown is how many bytes of unknown data Inspect shows.
const shown = 64

func preview(b []byte) string { return hex.EncodeToString(b[:min(len(b), shown)]) }

func (m *opened) details() (json.RawMessage, error) {
	d := Details{
		Hash: m.hashAlg, Pure: m.pure, HeaderSize: m.hdrSize, PayloadSize: m.imgSize,
		LoadAddress: le.Uint32(m.header[4:]), Dependencies: m.dependencies, BootRecord: m.bootRecord,
	}
	for _, f := range []struct {
		bits uint32
		name string
	}{
		{flagEncryptedAES128, "encrypted_aes128"},
		{flagEncryptedAES256, "encrypted_aes256"},
		{flagNonBootable, "non_bootable"},
		{flagRAMLoad, "ram_load"},
		{flagROMFixed, "rom_fixed"},
		{flagsCompressed, "compressed"},
	} {
		if m.layout.flags&f.bits != 0 {
			d.Flags = append(d.Flags, f.name)
		}
	}
	if m.encrypted() {
		d.Encryption = &Cipher{Cipher: fmt.Sprintf("aes-%d-ctr", m.aesSize()*8), KeyExchange: "none"}
		if m.encKey != nil {
			d.Encryption.KeyExchange = exchangeOf(m.encKey.typ)
		}
	}
	for _, t := range m.others {
		d.TLVs = append(d.TLVs, OtherTLV{Type: fmt.Sprintf("%#04x", t.typ), Size: len(t.data), Data: preview(t.data)})
	}
	b, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encoding details: %w", err)
	}
	return b, nil
}

// record is the CBOR map of a boot record.
type record struct {
	Type    string `cbor:"1,keyasint"`
	Digest  []byte `cbor:"2,keyasint"`
	Version string `cbor:"4,keyasint"`
	Signer  []byte `cbor:"5,keyasint"`
	Hash    string `cbor:"6,keyasint"`
}

// readBootRecord never fails: no bootloader looks into the record, so any bytes
// are as good as any other, and Inspect shows them.
func readBootRecord(b []byte) *BootRecord {
	strict, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		MaxNestedLevels: 4, MaxMapPairs: 16, MaxArrayElements: 16,
	}.DecMode()
	var r record
	if err != nil || strict.Unmarshal(b, &r) != nil || !bytes.HasSuffix(b, r.Digest) {
		return &BootRecord{Raw: preview(b)}
	}
	return &BootRecord{Type: r.Type, Version: r.Version, Signer: preview(r.Signer), Hash: r.Hash}
}
