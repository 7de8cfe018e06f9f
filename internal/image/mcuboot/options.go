package mcuboot

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/image"
)

// Layout is [image.SignOptions.Layout] for MCUboot, a strict JSON object: an
// unknown or repeated member is refused. docs/formats/mcuboot.md describes the
// members with examples. The zero value signs as imgtool does by default.
type Layout struct {
	// Hash is the image digest: sha256, sha384 or sha512. It must be one that
	// the key signs: SHA-384 for P-384, SHA-256 or SHA-512 for Ed25519, SHA-256
	// for the others. Empty takes what the image to be re-signed has, if the
	// key signs that, and the first of these otherwise.
	Hash string `json:"hash,omitempty"`
	// Pure makes an Ed25519 key sign the image itself instead of its digest. The
	// digest is SHA-512 then. Absent keeps what the image to be re-signed has.
	// The image must not be larger than [MaxPureSign].
	Pure *bool `json:"pure,omitempty"`
	// Key says how a signature names its key: "hash", or "full" for bootloaders
	// built with MCUBOOT_HW_KEY. Empty keeps what the image to be re-signed has.
	Key string `json:"key,omitempty"`
	// Signatures says what happens to those in an image to be re-signed:
	// "replace" drops them, "add" keeps those by other keys.
	Signatures string `json:"signatures,omitempty"`

	// Vendor and Class are the vendor's DNS name and the hardware name, or
	// UUIDs. They take the place of SignOptions.Vendor and of its only Hardware.
	Vendor string `json:"vendor,omitempty"`
	Class  string `json:"class,omitempty"`
	// BootRecord is the software type (1 to 12 bytes) of the measured-boot record.
	BootRecord string `json:"boot_record,omitempty"`
	// Dependencies are the other images the bootloader must have, and from
	// which version on.
	Dependencies []Dependency `json:"dependencies,omitempty"`
	// TLVs are custom protected entries, in this order.
	TLVs []CustomTLV `json:"tlvs,omitempty"`

	// Encryption encrypts the payload after hashing and signing it.
	Encryption *Encryption `json:"encryption,omitempty"`

	// HeaderSize, HeaderInPlace and SlotSize are those of SignOptions.
	HeaderSize    int   `json:"header_size,omitempty"`
	HeaderInPlace bool  `json:"header_in_place,omitempty"`
	SlotSize      int64 `json:"slot_size,omitempty"`
}

// Dependency is an image that must be there for this one to boot.
type Dependency struct {
	Image   uint8  `json:"image"`   // number of the image pair in the bootloader
	Version string `json:"version"` // the lowest that will do: see [ParseVersion]
}

// CustomTLV is a protected entry that writ gives no meaning to.
type CustomTLV struct {
	Type string `json:"type"` // 0x00a0 to 0xfffe
	Data string `json:"data"` // hexadecimal
}

// Encryption says to whom an image is encrypted, and how.
type Encryption struct {
	// Recipient is the public key of the devices, PEM SubjectPublicKeyInfo:
	// P-256 with a P-256 signing key, X25519 with an Ed25519 one, as bootloaders
	// are built.
	Recipient string `json:"recipient,omitempty"`
	// Deferred leaves the payload clear but prepares it, so that a second key
	// can sign it: everything that is signed is final. The last signer gives
	// the Recipient.
	Deferred bool `json:"deferred,omitempty"`
	// AES is the key size in bits: 128, which is the default, or 256.
	AES int `json:"aes,omitempty"`
	// HMAC is the hash of key derivation and authentication: sha256, which is
	// the default, or sha512, for X25519 only.
	HMAC string `json:"hmac,omitempty"`
}

// settings is Layout and SignOptions, checked as far as possible without the
// image and the key.
type settings struct {
	Layout
	hash      crypto.Hash // 0 when the layout does not say
	tlvs      []entry     // custom
	deps      []entry
	recipient *ecdh.PublicKey
	version   string
	counter   *uint64
}

const (
	keyAsHash, keyInFull             = "hash", "full"
	replaceSignatures, addSignatures = "replace", "add"

	maxSoftwareType = 12 // bytes; imgtool's limit

	customFirst, customLast = 0x00a0, 0xfffe
)

func badOptions(format string, args ...any) error {
	return fmt.Errorf("reading layout: %w: %w", fmt.Errorf(format, args...), image.ErrBadOptions)
}

func readOptions(opt image.SignOptions) (*settings, error) {
	s := &settings{version: opt.Version, counter: opt.SecurityCounter}
	if len(opt.Layout) != 0 {
		if err := dsse.Decode(opt.Layout, &s.Layout); err != nil {
			return nil, badOptions("%w", err)
		}
	}
	if err := s.merge(opt); err != nil {
		return nil, err
	}
	if err := s.checkNames(); err != nil {
		return nil, err
	}
	if err := s.readTLVs(); err != nil {
		return nil, err
	}
	return s, s.readEncryption()
}

// merge brings in what SignOptions has a field for as well.
func (s *settings) merge(opt image.SignOptions) error {
	if opt.HeaderSize != 0 && s.HeaderSize != 0 && opt.HeaderSize != s.HeaderSize ||
		opt.SlotSize != 0 && s.SlotSize != 0 && opt.SlotSize != s.SlotSize ||
		opt.Vendor != "" && s.Vendor != "" && opt.Vendor != s.Vendor {
		return badOptions("header size, slot size or vendor is given twice and differs")
	}
	if s.HeaderSize == 0 {
		s.HeaderSize = opt.HeaderSize
	}
	if s.SlotSize == 0 {
		s.SlotSize = opt.SlotSize
	}
	s.HeaderInPlace = s.HeaderInPlace || opt.HeaderInPlace
	if s.Vendor == "" {
		s.Vendor = opt.Vendor
	}
	switch {
	case s.Vendor == "" && s.Class != "":
		return badOptions("class %q without a vendor, in whose name space it is", s.Class)
	case s.Class != "" && len(opt.Hardware) > 0:
		return s.classAmong(opt.Hardware)
	case s.Vendor != "" && s.Class == "":
		if len(opt.Hardware) != 1 {
			return badOptions("an image can be bound to one hardware class, got %d: name one as class", len(opt.Hardware))
		}
		s.Class = opt.Hardware[0]
	}
	return nil
}

// classAmong refuses a class that is none of the hardware ids: devices compare
// the one with the other.
func (s *settings) classAmong(hardware []string) error {
	want, err := ClassID(s.Vendor, s.Class)
	if err != nil {
		return err
	}
	for _, h := range hardware {
		if id, err := ClassID(s.Vendor, h); err == nil && id == want {
			return nil
		}
	}
	return badOptions("class %q is none of the hardware ids %q", s.Class, hardware)
}

func (s *settings) checkNames() error {
	switch s.Hash {
	case "":
	case "sha256":
		s.hash = crypto.SHA256
	case "sha384":
		s.hash = crypto.SHA384
	case "sha512":
		s.hash = crypto.SHA512
	default:
		return badOptions("hash %q is not sha256, sha384 or sha512", s.Hash)
	}
	switch s.Key {
	case "", keyAsHash, keyInFull:
	default:
		return badOptions("key %q is not hash or full", s.Key)
	}
	switch s.Signatures {
	case "":
		s.Signatures = replaceSignatures
	case replaceSignatures, addSignatures:
	default:
		return badOptions("signatures %q is not replace or add", s.Signatures)
	}
	if len(s.BootRecord) > maxSoftwareType || !utf8.ValidString(s.BootRecord) {
		return badOptions("boot record: software type %q has %d bytes, the most is %d", s.BootRecord, len(s.BootRecord), maxSoftwareType)
	}
	return nil
}

// readTLVs encodes dependencies and custom TLVs.
func (s *settings) readTLVs() error {
	seen := map[uint64]bool{}
	for _, d := range s.Dependencies {
		if seen[uint64(d.Image)] {
			return badOptions("two dependencies on image %d", d.Image)
		}
		seen[uint64(d.Image)] = true
		v, err := ParseVersion(d.Version)
		if err != nil {
			return fmt.Errorf("reading layout: dependency on image %d: %w", d.Image, err)
		}
		b := []byte{d.Image, 0, 0, 0, v.Major, v.Minor}
		b = le.AppendUint16(b, v.Revision)
		s.deps = append(s.deps, entry{tlvDepend, le.AppendUint32(b, v.Build)})
	}
	clear(seen)
	for _, c := range s.TLVs {
		typ, err := strconv.ParseUint(c.Type, 0, 16)
		if err != nil || typ < customFirst || typ > customLast {
			return badOptions("custom TLV type %q is not within %#04x and %#04x", c.Type, customFirst, customLast)
		}
		if seen[typ] {
			return badOptions("two custom TLVs of type %#04x", typ)
		}
		seen[typ] = true
		data, err := hex.DecodeString(c.Data)
		if err != nil || len(data) > 0xffff {
			return badOptions("custom TLV %#04x: data is not hexadecimal of at most 65535 bytes", typ)
		}
		s.tlvs = append(s.tlvs, entry{uint16(typ), data})
	}
	return nil
}

func (s *settings) readEncryption() error {
	e := s.Encryption
	if e == nil {
		return nil
	}
	if e.AES == 0 {
		e.AES = 128
	}
	if e.HMAC == "" {
		e.HMAC = "sha256"
	}
	switch {
	case e.AES != 128 && e.AES != 256:
		return badOptions("encryption: aes is %d, want 128 or 256", e.AES)
	case e.HMAC != "sha256" && e.HMAC != "sha512":
		return badOptions("encryption: hmac %q is not sha256 or sha512", e.HMAC)
	case e.Deferred == (e.Recipient != ""):
		return badOptions("encryption: want either a recipient or deferred")
	case e.Deferred:
		return nil
	}
	var err error
	if s.recipient, err = parseRecipient(e.Recipient); err != nil {
		return badOptions("encryption: recipient: %w", err)
	}
	if e.HMAC == "sha512" && s.recipient.Curve() != ecdh.X25519() {
		return badOptions("encryption: hmac sha512 exists for X25519 only")
	}
	return nil
}

func parseRecipient(text string) (*ecdh.PublicKey, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "PUBLIC KEY" || len(rest) != 0 {
		return nil, errors.New(`want one PEM block "PUBLIC KEY" and nothing else`)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	switch k := key.(type) {
	case *ecdh.PublicKey: // X25519 is the only curve that parses as this
		return k, nil
	case *ecdsa.PublicKey:
		if p, err := k.ECDH(); err == nil && p.Curve() == ecdh.P256() {
			return p, nil
		}
	}
	return nil, errors.New("want a P-256 or X25519 public key")
}
