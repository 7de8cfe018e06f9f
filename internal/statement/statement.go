// Package statement is the release statement: what a release is, said once and
// signed apart from any container format, so that one check is the same for
// every device and every format. docs/formats/statement.md has the bytes.
//
// # What it promises
//
//   - A statement is an in-toto Statement v1 in a DSSE envelope. Its subjects
//     are the signed images by digest; its predicate names product, version,
//     type, compatibility, security counters, and the digests of the approved
//     manifest, the SBOM, the build provenance and the advisory.
//   - [Make] builds it from the approved manifest and the signed images alone.
//     [Matches] holds it against them again, so that whoever signs one need not
//     trust whoever wrote it.
//   - It is signed by a classical key and by an ML-DSA-65 key (FIPS 204). What
//     counts is up to the reader: [Signed.Verify] takes a [Requirement]. The
//     zero Requirement is met by no statement.
//   - [Open] takes one encoding, bounded; nothing in it is believed before
//     Verify.
package statement

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
)

// Names in the envelope.
const (
	PayloadType   = "application/vnd.in-toto+json"
	StatementType = "https://in-toto.io/Statement/v1"
	PredicateType = "https://writ-project.dev/release-statement/v1"
)

// MaxSize bounds an envelope in bytes: two signatures take 5 KiB of it.
const MaxSize = 64 << 10

// limits bound what Open reads.
var limits = dsse.Limits{Bytes: MaxSize, Signatures: 8}

// Statement is what is signed.
type Statement struct {
	Type          string    `json:"_type"` // StatementType
	Subject       []Subject `json:"subject"`
	PredicateType string    `json:"predicateType"` // PredicateType
	Predicate     Predicate `json:"predicate"`
}

// Subject is one signed image.
type Subject struct {
	Name   fw.ComponentName  `json:"name"`
	Digest map[string]string `json:"digest"` // "sha256": hexadecimal, of the bytes a device downloads
}

// Predicate is what is said of the images.
type Predicate struct {
	Release     fw.ReleaseID    `json:"release"`
	Product     fw.ProductID    `json:"product"`
	Version     string          `json:"version"`
	ReleaseType fw.ReleaseType  `json:"release_type"`
	Hardware    []fw.HardwareID `json:"hardware"`
	FromVersion string          `json:"from_version,omitempty"`
	Components  []Component     `json:"components"`          // in install order
	Manifest    fw.Digest       `json:"manifest"`            // of the approved manifest
	SBOM        fw.Digest       `json:"sbom,omitzero"`       // of the attached SBOM
	Provenance  fw.Digest       `json:"provenance,omitzero"` // of the attached build provenance
	Advisory    fw.Digest       `json:"advisory,omitzero"`   // SHA-256 of the advisory text, UTF-8
}

// Component is one image of the release.
type Component struct {
	Name            fw.ComponentName `json:"name"`
	Format          string           `json:"format"`
	Version         string           `json:"version"`
	SecurityCounter uint64           `json:"security_counter"`
	Size            int64            `json:"size"`              // bytes
	Envelope        fw.Digest        `json:"envelope,omitzero"` // of the detached signature, if the format has one
	KeyID           string           `json:"key_id"`            // who signed the image
}

// Make returns the statement about the images signed from manifest, which are
// its exact approved bytes.
func Make(manifest []byte, images []fw.SignedImage) (Statement, error) {
	var m fw.Manifest
	if err := dsse.Decode(manifest, &m); err != nil {
		return Statement{}, fw.Wrap(fw.Invalid, err, "malformed manifest")
	}
	s := Statement{Type: StatementType, PredicateType: PredicateType, Subject: []Subject{}, Predicate: Predicate{
		Release: m.Release, Product: m.Product, Version: m.Version, ReleaseType: m.ReleaseType, Hardware: m.Hardware,
		FromVersion: m.FromVersion, Components: []Component{}, Manifest: fw.DigestOf(manifest), SBOM: m.SBOM, Provenance: m.Provenance,
	}}
	if m.Advisory != "" {
		s.Predicate.Advisory = fw.DigestOf([]byte(m.Advisory))
	}
	for _, img := range images {
		s.Subject = append(s.Subject, Subject{Name: img.Component, Digest: map[string]string{"sha256": img.Digest.Hex()}})
		s.Predicate.Components = append(s.Predicate.Components, Component{
			Name: img.Component, Format: img.Format, Version: img.Version, SecurityCounter: img.SecurityCounter,
			Size: img.Size, Envelope: img.Envelope, KeyID: img.KeyID,
		})
	}
	return s, s.check()
}

// Encode returns the bytes to be signed.
func (s Statement) Encode() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fw.Wrap(fw.Internal, err, "cannot encode the statement")
	}
	return b, nil
}

// Parse reads an unsigned statement, in the one form that Encode writes.
func Parse(b []byte) (Statement, error) {
	var s Statement
	if len(b) > MaxSize {
		return s, fw.Errorf(fw.TooLarge, "the statement is %d bytes, over the limit of %d", len(b), MaxSize)
	}
	if err := dsse.Decode(b, &s); err != nil {
		return s, fw.Wrap(fw.Invalid, err, "malformed release statement")
	}
	if err := s.check(); err != nil {
		return s, err
	}
	if again, err := json.Marshal(s); err != nil || !bytes.Equal(again, b) {
		return s, fw.Wrap(fw.Invalid, err, "the statement is not in the form that writ writes")
	}
	return s, nil
}

// maxComponents bounds a statement.
const maxComponents = 32

func (s Statement) check() error {
	p := &s.Predicate
	switch {
	case s.Type != StatementType || s.PredicateType != PredicateType:
		return fw.Errorf(fw.Invalid, "this is a %q about %q, not a release statement", s.Type, s.PredicateType)
	case p.Release == "" || p.Product == "" || p.Version == "" || p.ReleaseType == "":
		return fw.Errorf(fw.Invalid, "a release statement names release, product, version and type")
	case p.Manifest.IsZero():
		return fw.Errorf(fw.Invalid, "a release statement names the approved manifest")
	case len(p.Hardware) == 0:
		return fw.Errorf(fw.Invalid, "a release statement names the hardware it is for")
	case len(p.Components) == 0 || len(p.Components) > maxComponents || len(p.Components) != len(s.Subject):
		return fw.Errorf(fw.Invalid, "a release statement has 1 to %d components and a subject for each", maxComponents)
	}
	for i, c := range p.Components {
		if s.Subject[i].Name != c.Name || len(s.Subject[i].Digest) != 1 {
			return fw.Errorf(fw.Invalid, "subject %d is not component %q with one digest", i, c.Name)
		}
		if _, err := fw.ParseDigest("sha256:" + s.Subject[i].Digest["sha256"]); err != nil {
			return fw.Wrap(fw.Invalid, err, "component %q has no SHA-256", c.Name)
		}
		if slices.ContainsFunc(p.Components[:i], func(o Component) bool { return o.Name == c.Name }) {
			return fw.Errorf(fw.Invalid, "component %q is there twice", c.Name)
		}
		if c.Size <= 0 || c.Format == "" || c.Version == "" {
			return fw.Errorf(fw.Invalid, "component %q has no size, format or version", c.Name)
		}
	}
	return nil
}

// Image returns what is said of the image of a component, and its digest.
func (s Statement) Image(name fw.ComponentName) (Component, fw.Digest, bool) {
	i := slices.IndexFunc(s.Predicate.Components, func(c Component) bool { return c.Name == name })
	if i < 0 {
		return Component{}, fw.Digest{}, false
	}
	d, err := fw.ParseDigest("sha256:" + s.Subject[i].Digest["sha256"])
	return s.Predicate.Components[i], d, err == nil
}

// Matches reports whether s says of the release what its approved manifest
// says. The signer of a statement calls it, so that it states nothing that was
// not approved; the images' digests are compared by whoever has the images.
func (s Statement) Matches(manifest []byte) error {
	var m fw.Manifest
	if err := dsse.Decode(manifest, &m); err != nil {
		return fw.Wrap(fw.Invalid, err, "malformed manifest")
	}
	images := make([]fw.SignedImage, len(s.Predicate.Components))
	for i, c := range s.Predicate.Components {
		_, digest, _ := s.Image(c.Name)
		images[i] = fw.SignedImage{
			Component: c.Name, Format: c.Format, Version: c.Version, SecurityCounter: c.SecurityCounter,
			Digest: digest, Size: c.Size, Envelope: c.Envelope, KeyID: c.KeyID,
		}
	}
	if len(images) != len(m.Components) {
		return fw.Errorf(fw.Forbidden, "the statement has %d components and the approved manifest %d", len(images), len(m.Components))
	}
	for i, c := range m.Components {
		got := images[i]
		if got.Component != c.Name || got.Format != c.Format || got.SecurityCounter != c.SecurityCounter || got.Version != m.Version {
			return fw.Errorf(fw.Forbidden, "the statement about component %q is not what was approved", c.Name)
		}
	}
	want, err := Make(manifest, images)
	if err != nil {
		return err
	}
	a, aerr := s.Encode()
	b, berr := want.Encode()
	if aerr != nil || berr != nil || !bytes.Equal(a, b) {
		return fw.Errorf(fw.Forbidden, "the statement is not what the approved manifest says")
	}
	return nil
}

// Join merges envelopes of one statement, each signed by one key.
func Join(envelopes ...[]byte) ([]byte, error) { return dsse.Join(PayloadType, limits, envelopes...) }
