package release

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/image/formats"
	"github.com/writ-project/writ/internal/policy"
	"github.com/writ-project/writ/internal/store"
)

// Draft is what somebody proposes to release.
type Draft struct {
	Product     fw.ProductID
	Version     string // semantic version 2.0.0; for mcuboot major.minor.patch+build
	Type        fw.ReleaseType
	MixedReason string          // why security and other changes cannot be separated; for mixed releases only
	Hardware    []fw.HardwareID // of the product's; none means all of them
	FromVersion string          // constraint on the installed version, e.g. ">=1.0.0, <2.0.0"; empty: any
	Components  []DraftComponent
	SBOM        fw.Digest // of an uploaded JSON file; zero: none
	Provenance  fw.Digest // of uploaded SLSA provenance in a DSSE envelope; zero: none
	Notes       string    // for users
	Advisory    string    // what is fixed; security releases need one
}

// DraftComponent is one image of a draft, in install order.
type DraftComponent struct {
	Name            fw.ComponentName
	Format          string // one of formats.All; empty: by looking at the image
	Input           fw.Digest
	SecurityCounter uint64
	Vendor          string          // DNS name or UUID, for formats with UUIDs; empty: none
	Layout          json.RawMessage // options of the format; nil: none
}

// Bounds of a draft. The manifest as a whole must fit an evidence record
// together with a signature over it.
const (
	maxManifest   = 24 << 10 // bytes
	maxVersion    = 64
	maxConstraint = 256
	maxComponents = 16
	maxReason     = 500
	maxLayout     = 4 << 10 // bytes
	maxNotes      = 16 << 10
	maxSBOM       = 64 << 20
)

// check checks everything that needs no image and returns the manifest but
// for what the images say.
func (d *Draft) check(p store.Product) (*fw.Manifest, error) {
	if err := d.checkTexts(); err != nil {
		return nil, err
	}
	if err := checkVersion(d.Version); err != nil {
		return nil, err
	}
	if err := d.checkType(); err != nil {
		return nil, err
	}
	if d.FromVersion != "" {
		if err := policy.ParseFromVersion(d.FromVersion); err != nil {
			return nil, err
		}
	}
	hardware, err := d.hardware(p)
	if err != nil {
		return nil, err
	}
	m := &fw.Manifest{
		Type: fw.TypeManifest, Product: p.ID, Version: d.Version, ReleaseType: d.Type, MixedReason: d.MixedReason,
		Hardware: hardware, FromVersion: d.FromVersion, SBOM: d.SBOM, Provenance: d.Provenance, Notes: d.Notes, Advisory: d.Advisory,
	}
	if m.Components, err = d.components(p.ImageKey); err != nil {
		return nil, err
	}
	return m, nil
}

func (d *Draft) checkTexts() error {
	for _, t := range []struct {
		what, text string
		limit      int
	}{
		{"version", d.Version, maxVersion},
		{"from-version", d.FromVersion, maxConstraint},
		{"reason for a mixed release", d.MixedReason, maxReason},
		{"notes", d.Notes, maxNotes},
		{"advisory", d.Advisory, maxNotes},
	} {
		if err := checkText(t.what, t.text, t.limit); err != nil {
			return err
		}
	}
	return nil
}

// checkText refuses what people could not read as it was written.
func checkText(what, s string, limit int) error {
	if len(s) > limit {
		return fw.Errorf(fw.TooLarge, "the %s has %d bytes, over the limit of %d: shorten it", what, len(s), limit)
	}
	if !utf8.ValidString(s) {
		return fw.Errorf(fw.Invalid, "the %s is not UTF-8 text", what)
	}
	for _, r := range s {
		// Bidirectional controls are category Cf: they can make text read
		// other than it is, to the very people who approve it.
		if unicode.Is(unicode.Cf, r) || unicode.IsControl(r) && r != '\n' && r != '\t' && r != '\r' {
			return fw.Errorf(fw.Invalid, "the %s holds the invisible character %U: remove it", what, r)
		}
	}
	return nil
}

func checkVersion(v string) error {
	if v == "" {
		return fw.Errorf(fw.Invalid, "a release needs a version, e.g. 1.2.0")
	}
	// The reader that decisions compare versions with: what it cannot read
	// could never be offered.
	_, err := policy.CompareVersions(v, v)
	return err
}

func (d *Draft) checkType() error {
	switch d.Type {
	case fw.ReleaseSecurity:
		if d.Advisory == "" {
			return fw.Errorf(fw.Invalid, "a security release needs an advisory that says what is fixed")
		}
	case fw.ReleaseMixed:
		if d.MixedReason == "" {
			return fw.Errorf(fw.Invalid, "a mixed release needs a reason why the security part is not released by itself")
		}
		return nil
	case fw.ReleaseFunctional:
	default:
		return fw.Errorf(fw.Invalid, "the type of a release is security, functional or mixed, not %q", d.Type)
	}
	if d.MixedReason != "" {
		return fw.Errorf(fw.Invalid, "only a mixed release has a reason for being mixed: remove it, or make the type mixed")
	}
	return nil
}

// hardware returns the hardware ids in the product's order.
func (d *Draft) hardware(p store.Product) ([]fw.HardwareID, error) {
	var all []fw.HardwareID
	if err := json.Unmarshal([]byte(p.Hardware), &all); err != nil {
		return nil, fw.Wrap(fw.Corrupt, err, "the stored hardware of product %s cannot be read", p.ID)
	}
	if len(d.Hardware) == 0 {
		return all, nil
	}
	if err := checkHardware(d.Hardware); err != nil {
		return nil, err
	}
	for _, h := range d.Hardware {
		if !slices.Contains(all, h) {
			return nil, fw.Errorf(fw.Invalid, "product %s has no hardware %q: it has %v", p.ID, h, all)
		}
	}
	return slices.DeleteFunc(all, func(h fw.HardwareID) bool { return !slices.Contains(d.Hardware, h) }), nil
}

func (d *Draft) components(key fw.KeyName) ([]fw.ManifestComponent, error) {
	if len(d.Components) == 0 || len(d.Components) > maxComponents {
		return nil, fw.Errorf(fw.Invalid, "a release has 1 to %d components, not %d", maxComponents, len(d.Components))
	}
	out := make([]fw.ManifestComponent, len(d.Components))
	for i, c := range d.Components {
		if _, err := fw.ParseName("component name", string(c.Name)); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(d.Components[:i], func(o DraftComponent) bool { return o.Name == c.Name }) {
			return nil, fw.Errorf(fw.Invalid, "component %q is named twice", c.Name)
		}
		if c.Input.IsZero() {
			return nil, fw.Errorf(fw.Invalid, "component %q needs the digest of an uploaded image", c.Name)
		}
		if _, known := formats.ForName(c.Format); c.Format != "" && !known {
			return nil, fw.Errorf(fw.Invalid, "component %q has format %q, which is not known: %s", c.Name, c.Format, knownFormats())
		}
		if err := checkText("vendor", c.Vendor, maxVersion); err != nil {
			return nil, err
		}
		layout, err := compactLayout(c)
		if err != nil {
			return nil, err
		}
		out[i] = fw.ManifestComponent{Name: c.Name, Format: c.Format, SecurityCounter: c.SecurityCounter, InputDigest: c.Input, Key: key, Vendor: c.Vendor, Layout: layout}
	}
	return out, nil
}

// compactLayout returns the layout of c in the form that is approved.
func compactLayout(c DraftComponent) (json.RawMessage, error) {
	if len(c.Layout) == 0 {
		return nil, nil
	}
	if len(c.Layout) > maxLayout {
		return nil, fw.Errorf(fw.TooLarge, "the layout of component %q has %d bytes, over the limit of %d", c.Name, len(c.Layout), maxLayout)
	}
	var b bytes.Buffer
	var object map[string]json.RawMessage
	if err := errors.Join(json.Compact(&b, c.Layout), json.Unmarshal(c.Layout, &object)); err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "the layout of component %q is no JSON object", c.Name)
	}
	return b.Bytes(), nil
}

func knownFormats() string {
	words := []string{"use"}
	for _, f := range formats.All() {
		words = append(words, f.Name())
	}
	return strings.Join(words, " ")
}
