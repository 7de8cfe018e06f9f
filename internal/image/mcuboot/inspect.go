package mcuboot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/writ-project/writ/internal/image"
)

// Inspect reports what the image claims and checks its digest. An encrypted
// image is reported with the digest it claims, unchecked.
func (Format) Inspect(ctx context.Context, r io.ReaderAt, size int64) (image.Info, error) {
	_, info, err := read(ctx, r, size)
	if err != nil {
		return image.Info{}, fmt.Errorf("inspecting mcuboot image: %w", err)
	}
	return info, nil
}

// read is the common part of Inspect and Verify: everything but signatures.
func read(ctx context.Context, r io.ReaderAt, size int64) (*content, image.Info, error) {
	l, err := parse(ctx, r, size)
	if err != nil {
		return nil, image.Info{}, err
	}
	c, err := interpret(l)
	if err != nil {
		return nil, image.Info{}, err
	}
	file, err := c.checkDigest(ctx, r, size, l)
	if err != nil {
		return nil, image.Info{}, err
	}
	info := image.Info{
		Format:          Format{}.Name(),
		Version:         l.version.String(),
		SecurityCounter: c.counter,
		Vendor:          c.vendor,
		Digests: []image.Digest{
			{Scope: image.ScopeFile, Algorithm: "sha256", Hex: hex.EncodeToString(file)},
			{Scope: image.ScopeImage, Algorithm: c.hashAlg, Hex: hex.EncodeToString(c.digest)},
		},
		Size:      size,
		Padding:   l.padding,
		Encrypted: c.encrypted,
	}
	if c.class != "" {
		info.Hardware = []string{c.class}
	}
	for _, s := range c.signatures {
		id := s.keyHash
		if s.pubKey != nil {
			sum := sha256.Sum256(s.pubKey)
			id = sum[:]
		}
		info.Signatures = append(info.Signatures, image.SignatureInfo{
			Algorithm: s.algorithm(c.hash), KeyID: hex.EncodeToString(id),
		})
	}
	return c, info, nil
}

// checkDigest streams the file once, compares the image digest with the one in
// the TLV, and returns the SHA-256 of the whole file.
func (c *content) checkDigest(ctx context.Context, r io.ReaderAt, size int64, l *layout) ([]byte, error) {
	file, region := sha256.New(), c.hash.New()
	both := io.MultiWriter(file, region)

	covered := l.hdrSize + l.imgSize
	_, err := io.Copy(both, io.MultiReader(
		bytes.NewReader(l.header[:]),
		image.Section(ctx, r, headerSize, covered-headerSize),
		bytes.NewReader(l.protected),
	))
	if err != nil {
		return nil, fmt.Errorf("hashing image: %w", err)
	}
	if sum := region.Sum(nil); !c.encrypted && !bytes.Equal(sum, c.digest) {
		return nil, fmt.Errorf("checking image digest: content has %s %x, the image says %x: %w", c.hashAlg, sum, c.digest, image.ErrBadDigest)
	}
	covered += int64(len(l.protected))
	if _, err := io.Copy(file, image.Section(ctx, r, covered, size-covered)); err != nil {
		return nil, fmt.Errorf("hashing image: %w", err)
	}
	return file.Sum(nil), nil
}
