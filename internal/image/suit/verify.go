package suit

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"slices"

	"github.com/writ-project/writ/internal/image"
)

// Details is what Inspect and Verify put into [image.Info.Details] of an
// envelope.
type Details struct {
	Draft          string `json:"draft"`
	SequenceNumber uint64 `json:"sequence_number"`
	// ManifestDigest is what is signed.
	ManifestDigest image.Digest `json:"manifest_digest"`
	// Components are the identifiers, their parts in hexadecimal between slashes.
	Components []string `json:"components"`
	// Images are those that the manifest installs or checks, on whatever device.
	Images []ImageDetails `json:"images"`
	// VendorIDs and DeviceIDs are the identifiers (UUIDs) that the manifest
	// checks, beside the class ids, which are image.Info.Hardware.
	VendorIDs []string `json:"vendor_ids,omitempty"`
	DeviceIDs []string `json:"device_ids,omitempty"`
	// Sequences are the command sequences, Severed the members that are not
	// there but their digests.
	Sequences    []string `json:"sequences"`
	Severed      []string `json:"severed,omitempty"`
	ReferenceURI string   `json:"reference_uri,omitempty"`
	Description  string   `json:"description,omitempty"`
}

// ImageDetails is one image that a manifest names.
type ImageDetails struct {
	Component string `json:"component"`
	// Slot is where the component must be for this image; nil is anywhere.
	Slot   *uint64      `json:"slot,omitempty"`
	Digest image.Digest `json:"digest"`
	Size   *uint64      `json:"size,omitempty"`
	URIs   []string     `json:"uris,omitempty"`
	// Integrated says that the image is in the envelope.
	Integrated bool `json:"integrated,omitempty"`
}

// parsed is an envelope whose digests, but not whose signatures, were checked.
type parsed struct {
	*manifest
	env  *envelope
	auth authentication
}

// Inspect reports what an envelope claims. Of a file that is no envelope it
// reports size and digest: it may be the image of a detached one.
func (f Format) Inspect(ctx context.Context, r io.ReaderAt, size int64) (image.Info, error) {
	info, err := f.inspect(ctx, r, size)
	if err != nil {
		return image.Info{}, fmt.Errorf("inspecting SUIT image: %w", err)
	}
	return info, nil
}

func (f Format) inspect(ctx context.Context, r io.ReaderAt, size int64) (image.Info, error) {
	if err := checkSize(size); err != nil {
		return image.Info{}, err
	}
	prefix := make([]byte, min(size, 4))
	if err := image.ReadAt(r, prefix, 0); err != nil {
		return image.Info{}, err
	}
	file, err := hashSection(ctx, r, digest{hash: crypto.SHA256}, 0, size)
	if err != nil {
		return image.Info{}, err
	}
	if !f.Detect(prefix) {
		info := image.Info{Format: f.Name(), Size: size}
		info.Digests = []image.Digest{asDigest(image.ScopeFile, file), asDigest(image.ScopeImage, file)}
		return info, nil
	}
	e, a, err := openEnvelope(r, size)
	if err != nil {
		return image.Info{}, err
	}
	p, err := parse(e, a)
	if err != nil {
		return image.Info{}, err
	}
	if err := p.checkPayloads(ctx, r); err != nil {
		return image.Info{}, err
	}
	return p.info(size, file)
}

func checkSize(size int64) error {
	switch {
	case size <= 0:
		return fmt.Errorf("it is empty: %w", image.ErrTruncated)
	case size > MaxSize:
		return fmt.Errorf("%d bytes are over the limit of %d: %w", size, int64(MaxSize), image.ErrTooLarge)
	}
	return nil
}

func hashSection(ctx context.Context, r io.ReaderAt, g digest, off, n int64) (digest, error) {
	h := g.new()
	if _, err := io.Copy(h, image.Section(ctx, r, off, n)); err != nil {
		return digest{}, fmt.Errorf("hashing: %w", err)
	}
	return digest{g.hash, string(h.Sum(nil))}, nil
}

func asDigest(scope string, g digest) image.Digest {
	return image.Digest{Scope: scope, Algorithm: g.name(), Hex: hex.EncodeToString([]byte(g.sum))}
}

// openEnvelope reads the outside of an envelope: what is needed to check its
// signatures.
func openEnvelope(r io.ReaderAt, size int64) (*envelope, authentication, error) {
	e, err := readEnvelope(r, size)
	if err != nil {
		return nil, authentication{}, err
	}
	a, err := readAuthentication(e.authentication)
	if err != nil {
		return nil, authentication{}, err
	}
	if got := a.manifest.of(e.manifest.head, e.manifest.body); got != a.manifest.sum {
		return nil, authentication{}, fmt.Errorf("checking manifest: its digest is %x, the one signed is %x: %w", got, a.manifest.sum, image.ErrBadDigest)
	}
	return e, a, nil
}

func parse(e *envelope, a authentication) (*parsed, error) {
	m, err := readManifest(e)
	if err != nil {
		return nil, err
	}
	return &parsed{m, e, a}, nil
}

// checkPayloads compares every integrated payload with the manifest. One that
// the manifest does not name is refused: it is not under the signature.
func (p *parsed) checkPayloads(ctx context.Context, r io.ReaderAt) error {
	for _, pl := range p.env.payloads {
		named := false
		for _, ref := range p.images {
			if !slices.Contains(ref.uris, pl.name) {
				continue
			}
			got, err := hashSection(ctx, r, ref.digest, pl.off, pl.size)
			if err == nil {
				err = ref.check(got, pl.size)
			}
			if err != nil {
				return fmt.Errorf("checking payload %.60q: %w", pl.name, err)
			}
			named = true
		}
		if !named {
			return fmt.Errorf("checking payload %.60q: the manifest does not say what it is: %w", pl.name, image.ErrMalformed)
		}
	}
	return nil
}

// check compares n bytes whose digest is got with the image that ref means.
func (ref imageRef) check(got digest, n int64) error {
	switch {
	case ref.size != nil && *ref.size != uint64(n): //nolint:gosec // G115: n >= 0
		return fmt.Errorf("it has %d bytes, the manifest says %d: %w", n, *ref.size, image.ErrBadDigest)
	case got != ref.digest:
		return fmt.Errorf("its %s is %x, the manifest says %x: %w", got.name(), got.sum, ref.digest.sum, image.ErrBadDigest)
	}
	return nil
}

// single returns the one image of the manifest, which may be named for several
// components or slots, or false when there is none or a choice.
func (p *parsed) single() (imageRef, bool) {
	for _, ref := range p.images {
		if ref.digest != p.images[0].digest || !same(ref.size, p.images[0].size) {
			return imageRef{}, false
		}
	}
	if len(p.images) == 0 {
		return imageRef{}, false
	}
	return p.images[0], true
}

// info describes the envelope. file is the digest of all that was given.
func (p *parsed) info(size int64, file digest) (image.Info, error) {
	info := image.Info{
		Format: Format{}.Name(), Size: size,
		SecurityCounter: &p.sequence, Hardware: p.classes,
		Digests: []image.Digest{asDigest(image.ScopeFile, file)},
	}
	if ref, ok := p.single(); ok {
		info.Digests = append(info.Digests, asDigest(image.ScopeImage, ref.digest))
	}
	if len(p.vendors) == 1 {
		info.Vendor = p.vendors[0]
	}
	if len(p.text.versions) == 1 {
		info.Version = p.text.versions[0]
	}
	if len(p.text.models) == 1 {
		info.Product = p.text.models[0]
	}
	for _, b := range p.auth.blocks {
		info.Signatures = append(info.Signatures, image.SignatureInfo{Algorithm: b.name(), KeyID: hex.EncodeToString(b.kid)})
	}
	d := Details{
		Draft: Draft, SequenceNumber: p.sequence, ManifestDigest: asDigest("manifest", p.auth.manifest),
		Components: p.components, Images: []ImageDetails{}, VendorIDs: p.vendors, DeviceIDs: p.devices,
		Sequences: append([]string{}, p.sequences...),
		Severed:   p.severed, ReferenceURI: p.reference, Description: p.text.description,
	}
	for _, ref := range p.images {
		d.Images = append(d.Images, ImageDetails{
			Component: p.components[ref.component], Slot: ref.slot, Digest: asDigest(image.ScopeImage, ref.digest),
			Size: ref.size, URIs: ref.uris,
			Integrated: slices.ContainsFunc(p.env.payloads, func(pl payload) bool { return slices.Contains(ref.uris, pl.name) }),
		})
	}
	var err error
	if info.Details, err = json.Marshal(d); err != nil {
		return image.Info{}, fmt.Errorf("encoding details: %w", err)
	}
	return info, nil
}

// name is that of [image.SignatureInfo] and [image.Verified].
func (b block) name() string {
	switch b.alg {
	case algES256, algESP256:
		return image.AlgECDSAP256
	case algEdDSA, algEd25519:
		return image.AlgEd25519
	default:
		return fmt.Sprintf("cose %d", b.alg)
	}
}

// Verify checks an envelope against keys, of which it takes ECDSA P-256 and
// Ed25519. When envelope is not empty, r is the image that it describes, and the
// envelope must name no other. Otherwise r is the envelope itself.
func (f Format) Verify(ctx context.Context, r io.ReaderAt, size int64, envelope []byte, keys []crypto.PublicKey) (image.Verified, error) {
	v, err := verify(ctx, r, size, envelope, keys)
	if err != nil {
		return image.Verified{}, fmt.Errorf("verifying SUIT image: %w", err)
	}
	return v, nil
}

func verify(ctx context.Context, r io.ReaderAt, size int64, detached []byte, keys []crypto.PublicKey) (image.Verified, error) {
	if err := checkSize(size); err != nil {
		return image.Verified{}, err
	}
	env, envSize := r, size
	if len(detached) != 0 {
		if len(detached) > MaxEnvelope {
			return image.Verified{}, fmt.Errorf("reading envelope: %d bytes are over the limit of %d: %w", len(detached), MaxEnvelope, image.ErrTooLarge)
		}
		env, envSize = sliceReader(detached), int64(len(detached))
	}
	e, a, err := openEnvelope(env, envSize)
	if err != nil {
		return image.Verified{}, err
	}
	v, err := a.check(keys)
	if err != nil {
		return image.Verified{}, err
	}
	// From here on the manifest is the key holder's word.
	p, err := parse(e, a)
	if err != nil {
		return image.Verified{}, err
	}
	file, err := hashSection(ctx, r, digest{hash: crypto.SHA256}, 0, size)
	if err != nil {
		return image.Verified{}, err
	}
	if len(detached) != 0 {
		err = p.checkDetached(ctx, r, size, file)
	} else {
		err = p.checkPayloads(ctx, r)
	}
	if err != nil {
		return image.Verified{}, err
	}
	v.Info, err = p.info(size, file)
	return v, err
}

// checkDetached compares the image, whose SHA-256 is file, with the manifest.
func (p *parsed) checkDetached(ctx context.Context, r io.ReaderAt, size int64, file digest) error {
	if len(p.env.payloads) != 0 {
		return fmt.Errorf("checking image: the envelope has one of its own: %w", image.ErrMalformed)
	}
	ref, ok := p.single()
	if !ok {
		return fmt.Errorf("checking image: the manifest names %d, and only one beside its envelope can be checked: %w", len(p.images), image.ErrUnsupported)
	}
	got, err := file, error(nil)
	if ref.digest.hash != crypto.SHA256 {
		got, err = hashSection(ctx, r, ref.digest, 0, size)
	}
	if err == nil {
		err = ref.check(got, size)
	}
	if err != nil {
		return fmt.Errorf("checking image: %w", err)
	}
	return nil
}

type sliceReader []byte

// ReadAt implements [io.ReaderAt].
func (b sliceReader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > int64(len(b)) {
		return 0, io.EOF
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// check looks for a signature by one of keys. A signature whose kid is the id of
// a given key must be good; without a kid every key is tried.
func (a authentication) check(keys []crypto.PublicKey) (image.Verified, error) {
	var v image.Verified
	for _, b := range a.blocks {
		for _, key := range keys {
			id, ok := idOf(key)
			if !ok {
				continue
			}
			named := string(b.kid) == string(id)
			if len(b.kid) == len(id) && !named {
				continue // it names another key
			}
			switch good := b.verify(key, a.signed); {
			case good && v.Key == nil:
				v.Key, v.KeyID, v.Algorithm = key, hex.EncodeToString(id), b.name()
			case !good && named:
				return image.Verified{}, fmt.Errorf("checking signature by key %x: %w", id, image.ErrBadSignature)
			}
		}
	}
	if v.Key == nil {
		return image.Verified{}, fmt.Errorf("none of %d signatures is by one of %d given keys: %w", len(a.blocks), len(keys), image.ErrUnknownKey)
	}
	return v, nil
}

// idOf returns the SHA-256 of the SubjectPublicKeyInfo of a key that can have
// signed an envelope.
func idOf(key crypto.PublicKey) ([]byte, bool) {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k == nil || k.Curve != elliptic.P256() {
			return nil, false
		}
	case ed25519.PublicKey:
		if len(k) != ed25519.PublicKeySize {
			return nil, false
		}
	default:
		return nil, false
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, false
	}
	sum := sha256.Sum256(der)
	return sum[:], true
}

// verify checks the signature over payload, which is detached.
func (b block) verify(key crypto.PublicKey, payload []byte) bool {
	if len(b.signature) != 64 {
		return false
	}
	tbs := toBeSigned(b.protected, payload)
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if b.alg != algES256 && b.alg != algESP256 {
			return false
		}
		sum := sha256.Sum256(tbs)
		// r and s side by side (RFC 9053, section 2.1).
		r, s := new(big.Int).SetBytes(b.signature[:32]), new(big.Int).SetBytes(b.signature[32:])
		return ecdsa.Verify(k, sum[:], r, s)
	case ed25519.PublicKey:
		return (b.alg == algEdDSA || b.alg == algEd25519) && ed25519.Verify(k, tbs, b.signature)
	default:
		return false
	}
}

// toBeSigned is the Sig_structure of RFC 9052, section 4.4:
// ["Signature1", protected, h”, payload].
func toBeSigned(protected, payload []byte) []byte {
	out := append([]byte{majorArray<<5 | 4, majorText<<5 | 10}, "Signature1"...)
	out = appendString(out, protected)
	out = append(out, majorBytes<<5)
	return appendString(out, payload)
}

// appendString appends a byte string of less than 64 KiB.
func appendString(out, b []byte) []byte {
	switch n := len(b); {
	case n < 24:
		out = append(out, majorBytes<<5|byte(n))
	case n < 1<<8:
		out = append(out, majorBytes<<5|24, byte(n))
	default:
		out = append(out, majorBytes<<5|25, byte(n>>8), byte(n)) //nolint:gosec // G115: below MaxEnvelope
	}
	return append(out, b...)
}
