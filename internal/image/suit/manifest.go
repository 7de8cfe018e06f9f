package suit

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/writ-project/writ/internal/image"
)

// manifest is what a manifest and its severed members say.
type manifest struct {
	sequence   uint64
	reference  string
	components []string
	text       texts

	vendors, classes, devices []string // ids that conditions check
	images                    []imageRef
	sequences                 []string // names of those there are
	severed                   []string // names of those whose content is not there
}

// texts is what the text says of the components.
type texts struct {
	description      string
	versions, models []string // distinct ones, of all languages and components
}

// readManifest reads the manifest of e, whose digest must have been checked, and
// the members severed from it.
func readManifest(e *envelope) (*manifest, error) {
	m := &manifest{}
	d := newDecoder("manifest", e.manifest.body)
	var version uint64
	var common []byte
	seqs := map[int64][]byte{}
	var haveSequence bool
	d.entries(func() {
		switch key := d.int(); key {
		case keyVersion:
			version = d.uint()
		case keySequence:
			m.sequence, haveSequence = d.uint(), true
		case keyCommon:
			common = d.bytes()
		case keyReference:
			m.reference = d.text(maxText)
		case keyValidate, keyLoad, keyInvoke:
			seqs[key] = d.bytes()
		case keyPayloadFetch, keyInstall, keyText:
			if b := m.severable(d, e, key); b != nil {
				seqs[key] = b
			}
		default:
			d.refuse(image.ErrUnsupported, "member %d is unknown", key)
		}
	})
	if err := d.done(); err != nil {
		return nil, err
	}
	switch {
	case version != manifestVersion:
		return nil, fmt.Errorf("reading manifest: version %d, want %d: %w", version, manifestVersion, image.ErrUnsupported)
	case !haveSequence || common == nil:
		return nil, fmt.Errorf("reading manifest: sequence number or common part is missing: %w", image.ErrMalformed)
	case len(e.severed) != 0: // severable took those it names
		return nil, fmt.Errorf("reading manifest: the envelope has a member that it does not name: %w", image.ErrMalformed)
	}
	if err := m.readCommands(common, seqs); err != nil {
		return nil, err
	}
	if b, ok := seqs[keyText]; ok {
		return m, m.readText(b)
	}
	return m, nil
}

// severable reads a member that is there itself or as a digest of a member of
// the envelope (draft section 8.6).
func (m *manifest) severable(d *decoder, e *envelope, key int64) []byte {
	if d.next() == majorBytes {
		return d.bytes()
	}
	g := d.digest()
	w, ok := e.severed[key]
	delete(e.severed, key)
	switch {
	case d.err != nil:
	case !ok:
		m.severed = append(m.severed, memberNames[key])
	case g.of(w.head, w.body) != g.sum:
		d.refuse(image.ErrBadDigest, "the severed member %s is not the one that is signed", memberNames[key])
	default:
		return w.body
	}
	return nil
}

// memberNames are the draft's, without suit-.
var memberNames = map[int64]string{
	keyPayloadFetch: "payload-fetch", keyInstall: "install", keyValidate: "validate",
	keyLoad: "load", keyInvoke: "invoke", keyText: "text",
}

// readCommands reads the common part and goes through every sequence after the
// shared one, as a device does.
func (m *manifest) readCommands(common []byte, seqs map[int64][]byte) error {
	d := newDecoder("common part", common)
	var shared []byte
	d.entries(func() {
		switch key := d.int(); key {
		case keyComponents:
			for range d.list(1, maxComponents) {
				m.components = append(m.components, componentID(d))
			}
		case keyShared:
			shared = d.bytes()
		default:
			d.refuse(image.ErrUnsupported, "member %d is unknown", key)
		}
	})
	if err := d.done(); err != nil {
		return err
	}
	if len(m.components) == 0 {
		return fmt.Errorf("reading common part: there are no components: %w", image.ErrMalformed)
	}
	r := &runner{m: m}
	start := []world{{comps: make([]state, len(m.components)), current: []int{0}}}
	if shared != nil {
		r.shared = true
		start = r.run("shared sequence", shared, start, 0)
		r.shared = false
	}
	// In the order in which a device runs them.
	for _, key := range []int64{keyPayloadFetch, keyInstall, keyValidate, keyLoad, keyInvoke} {
		if b, ok := seqs[key]; ok {
			m.sequences = append(m.sequences, memberNames[key])
			r.run(memberNames[key]+" sequence", b, start, 0)
		}
	}
	return r.err
}

// componentID returns a component identifier as text: its parts in hexadecimal
// between slashes.
func componentID(d *decoder) string {
	var parts []string
	for range d.list(1, maxComponents) {
		parts = append(parts, hex.EncodeToString(d.bytes()))
	}
	return strings.Join(parts, "/")
}

// readText reads the text map (draft section 8.4.4). Only a few of its values
// have a use here; the rest must be text and is passed over.
func (m *manifest) readText(b []byte) error {
	d := newDecoder("text", b)
	d.entries(func() {
		d.text(maxText) // the language
		d.entries(func() {
			if d.next() == majorArray {
				if id := componentID(d); d.err == nil && !slices.Contains(m.components, id) {
					d.fail("component %s is not one of the manifest", id)
				}
				d.entries(func() { m.textValue(d) })
				return
			}
			key := d.int()
			text := d.text(MaxEnvelope)
			switch {
			case key == textDescription && m.text.description == "":
				m.text.description = text
			case key < textDescription && key > textPrivateHighest, key > textYAML:
				d.refuse(image.ErrUnsupported, "text %d is unknown", key)
			}
		})
	})
	return d.done()
}

func (m *manifest) textValue(d *decoder) {
	key := d.int()
	text := d.text(MaxEnvelope)
	switch {
	case key == textVersion:
		m.text.versions = appendNew(m.text.versions, text)
	case key == textModelName:
		m.text.models = appendNew(m.text.models, text)
	case key < textVendorName && key > textPrivateHighest, key > textVersion:
		d.refuse(image.ErrUnsupported, "component text %d is unknown", key)
	}
}

func appendNew[T comparable](list []T, v T) []T {
	if slices.Contains(list, v) {
		return list
	}
	return append(list, v)
}

// id reads an identifier parameter. Vendors may also be private enterprise
// numbers (tag 112), which are not supported.
func (d *decoder) id() string {
	if d.next() == majorTag {
		d.refuse(image.ErrUnsupported, "a vendor id that is no UUID is not supported")
		return ""
	}
	b := d.bytes()
	id, err := uuid.FromBytes(b)
	if err != nil {
		d.fail("identifier has %d bytes, want 16", len(b))
		return ""
	}
	return id.String()
}
