package suit

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/image"
)

// Layout is [image.SignOptions.Layout] for SUIT, a strict JSON object: an
// unknown or repeated member is refused. docs/formats/suit.md describes the
// members with examples.
type Layout struct {
	// Integrated puts the image into the envelope, which is then the file.
	Integrated bool `json:"integrated,omitempty"`
	// URI is where the device fetches the image. Empty is "#image": in the
	// envelope or, detached, delivered beside it.
	URI string `json:"uri,omitempty"`
	// SequenceNumber is the manifest's, if it is not the security counter.
	SequenceNumber *uint64 `json:"sequence_number,omitempty"`

	// Vendor and Class are the vendor's DNS name and the hardware name, or
	// UUIDs. They take the place of SignOptions.Vendor and of its Hardware.
	Vendor string `json:"vendor,omitempty"`
	Class  string `json:"class,omitempty"`
	// Devices limits the manifest to the devices with one of these UUIDs.
	Devices []string `json:"devices,omitempty"`
	// Component is the identifier of the component to update: its parts in
	// hexadecimal. Empty is the one part 00.
	Component []string `json:"component,omitempty"`
	// Invoke adds the sequence that starts the image.
	Invoke bool `json:"invoke,omitempty"`

	// Algorithm is ESP256 (the default for P-256 keys) or ES256, Ed25519 (the
	// default for Ed25519 keys) or EdDSA.
	Algorithm string `json:"algorithm,omitempty"`
	// KeyID says how the signature names its key: "sha256", the default, or
	// "none".
	KeyID string `json:"key_id,omitempty"`

	// ReferenceURI is where the manifest with all its text is.
	ReferenceURI string `json:"reference_uri,omitempty"`
	// SeverInstall moves the install sequence out of the manifest, so that a
	// device can drop it. Text is always severed.
	SeverInstall bool `json:"sever_install,omitempty"`
	// Text is for people, by language. What else is known goes into every
	// language: version, product, vendor domain and class name.
	Text map[string]Text `json:"text,omitempty"`
}

// Text is what a manifest says for people in one language.
type Text struct {
	Manifest  string `json:"manifest,omitempty"`  // description of the manifest
	Update    string `json:"update,omitempty"`    // description of the update
	Vendor    string `json:"vendor,omitempty"`    // name of the vendor
	Component string `json:"component,omitempty"` // description of the component
}

const (
	defaultURI      = "#image"
	defaultLanguage = "en"

	keyIDHash, keyIDNone = "sha256", "none"
)

// settings is Layout and SignOptions, checked.
type settings struct {
	Layout
	sequence  uint64
	vendor    uuid.UUID
	classes   []uuid.UUID
	devices   []uuid.UUID
	component [][]byte
	alg       int64
	// What the text says beside Layout.Text.
	product, domain, model, version string
}

func badOptions(format string, args ...any) error {
	return fmt.Errorf("checking options: %s: %w", fmt.Sprintf(format, args...), image.ErrBadOptions)
}

func readOptions(size int64, key crypto.Signer, opt image.SignOptions) (*settings, error) {
	s := &settings{product: opt.Product, version: opt.Version}
	if len(opt.Layout) != 0 {
		if err := dsse.Decode(opt.Layout, &s.Layout); err != nil {
			return nil, badOptions("layout: %v", err)
		}
	}
	switch {
	case opt.HeaderSize != 0 || opt.HeaderInPlace:
		return nil, badOptions("an envelope has no image header")
	case opt.SlotSize != 0 && size > opt.SlotSize:
		return nil, fmt.Errorf("checking size: %d bytes do not fit a slot of %d: %w", size, opt.SlotSize, image.ErrTooLarge)
	}
	for _, f := range []func() error{
		func() error { return s.readSequence(opt.SecurityCounter) },
		func() error { return s.readIDs(opt) },
		s.readComponent,
		func() error { return s.readAlgorithm(key.Public()) },
		s.checkTexts,
	} {
		if err := f(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *settings) readSequence(counter *uint64) error {
	n := s.SequenceNumber
	switch {
	case n == nil && counter == nil:
		return badOptions("a manifest needs a sequence number: give a security counter")
	case n == nil:
		n = counter
	case counter != nil && *counter != *n:
		return badOptions("sequence_number %d is not the security counter %d, and a manifest has one number", *n, *counter)
	}
	s.sequence = *n
	return nil
}

// readIDs derives vendor and class ids. Without them every device would take
// the manifest, so there is no way to leave them out.
func (s *settings) readIDs(opt image.SignOptions) error {
	vendor, classes := s.Vendor, opt.Hardware
	if vendor == "" {
		vendor = opt.Vendor
	}
	if s.Class != "" {
		classes = []string{s.Class}
	}
	if vendor == "" || len(classes) == 0 {
		return badOptions("a manifest is bound to a vendor and hardware: give vendor, a DNS name or UUID, and the hardware ids")
	}
	s.vendor = nameUUID(uuid.NameSpaceDNS, vendor)
	if s.vendor.String() != vendor {
		s.domain = vendor
	}
	for _, c := range classes {
		if c == "" {
			return badOptions("a hardware id is empty")
		}
		id := nameUUID(s.vendor, c)
		s.classes = appendNew(s.classes, id)
		if len(classes) == 1 && id.String() != c {
			s.model = c
		}
	}
	// Each pair is a way through the manifest.
	if n := len(classes) * max(1, len(s.Devices)); n > maxWorlds {
		return badOptions("%d hardware ids and %d devices are too many: at most %d pairs of them", len(classes), len(s.Devices), maxWorlds)
	}
	for _, d := range s.Devices {
		id, err := uuid.Parse(d)
		if err != nil || len(d) != 36 {
			return badOptions("device %.40q is no UUID", d)
		}
		s.devices = appendNew(s.devices, id)
	}
	return nil
}

// VendorID returns the vendor UUID for a DNS name: the version 5 UUID in the DNS
// namespace (draft section 8.4.8.2). A name that already is a UUID stands for
// itself. MCUboot's are the same.
func VendorID(vendor string) string { return nameUUID(uuid.NameSpaceDNS, vendor).String() }

// ClassID returns the class UUID for a hardware name of a vendor: the version 5
// UUID within the vendor id.
func ClassID(vendor, hardware string) string {
	return nameUUID(nameUUID(uuid.NameSpaceDNS, vendor), hardware).String()
}

func nameUUID(space uuid.UUID, name string) uuid.UUID {
	// Only the plain forms: uuid.Parse also reads urn:uuid: and braces.
	if len(name) == 36 || len(name) == 32 {
		if id, err := uuid.Parse(name); err == nil {
			return id
		}
	}
	return uuid.NewSHA1(space, []byte(name))
}

func (s *settings) readComponent() error {
	if len(s.Component) == 0 {
		s.component = [][]byte{{0}}
	}
	if len(s.Component) > maxComponents {
		return badOptions("the component has %d parts, over the limit of %d", len(s.Component), maxComponents)
	}
	for _, part := range s.Component {
		b, err := hex.DecodeString(part)
		if err != nil || len(b) > 64 {
			return badOptions("component part %.40q is not hexadecimal of at most 64 bytes", part)
		}
		s.component = append(s.component, b)
	}
	return nil
}

func (s *settings) readAlgorithm(pub crypto.PublicKey) error {
	var fits []int64 // the default first: that of draft-ietf-suit-mti
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k != nil && k.Curve == elliptic.P256() {
			fits = []int64{algESP256, algES256}
		}
	case ed25519.PublicKey:
		fits = []int64{algEd25519, algEdDSA}
	}
	if fits == nil {
		return fmt.Errorf("choosing signature algorithm: envelopes are signed with ECDSA P-256 or Ed25519, not a key of type %T: %w", pub, image.ErrUnsupported)
	}
	i := 0
	if s.Algorithm != "" {
		i = slices.IndexFunc(fits, func(alg int64) bool { return algorithmNames[alg] == s.Algorithm })
	}
	if i < 0 {
		return badOptions("algorithm %.20q does not go with the key: want %s or %s", s.Algorithm, algorithmNames[fits[0]], algorithmNames[fits[1]])
	}
	s.alg = fits[i]
	if s.KeyID != "" && s.KeyID != keyIDHash && s.KeyID != keyIDNone {
		return badOptions("key_id %.20q is neither %s nor %s", s.KeyID, keyIDHash, keyIDNone)
	}
	return nil
}

func (s *settings) checkTexts() error {
	if s.URI == "" {
		s.URI = defaultURI
	}
	if s.Integrated && !strings.HasPrefix(s.URI, "#") {
		return badOptions("uri %.60q: the name of an integrated image begins with #", s.URI)
	}
	for _, t := range []string{s.URI, s.ReferenceURI, s.product, s.domain, s.model, s.version} {
		if len(t) > maxText || !utf8.ValidString(t) {
			return badOptions("%.40q is not UTF-8 of at most %d bytes", t, maxText)
		}
	}
	for lang, t := range s.Text {
		if !isLanguage(lang) {
			return badOptions("text language %.20q is none like en or pt-BR", lang)
		}
		for _, v := range []string{t.Manifest, t.Update, t.Vendor, t.Component} {
			if !utf8.ValidString(v) {
				return badOptions("a text is not UTF-8")
			}
		}
	}
	return nil
}

// isLanguage checks the form of a language tag: parts of one to eight letters,
// digits too after the first, between hyphens.
func isLanguage(tag string) bool {
	for i, part := range strings.Split(tag, "-") {
		if len(part) < 1 || len(part) > 8 || strings.ContainsFunc(part, func(r rune) bool {
			letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
			return !letter && (i == 0 || r < '0' || r > '9')
		}) {
			return false
		}
	}
	return true
}
