package rauc

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/image"
	"github.com/writ-project/writ/internal/image/cms"
)

// layout is the format's own part of [image.SignOptions].
type layout struct {
	PSS         bool        `json:"pss"`
	Purpose     cms.Purpose `json:"purpose"`
	SigningTime time.Time   `json:"signing_time"`
}

func parseLayout(raw json.RawMessage) (layout, error) {
	var l layout
	if len(raw) == 0 {
		return l, nil
	}
	if err := dsse.Decode(raw, &l); err != nil {
		return l, fmt.Errorf("reading layout options: %w: %w", err, image.ErrBadOptions)
	}
	return l, nil
}

// Sign replaces the signature of a plain or verity bundle, or adds one to a
// squashfs with a plain manifest. The key is RSA, ECDSA P-256 or P-384. See the
// package comment for what the options must agree with. Crypt bundles are
// [image.ErrUnsupported].
func (Format) Sign(ctx context.Context, w io.Writer, r io.ReaderAt, size int64, key crypto.Signer, opt image.SignOptions) (image.SignResult, error) {
	res, err := sign(ctx, w, r, size, key, opt)
	if err != nil {
		return image.SignResult{}, fmt.Errorf("signing RAUC bundle: %w", err)
	}
	return res, nil
}

func sign(ctx context.Context, w io.Writer, r io.ReaderAt, size int64, key crypto.Signer, opt image.SignOptions) (image.SignResult, error) {
	if err := ctx.Err(); err != nil {
		return image.SignResult{}, err
	}
	h, err := cms.Hash(key.Public())
	if err != nil {
		return image.SignResult{}, err
	}
	keyID, err := image.KeyID(key.Public())
	if err != nil {
		return image.SignResult{}, err
	}
	l, err := parseLayout(opt.Layout)
	if err != nil {
		return image.SignResult{}, err
	}
	if len(opt.Certificates) == 0 { // before gigabytes are hashed for nothing
		return image.SignResult{}, badOptions("a bundle is signed with a certificate: register the key with one")
	}
	in, err := takeApart(r, size)
	if err != nil {
		return image.SignResult{}, err
	}
	if err := agree(in.m, opt); err != nil {
		return image.SignResult{}, err
	}
	if opt.SlotSize != 0 && size > opt.SlotSize {
		return image.SignResult{}, fmt.Errorf("%d bytes do not fit a slot of %d: %w", size, opt.SlotSize, image.ErrTooLarge)
	}

	file := sha256.New()
	content := file // what a detached signature is over, so far
	if h != crypto.SHA256 {
		content = h.New()
	}
	out := &counter{w: w, hashes: []hash.Hash{file}}
	cmsOpt := cms.Options{Chain: opt.Certificates, PSS: l.PSS, Purpose: l.Purpose, Time: l.SigningTime}
	var der []byte
	res := image.SignResult{KeyID: keyID, Image: image.Digest{Scope: image.ScopeImage, Algorithm: "sha256"}}
	if in.tree != nil {
		if err := in.copyVerity(ctx, out, r); err != nil {
			return image.SignResult{}, err
		}
		res.Image.Hex = hex.EncodeToString(in.tree.root)
		der, err = cms.SignContent(key, in.manifest, cmsOpt)
	} else {
		if content != file {
			out.hashes = append(out.hashes, content)
		}
		if err := in.copyPlain(ctx, out, r); err != nil {
			return image.SignResult{}, err
		}
		res.Image.Hex = hex.EncodeToString(file.Sum(nil))
		der, err = cms.SignDigest(key, content.Sum(nil), cmsOpt)
	}
	if err != nil {
		return image.SignResult{}, err
	}
	der = binary.BigEndian.AppendUint64(der, uint64(len(der)))
	if _, err := out.Write(der); err != nil {
		return image.SignResult{}, fmt.Errorf("writing signature: %w", err)
	}
	res.Size, res.SHA256 = out.n, [sha256.Size]byte(file.Sum(nil))
	return res, nil
}

// input is a bundle to be signed, its old signature gone.
type input struct {
	body     int64 // bytes before the old signature
	manifest []byte
	m        manifest
	tree     *tree
}

// takeApart reads the manifest and forgets the signature, which may be by
// anybody or broken.
func takeApart(r io.ReaderAt, size int64) (*input, error) {
	in := &input{body: size}
	if size < trailerSize || size > MaxSize {
		return in, fmt.Errorf("%d bytes are no bundle, want %d to %d: %w", size, trailerSize, int64(MaxSize), image.ErrMalformed)
	}
	s, squashErr := openSquash(r, size)
	if squashErr == nil && s.fills(size) {
		return in, in.readSquash(s)
	}
	tail := make([]byte, min(size, MaxCMS+trailerSize))
	if err := image.ReadAt(r, tail, size-int64(len(tail))); err != nil {
		return in, fmt.Errorf("reading end of file: %w", err)
	}
	tail, end := tail[:len(tail)-trailerSize], tail[len(tail)-trailerSize:]
	n, ok := offset(binary.BigEndian.Uint64(end), int64(len(tail)))
	if !ok || n == 0 {
		return in, malformed("the file is neither a squashfs alone nor one with a signature: its last 8 bytes are %x", end)
	}
	in.body -= trailerSize + n
	old := tail[int64(len(tail))-n:]
	if contentType(old).Equal(oidEnvelopedData) {
		return in, errCrypt
	}
	text, detached := cms.Content(old)
	if detached != nil {
		if squashErr != nil {
			return in, squashErr
		}
		if !s.fills(in.body) { // so it is no plain bundle whose signature cannot be read
			return in, detached
		}
		return in, in.readSquash(s)
	}
	var err error
	if in.m, err = readManifest(text); err != nil {
		return in, err
	}
	switch in.m.format {
	case formatCrypt:
		return in, errCrypt
	case formatVerity:
	default:
		return in, malformed("the manifest says format %s, and the signature encloses it as in format verity", in.m.format)
	}
	in.manifest = text
	in.tree = &tree{data: in.body - in.m.treeSize, size: in.m.treeSize, root: in.m.root, salt: in.m.salt}
	if squashErr != nil {
		return in, squashErr
	}
	if !s.fills(in.tree.data) {
		return in, malformed("the squashfs has %d bytes, and %d are before the hash tree", s.size, in.tree.data)
	}
	return in, nil
}

var errCrypt = fmt.Errorf("a crypt bundle hides from its signer what it does: sign the verity bundle, or let rauc sign it: %w", image.ErrUnsupported)

func (in *input) readSquash(s *squash) error {
	text, err := s.readManifest()
	if err != nil {
		return err
	}
	if in.m, err = readManifest(text); err != nil {
		return err
	}
	if in.m.format != formatPlain {
		return malformed("the manifest in the squashfs says format %s, whose manifest is in the signature: build the bundle with rauc bundle and any key, then sign that", in.m.format)
	}
	return nil
}

// agree demands that the release and the manifest are about the same.
func agree(m manifest, opt image.SignOptions) error {
	if opt.Version != "" && opt.Version != m.version {
		return badOptions("the release is version %q and the manifest says %q: build the bundle for the release", opt.Version, m.version)
	}
	for _, h := range opt.Hardware {
		if h != m.compatible {
			return badOptions("the release is for hardware %q and the manifest says compatible=%s: the device compares these", h, m.compatible)
		}
	}
	if c := opt.SecurityCounter; c != nil && *c != 0 {
		return badOptions("a bundle has no place for security counter %d: RAUC compares versions (min-bundle-version)", *c)
	}
	if opt.Vendor != "" || opt.HeaderSize != 0 || opt.HeaderInPlace {
		return badOptions("a bundle has neither vendor id nor header")
	}
	return nil
}

func badOptions(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, image.ErrBadOptions)...)
}

func (in *input) copyPlain(ctx context.Context, w io.Writer, r io.ReaderAt) error {
	if _, err := io.CopyBuffer(w, image.Section(ctx, r, 0, in.body), make([]byte, copySize)); err != nil {
		return fmt.Errorf("copying payload: %w", err)
	}
	if odd := in.body % blockSize; odd != 0 { // mksquashfs -nopad
		if _, err := w.Write(make([]byte, blockSize-odd)); err != nil {
			return fmt.Errorf("padding payload: %w", err)
		}
	}
	return nil
}

// copyVerity checks the payload as it copies it, so that no signature is made
// for a bundle that the device finds corrupt.
func (in *input) copyVerity(ctx context.Context, w io.Writer, r io.ReaderAt) error {
	if err := in.tree.check(ctx, r, w); err != nil {
		return err
	}
	if _, err := io.CopyBuffer(w, image.Section(ctx, r, in.tree.data, in.tree.size), make([]byte, copySize)); err != nil {
		return fmt.Errorf("copying hash tree: %w", err)
	}
	return nil
}

// counter counts and hashes what is written.
type counter struct {
	w      io.Writer
	hashes []hash.Hash
	n      int64
}

func (c *counter) Write(p []byte) (int, error) {
	for _, h := range c.hashes {
		_, _ = h.Write(p) // a hash never fails
	}
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
