package signer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/image"
)

// maxDocument bounds a manifest in bytes.
const maxDocument = 1 << 20

// ApprovalEvidence is what shows that people approved a document.
type ApprovalEvidence struct {
	Document  []byte              `json:"document"` // the exact bytes approved: a fw.Manifest
	Approvals []approval.Approval `json:"approvals"`
	Roster    []byte              `json:"roster"` // DSSE envelope; see Signer.AdoptRoster for which versions are taken
	Need      int                 `json:"need"`   // at least Options.MinApprovals
	Proposer  fw.PersonID         `json:"proposer"`
}

// ImageRequest asks for one image of an approved release to be signed. The
// permit's subject is the image's input digest.
type ImageRequest struct {
	Evidence  ApprovalEvidence
	Component fw.ComponentName
	Format    image.Format
	Input     io.ReaderAt
	Output    io.Writer // what was written before an error is worthless

	// Options is for what no manifest says. Version, SecurityCounter, Product,
	// Hardware and Layout must be zero: they are taken from the manifest.
	Options image.SignOptions
	At      time.Time
}

// SignImage signs an image after checking for itself that the permit, the
// manifest, the approvals and the bytes agree.
func (s *Signer) SignImage(ctx context.Context, p *Permit, req ImageRequest) (image.SignResult, error) {
	grant, k, err := s.redeem(p, fw.PurposeImage)
	if err != nil {
		return image.SignResult{}, err
	}
	manifest, quorum, err := s.checkApprovals(req.Evidence, req.At)
	if err != nil {
		return image.SignResult{}, err
	}
	if req.Format == nil || req.Input == nil || req.Output == nil {
		return image.SignResult{}, fw.Errorf(fw.Invalid, "a request to sign an image names its format, input and output")
	}
	c, err := checkComponent(manifest, req.Component, grant)
	if err != nil {
		return image.SignResult{}, err
	}
	if c.Format != req.Format.Name() {
		return image.SignResult{}, fw.Errorf(fw.Forbidden, "the approved manifest names format %q, not %q", c.Format, req.Format.Name())
	}
	opt := req.Options
	if opt.Version != "" || opt.SecurityCounter != nil || opt.Product != "" || opt.Hardware != nil || opt.Vendor != "" || opt.Layout != nil {
		return image.SignResult{}, fw.Errorf(fw.Invalid, "version, security counter, product, hardware, vendor and layout of an image come from its manifest")
	}
	opt.Version, opt.SecurityCounter, opt.Product, opt.Layout = manifest.Version, &c.SecurityCounter, string(manifest.Product), c.Layout
	opt.Vendor = c.Vendor
	for _, h := range manifest.Hardware {
		opt.Hardware = append(opt.Hardware, string(h))
	}
	input, err := pin(ctx, req.Input, c.InputSize)
	if err != nil {
		return image.SignResult{}, err
	}
	if input.digest != c.InputDigest {
		return image.SignResult{}, fw.Errorf(fw.Forbidden, "the image of component %s has digest %s and %s was approved", c.Name, input.digest, c.InputDigest)
	}
	if err := s.record(p, req.At); err != nil {
		return image.SignResult{}, err
	}
	res, err := ImageKey{k}.sign(ctx, req, input, opt)
	if err != nil {
		return image.SignResult{}, err
	}
	return res, s.journal.Append(Entry{
		Kind: EntrySigned, At: req.At.Unix(), Permit: p.id, Purpose: grant.Purpose, Key: grant.Key, Subject: grant.Subject, Evidence: grant.Evidence,
		Output: res.SHA256, Document: fw.DigestOf(req.Evidence.Document), Component: c.Name, KeyID: k.info.KeyID, Algorithm: k.info.Algorithm,
		Custody: s.custodyOf(k.info), Approvals: quorum.Counted, Provenance: manifest.Provenance, By: grant.By,
	})
}

// signatures is how many signatures an image takes, where it is not one:
// minisign signs the file, and that signature with the comment.
var signatures = map[string]int{"minisign": 2}

// sign runs the format's encoder with a key that lasts as long as the call.
func (k ImageKey) sign(ctx context.Context, req ImageRequest, input *pinned, opt image.SignOptions) (image.SignResult, error) {
	lent := &scoped{key: k.k.key, most: signatures[req.Format.Name()]}
	res, err := req.Format.Sign(ctx, req.Output, input, input.size, lent, opt)
	used := lent.close()
	if err != nil {
		return image.SignResult{}, fw.Wrap(fw.Invalid, err, "the image cannot be signed as %s", req.Format.Name())
	}
	if !used || res.KeyID != k.k.info.KeyID {
		return image.SignResult{}, fw.Errorf(fw.Internal, "the %s encoder returned an image that key %q did not sign", req.Format.Name(), k.k.info.Name)
	}
	return res, nil
}

// checkApprovals returns the manifest in e, and who approved it, if enough
// people did.
func (s *Signer) checkApprovals(e ApprovalEvidence, at time.Time) (fw.Manifest, approval.Result, error) {
	var none approval.Result
	roster, err := s.openRoster(e.Roster)
	if err != nil {
		return fw.Manifest{}, none, err
	}
	if err := s.adopt(roster, at); err != nil {
		return fw.Manifest{}, none, err
	}
	if e.Need < s.opt.MinApprovals {
		return fw.Manifest{}, none, fw.Errorf(fw.Forbidden, "this signer needs at least %d approvals and was asked to accept %d", s.opt.MinApprovals, e.Need)
	}
	manifest, err := parseManifest(e.Document)
	if err != nil {
		return fw.Manifest{}, none, err
	}
	if manifest.ProposedBy != e.Proposer {
		return fw.Manifest{}, none, fw.Errorf(fw.Forbidden, "the manifest was proposed by %q, not %q", manifest.ProposedBy, e.Proposer)
	}
	res := approval.Quorum(e.Document, e.Approvals, roster, e.Need, manifest.ProposedBy)
	if res.Met() {
		return manifest, res, nil
	}
	var why strings.Builder
	for _, r := range res.Rejected {
		fmt.Fprintf(&why, "; %s: %s", r.Person, r.Reason)
	}
	return fw.Manifest{}, none, fw.Errorf(fw.Forbidden, "%d of %d needed approvals%s", len(res.Counted), res.Need, why.String())
}

func parseManifest(b []byte) (fw.Manifest, error) {
	var m fw.Manifest
	if len(b) > maxDocument {
		return m, fw.Errorf(fw.TooLarge, "manifest is %d bytes, over the limit of %d", len(b), maxDocument)
	}
	if err := dsse.Decode(b, &m); err != nil {
		return m, fw.Wrap(fw.Invalid, err, "malformed manifest")
	}
	if m.Type != fw.TypeManifest {
		return m, fw.Errorf(fw.Invalid, "what was approved has type %q, not %q", m.Type, fw.TypeManifest)
	}
	return m, nil
}

// checkComponent finds the one component of m that grant means.
func checkComponent(m fw.Manifest, name fw.ComponentName, grant Grant) (fw.ManifestComponent, error) {
	match := func(c fw.ManifestComponent) bool { return c.Name == name }
	i := slices.IndexFunc(m.Components, match)
	if i < 0 || slices.ContainsFunc(m.Components[i+1:], match) {
		return fw.ManifestComponent{}, fw.Errorf(fw.Forbidden, "the approved manifest does not have exactly one component %q", name)
	}
	c := m.Components[i]
	switch {
	case c.InputDigest != grant.Subject:
		return c, fw.Errorf(fw.Forbidden, "the permit is for image %s and the approved manifest names %s", grant.Subject, c.InputDigest)
	case c.Key != grant.Key:
		return c, fw.Errorf(fw.Forbidden, "the permit is for key %q and the approved manifest names %q", grant.Key, c.Key)
	case c.InputSize <= 0:
		return c, fw.Errorf(fw.Invalid, "the approved manifest gives component %s a size of %d", c.Name, c.InputSize)
	}
	return c, nil
}

// recordOutput journals what came of p. The key has been used by then, so this
// failing is reported, but the line is not forced to disk by itself.
func (s *Signer) recordOutput(p *Permit, output fw.Digest, at time.Time) error {
	return s.journal.Append(Entry{Kind: EntrySigned, At: at.Unix(), Permit: p.id, Key: p.grant.Key, Evidence: p.grant.Evidence, Output: output})
}

// chunk is the unit in which a pinned input is checked, in bytes.
const chunk = 64 << 10

// pinned is an input that cannot change between the check and the use: it
// remembers the digest of each chunk from the first pass and checks every
// chunk it serves afterwards. It costs 32 bytes of memory per 64 KiB.
type pinned struct {
	r      io.ReaderAt
	size   int64
	digest fw.Digest
	chunks []fw.Digest
}

func pin(ctx context.Context, r io.ReaderAt, size int64) (*pinned, error) {
	p := &pinned{r: r, size: size}
	whole := sha256.New()
	buf := make([]byte, chunk)
	for off := int64(0); off < size; off += chunk {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b := buf[:min(chunk, size-off)]
		if n, err := r.ReadAt(b, off); n < len(b) {
			return nil, fw.Wrap(fw.Forbidden, err, "the image is shorter than the %d bytes that were approved", size)
		}
		whole.Write(b)
		p.chunks = append(p.chunks, fw.DigestOf(b))
	}
	// One byte more than was approved is another file.
	if n, _ := r.ReadAt(buf[:1], size); n > 0 {
		return nil, fw.Errorf(fw.Forbidden, "the image is longer than the %d bytes that were approved", size)
	}
	whole.Sum(p.digest[:0])
	return p, nil
}

// ReadAt implements io.ReaderAt. It is safe for concurrent use.
func (p *pinned) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	n := 0
	buf := make([]byte, chunk)
	for n < len(b) && off < p.size {
		i := off / chunk
		c := buf[:min(chunk, p.size-i*chunk)]
		if m, err := p.r.ReadAt(c, i*chunk); m < len(c) {
			return n, err
		}
		if fw.DigestOf(c) != p.chunks[i] {
			return n, errors.New("the image changed while it was being signed")
		}
		m := copy(b[n:], c[off-i*chunk:])
		n, off = n+m, off+int64(m)
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}
