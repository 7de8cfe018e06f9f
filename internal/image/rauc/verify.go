package rauc

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/writ-project/writ/internal/image"
	"github.com/writ-project/writ/internal/image/cms"
)

// Inspect reports what the manifest says. It checks the hash tree, and for a
// plain bundle that its bytes are those that were hashed when it was signed. A
// bundle without a signature is fine, if it is plain.
func (Format) Inspect(ctx context.Context, r io.ReaderAt, size int64) (image.Info, error) {
	info, err := inspect(ctx, r, size)
	if err != nil {
		return image.Info{}, fmt.Errorf("inspecting RAUC bundle: %w", err)
	}
	return info, nil
}

func inspect(ctx context.Context, r io.ReaderAt, size int64) (image.Info, error) {
	if err := ctx.Err(); err != nil {
		return image.Info{}, err
	}
	b, err := open(r, size)
	if err != nil {
		return image.Info{}, err
	}
	sums, err := b.hash(ctx)
	if err != nil {
		return image.Info{}, err
	}
	if b.sig != nil {
		// The enclosed certificates stand in for trust: all that is asked here is
		// whether the digest under the signature is that of the content.
		var own []crypto.PublicKey
		for _, c := range b.sig.Certificates {
			own = append(own, c.PublicKey)
		}
		if _, err := b.sig.Verify(sums.content, cms.Trust{Keys: own}); errors.Is(err, image.ErrBadDigest) {
			return image.Info{}, err
		}
	}
	return b.info(sums)
}

// Verify checks the signature against keys, then the payload against the hash
// tree, if there is one. envelope must be empty. It verifies crypt bundles whose
// manifest is readable: the signature covers the encrypted payload. Those whose
// manifest is encrypted are [image.ErrEncrypted].
func (Format) Verify(ctx context.Context, r io.ReaderAt, size int64, envelope []byte, keys []crypto.PublicKey) (image.Verified, error) {
	v, err := verify(ctx, r, size, envelope, keys)
	if err != nil {
		return image.Verified{}, fmt.Errorf("verifying RAUC bundle: %w", err)
	}
	return v, nil
}

func verify(ctx context.Context, r io.ReaderAt, size int64, envelope []byte, keys []crypto.PublicKey) (image.Verified, error) {
	if err := ctx.Err(); err != nil {
		return image.Verified{}, err
	}
	if len(envelope) != 0 {
		return image.Verified{}, malformed("a detached signature of %d bytes beside a bundle, which contains its own", len(envelope))
	}
	b, err := open(r, size)
	if err != nil {
		return image.Verified{}, err
	}
	switch {
	case b.sig == nil && b.m.format == formatCrypt:
		return image.Verified{}, fmt.Errorf("the signature is encrypted for %d recipients: verify the bundle before rauc encrypt: %w", b.recipients, image.ErrEncrypted)
	case b.sig == nil:
		return image.Verified{}, fmt.Errorf("the squashfs is all there is: %w", image.ErrUnsigned)
	}
	trust := cms.Trust{Keys: keys}
	var signers []cms.Signer
	if b.tree != nil { // the manifest first: it says what the payload shall be
		if signers, err = b.sig.Verify(nil, trust); err != nil {
			return image.Verified{}, err
		}
	}
	sums, err := b.hash(ctx)
	if err != nil {
		return image.Verified{}, err
	}
	if b.tree == nil {
		if signers, err = b.sig.Verify(sums.content, trust); err != nil {
			return image.Verified{}, err
		}
	}
	info, err := b.info(sums)
	if err != nil {
		return image.Verified{}, err
	}
	info.Signatures = nil
	for _, s := range signers {
		info.Signatures = append(info.Signatures, image.SignatureInfo{Algorithm: s.Algorithm, KeyID: s.KeyID})
	}
	first := signers[0]
	return image.Verified{Key: first.Key, KeyID: first.KeyID, Algorithm: first.Algorithm, Info: info}, nil
}

// sums are the digests of one pass over the file.
type sums struct {
	content *cms.Digests // what a detached signature covers, else nil
	body    []byte       // SHA-256 of everything before the signature
	file    []byte       // SHA-256 of everything
}

// hash reads the whole file and checks the payload against the tree on the way.
func (b *bundle) hash(ctx context.Context) (sums, error) {
	var out sums
	h := sha256.New()
	rest := int64(0)
	switch {
	case b.tree != nil:
		if err := b.tree.check(ctx, b.r, h); err != nil {
			return sums{}, err
		}
		rest = b.tree.data
	case b.sig != nil:
		out.content = b.sig.NewDigests()
		if err := hashBoth(h, out.content, image.Section(ctx, b.r, 0, b.body)); err != nil {
			return sums{}, fmt.Errorf("hashing payload: %w", err)
		}
		rest = b.body
	}
	if _, err := io.CopyBuffer(h, image.Section(ctx, b.r, rest, b.body-rest), make([]byte, copySize)); err != nil {
		return sums{}, fmt.Errorf("hashing bundle: %w", err)
	}
	out.body = h.Sum(nil)
	if _, err := io.Copy(h, image.Section(ctx, b.r, b.body, b.size-b.body)); err != nil {
		return sums{}, fmt.Errorf("hashing signature: %w", err)
	}
	out.file = h.Sum(nil)
	return out, nil
}

// copySize is how many bytes are read at a time.
const copySize = 512 << 10

// hashBoth writes r to two hashes, side by side.
func hashBoth(a hash.Hash, b io.Writer, r io.Reader) error {
	buf := make([]byte, copySize)
	for {
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			var other sync.WaitGroup
			other.Go(func() { _, _ = a.Write(buf[:n]) }) // hashes never fail
			_, _ = b.Write(buf[:n])
			other.Wait()
		}
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
	}
}

func (b *bundle) info(s sums) (image.Info, error) {
	d := Details{
		BundleFormat: b.m.format, Description: b.m.description, Build: b.m.build,
		Images: b.m.images, Recipients: b.recipients,
	}
	// RAUC knows a verity bundle by the root of its tree, any other by all that
	// was signed.
	img := hex.EncodeToString(s.body)
	if b.tree != nil {
		img = hex.EncodeToString(b.tree.root)
		d.Verity = &Verity{Hash: img, Salt: hex.EncodeToString(b.tree.salt), Size: b.tree.size}
	}
	raw, err := json.Marshal(d)
	if err != nil {
		return image.Info{}, fmt.Errorf("encoding details: %w", err)
	}
	info := image.Info{
		Format: Format{}.Name(), Version: b.m.version, Size: b.size,
		Digests: []image.Digest{
			{Scope: image.ScopeFile, Algorithm: "sha256", Hex: hex.EncodeToString(s.file)},
			{Scope: image.ScopeImage, Algorithm: "sha256", Hex: img},
		},
		Encrypted: b.m.format == formatCrypt, Details: raw,
	}
	if b.m.compatible != "" {
		info.Hardware = []string{b.m.compatible}
	}
	if b.sig != nil {
		info.Signatures = b.sig.Signatures()
	}
	return info, nil
}
