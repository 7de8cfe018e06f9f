package suit

import (
	"crypto/sha256"
	"fmt"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/uuid"
)

// This file writes manifests. Verify reads them with its own code, in cbor.go.

// encMode is deterministic CBOR (RFC 8949, section 4.2.1).
var encMode = func() cbor.EncMode {
	m, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err) // options of the library itself
	}
	return m
}()

// encoder encodes item by item and remembers the first error.
type encoder struct{ err error }

func (e *encoder) encode(v any) []byte {
	b, err := encMode.Marshal(v)
	if err != nil && e.err == nil {
		e.err = fmt.Errorf("encoding CBOR: %w", err)
	}
	return b
}

// imageOf is the image that a manifest is made for.
type imageOf struct {
	sha256 [sha256.Size]byte
	size   int64
}

// member is a member of the envelope beside authentication and manifest.
type member struct {
	key  int64
	body []byte
}

// digestOf is the SUIT_Digest of b with SHA-256.
func digestOf(b []byte) []any {
	sum := sha256.Sum256(b)
	return []any{int64(algSHA256), sum[:]}
}

// manifest returns the manifest and the members severed from it.
func (e *encoder) manifest(s *settings, img imageOf) (manifest []byte, severed []member) {
	m := map[int64]any{
		keyVersion: manifestVersion, keySequence: s.sequence, keyCommon: e.common(s, img),
		keyValidate: e.encode([]any{condImageMatch, reportAll}),
	}
	// sever leaves the digest of a member behind (draft section 8.6): over the
	// byte string with its head.
	sever := func(key int64, body []byte) {
		m[key] = digestOf(e.encode(body))
		severed = append(severed, member{key, body})
	}
	install := e.encode([]any{
		dirOverride, map[int64]any{paramURI: s.URI}, dirFetch, reportFailure, condImageMatch, reportAll,
	})
	if s.SeverInstall {
		sever(keyInstall, install)
	} else {
		m[keyInstall] = install
	}
	if s.Invoke {
		m[keyInvoke] = e.encode([]any{dirInvoke, reportFailure})
	}
	if s.ReferenceURI != "" {
		m[keyReference] = s.ReferenceURI
	}
	if text := e.text(s); text != nil {
		sever(keyText, text)
	}
	return e.encode(m), severed
}

// common is the component and what it is compared with before anything else
// happens: the template of the draft for compatibility checks (section 7.1).
func (e *encoder) common(s *settings, img imageOf) []byte {
	params := map[int64]any{
		paramVendor: s.vendor[:],
		paramDigest: e.encode([]any{int64(algSHA256), img.sha256[:]}),
		paramSize:   img.size,
	}
	shared := []any{dirOverride, params, condVendor, reportAll}
	if len(s.classes) == 1 {
		params[paramClass] = s.classes[0][:]
		shared = append(shared, condClass, reportAll)
	} else {
		shared = append(shared, dirTryEach, e.oneOf(s.classes, paramClass, condClass))
	}
	switch len(s.devices) {
	case 0:
	case 1:
		params[paramDevice] = s.devices[0][:]
		shared = append(shared, condDevice, reportAll)
	default:
		shared = append(shared, dirTryEach, e.oneOf(s.devices, paramDevice, condDevice))
	}
	return e.encode(map[int64]any{
		keyComponents: []any{s.component},
		keyShared:     e.encode(shared),
	})
}

// oneOf is the argument of a try-each that goes on if one of ids fits.
func (e *encoder) oneOf(ids []uuid.UUID, param, cond int64) (branches [][]byte) {
	for _, id := range ids {
		branches = append(branches, e.encode([]any{dirOverride, map[int64]any{param: id[:]}, cond, reportAll}))
	}
	return branches
}

// text is the text member, or nil when there is nothing to say.
func (e *encoder) text(s *settings) []byte {
	languages := s.Text
	if len(languages) == 0 {
		languages = map[string]Text{defaultLanguage: {}}
	}
	out := map[string]any{}
	for lang, t := range languages {
		component := textMap{
			textVendorName: t.Vendor, textModelName: s.product, textVendorDomain: s.domain,
			textModelInfo: s.model, textComponent: t.Component, textVersion: s.version,
		}.some()
		m := map[any]any{}
		for k, v := range (textMap{textDescription: t.Manifest, textUpdate: t.Update}).some() {
			m[k] = v
		}
		if len(component) != 0 {
			// A map key that is an array: encoded already, as Go has no such key.
			m[rawKey(e.encode(s.component))] = component
		}
		if len(m) != 0 {
			out[lang] = m
		}
	}
	if len(out) == 0 {
		return nil
	}
	return e.encode(out)
}

// textMap are texts by number, empty ones included.
type textMap map[int64]string

func (t textMap) some() map[int64]string {
	out := map[int64]string{}
	for k, v := range t {
		if v != "" {
			out[k] = v
		}
	}
	return out
}

// rawKey is an encoded map key.
type rawKey string

// MarshalCBOR implements [cbor.Marshaler].
func (k rawKey) MarshalCBOR() ([]byte, error) { return []byte(k), nil }
