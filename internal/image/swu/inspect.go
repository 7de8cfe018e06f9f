package swu

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/writ-project/writ/internal/image"
	"github.com/writ-project/writ/internal/image/cms"
)

// Details is [image.Info.Details] of this format.
type Details struct {
	// Description is the text that the description has for people.
	Description string `json:"description,omitempty"`
	Language    string `json:"language"` // of the description: libconfig or json
	// Signature is the kind of signature: cms, rsa (which says nothing of its
	// padding), or nothing.
	Signature string `json:"signature,omitempty"`
	Files     []File `json:"files"`
	// EmbeddedScript says that the description has Lua that the device runs.
	EmbeddedScript bool `json:"embedded_script,omitempty"`
}

// File is a file that the description names.
type File struct {
	Name    string `json:"name"`
	Size    int64  `json:"size"` // bytes
	SHA256  string `json:"sha256"`
	Section string `json:"section"` // images, files or scripts
	Type    string `json:"type,omitempty"`
	// Encrypted says that the content is. Its digest is of what is stored.
	Encrypted bool `json:"encrypted,omitempty"`
}

// Inspect reports what the description says, and checks the digests of all
// files. Details of the result hold a [Details].
func (Format) Inspect(ctx context.Context, r io.ReaderAt, size int64) (image.Info, error) {
	o, err := open(ctx, r, size)
	if err == nil {
		err = o.stream(ctx)
	}
	var info image.Info
	if err == nil {
		info, err = o.info()
	}
	if err != nil {
		return image.Info{}, fmt.Errorf("inspecting swu image: %w", err)
	}
	return info, nil
}

// opened is an image whose structure and description are understood.
type opened struct {
	*archive
	*description
	r    io.ReaderAt
	size int64

	raw       []byte // sw-description
	signature []byte // sw-description.sig; nil without
	cms       *cms.SignedData

	file []byte // SHA-256 of the whole file, known after stream
}

func open(ctx context.Context, r io.ReaderAt, size int64) (*opened, error) {
	a, err := readArchive(ctx, r, size)
	if err != nil {
		return nil, err
	}
	o := &opened{archive: a, r: r, size: size}
	if len(a.entries) == 0 || a.entries[0].name != nameDescription {
		return nil, malformed("the first file of the archive is not %s", nameDescription)
	}
	if o.raw, err = o.content(a.entries[0], MaxDescription); err != nil {
		return nil, err
	}
	if len(a.entries) > 1 && a.entries[1].name == nameSignature {
		if o.signature, err = o.content(a.entries[1], maxSignature); err != nil {
			return nil, err
		}
		if isCMS(o.signature) {
			if o.cms, err = cms.Parse(o.signature); err != nil {
				return nil, err
			}
		}
	}
	if o.description, err = readDescription(o.raw); err != nil {
		return nil, err
	}
	return o, o.match()
}

// content reads a small file.
func (o *opened) content(e entry, limit int64) ([]byte, error) {
	if e.size == 0 || e.size > limit {
		return nil, fmt.Errorf("file %q has %d bytes, want 1 to %d: %w", e.name, e.size, limit, image.ErrTooLarge)
	}
	b := make([]byte, e.size)
	return b, image.ReadAt(o.r, b, e.off)
}

// isCMS tells CMS from a bare RSA signature, which is random bytes: the outer
// SEQUENCE has the right length, and the type of a SignedData follows.
func isCMS(sig []byte) bool {
	oid := []byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02}
	return len(sig) > 2 && sig[0] == 0x30 && bytes.Contains(sig[:min(len(sig), 20)], oid)
}

// match holds the archive against the description: what a description does not
// name, nothing signs, and what it names must be there.
func (o *opened) match() error {
	files := o.payload()
	for _, e := range files {
		if o.reference(e.name) == nil {
			return malformed("file %q is in the archive and not in the description, so nothing signs it", e.name)
		}
	}
	if len(files) != len(o.files) {
		for _, ref := range o.files {
			if o.find(ref.name) == nil {
				return malformed("file %q is in the description and not in the archive", ref.name)
			}
		}
	}
	return nil
}

// payload returns the files after description and signature.
func (o *opened) payload() []entry {
	if o.signature != nil {
		return o.entries[2:]
	}
	return o.entries[1:]
}

func (o *opened) reference(name string) *reference {
	for i := range o.files {
		if o.files[i].name == name {
			return &o.files[i]
		}
	}
	return nil
}

func (o *opened) find(name string) *entry {
	for i := range o.entries {
		if o.entries[i].name == name {
			return &o.entries[i]
		}
	}
	return nil
}

// stream checks checksums and digests. The digest of the whole file is computed
// beside, in a pass of its own over what is in memory by then: in one pass, the
// two digests of every byte would take twice as long.
func (o *opened) stream(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		file := sha256.New()
		if _, err := io.Copy(file, image.Section(ctx, o.r, 0, o.size)); err != nil {
			return fmt.Errorf("hashing archive: %w", err)
		}
		o.file = file.Sum(nil)
		return nil
	})
	g.Go(func() error {
		for _, e := range o.entries {
			if err := o.check(ctx, e); err != nil {
				return err
			}
		}
		return nil
	})
	return g.Wait()
}

// check reads one file.
func (o *opened) check(ctx context.Context, e entry) error {
	var sum adder
	digest := sha256.New()
	to := io.Writer(digest)
	if e.checked {
		to = io.MultiWriter(digest, &sum)
	}
	if _, err := io.Copy(to, image.Section(ctx, o.r, e.off, e.size)); err != nil {
		return fmt.Errorf("hashing file %q: %w", e.name, err)
	}
	ref := o.reference(e.name)
	if got := digest.Sum(nil); ref != nil && !bytes.Equal(got, ref.sha256) {
		return fmt.Errorf("file %q has sha256 %x, the description says %x: %w", e.name, got, ref.sha256, image.ErrBadDigest)
	}
	if e.checked && sum.total() != e.sum {
		return fmt.Errorf("file %q has checksum %08x, the archive says %08x: %w", e.name, sum.total(), e.sum, image.ErrBadDigest)
	}
	return nil
}

// adder adds up bytes, which is what cpio calls a CRC.
type adder struct{ even, odd uint64 }

// Write never fails.
func (a *adder) Write(p []byte) (int, error) {
	n := len(p)
	const mask = 0x00ff00ff00ff00ff
	for len(p) >= 8 {
		// Four sums of 16 bits each; 128 words of two bytes cannot overflow one.
		var sums uint64
		for i := 0; i < 128 && len(p) >= 8; i++ {
			x := uint64(p[0]) | uint64(p[1])<<8 | uint64(p[2])<<16 | uint64(p[3])<<24 |
				uint64(p[4])<<32 | uint64(p[5])<<40 | uint64(p[6])<<48 | uint64(p[7])<<56
			sums += x&mask + x>>8&mask
			p = p[8:]
		}
		a.even += sums&0xffff + sums>>32&0xffff
		a.odd += sums>>16&0xffff + sums>>48
	}
	for _, b := range p {
		a.even += uint64(b)
	}
	return n, nil
}

func (a *adder) total() uint32 { return uint32(a.even + a.odd) } //nolint:gosec // G115: the sum is defined modulo 2^32

func (o *opened) info() (image.Info, error) {
	details := Details{Description: o.text, Language: o.language, Files: []File{}, EmbeddedScript: o.script}
	sum := sha256.Sum256(o.raw)
	info := image.Info{
		Format:   Format{}.Name(),
		Version:  o.version,
		Hardware: o.hardware,
		Digests: []image.Digest{
			{Scope: image.ScopeFile, Algorithm: "sha256", Hex: hex.EncodeToString(o.file)},
			{Scope: image.ScopeImage, Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])},
		},
		Size:    o.size,
		Padding: o.padding,
	}
	switch {
	case o.cms != nil:
		details.Signature, info.Signatures = signCMS, o.cms.Signatures()
	case o.signature != nil:
		details.Signature = signRSA
		info.Signatures = []image.SignatureInfo{{Algorithm: fmt.Sprintf("rsa%d-sha256", 8*len(o.signature))}}
	}
	for _, ref := range o.files {
		details.Files = append(details.Files, File{
			Name: ref.name, Size: o.find(ref.name).size, SHA256: hex.EncodeToString(ref.sha256),
			Section: ref.section, Type: ref.typ, Encrypted: ref.encrypted,
		})
	}
	var err error
	info.Details, err = json.Marshal(details)
	return info, err
}
