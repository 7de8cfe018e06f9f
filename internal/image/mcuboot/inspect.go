package mcuboot

import (
	"bytes"
	"context"
	"crypto"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/writ-project/writ/internal/image"
)

// Inspect reports what the image claims and checks its digest. An encrypted
// image is reported with the digest it claims, unchecked. Details of the result
// hold a [Details].
func (Format) Inspect(ctx context.Context, r io.ReaderAt, size int64) (image.Info, error) {
	info, err := inspect(ctx, r, size)
	if err != nil {
		return image.Info{}, fmt.Errorf("inspecting mcuboot image: %w", err)
	}
	return info, nil
}

func inspect(ctx context.Context, r io.ReaderAt, size int64) (image.Info, error) {
	m, err := open(ctx, r, size)
	if err != nil {
		return image.Info{}, err
	}
	if err := m.stream(ctx, nil); err != nil {
		return image.Info{}, err
	}
	return m.info()
}

// opened is an image whose structure is understood.
type opened struct {
	*layout
	*content
	r    io.ReaderAt
	size int64

	file []byte // SHA-256 of the whole file, known after stream
}

func open(ctx context.Context, r io.ReaderAt, size int64) (*opened, error) {
	l, err := parse(ctx, r, size)
	if err != nil {
		return nil, err
	}
	c, err := interpret(l)
	if err != nil {
		return nil, err
	}
	return &opened{layout: l, content: c, r: r, size: size}, nil
}

// stream reads the file once. It hashes the file, and the signed region, which
// it compares with the digest that the image claims and writes to also. The
// payload passes through decrypt if there is one; an encrypted image without
// one is not compared with its digest, which is of the plaintext.
func (m *opened) stream(ctx context.Context, decrypt cipher.Stream, also ...io.Writer) error {
	file := sha256.New()
	digest := file
	if m.hash != crypto.SHA256 || decrypt != nil {
		digest = m.hash.New()
		also = append(also, digest)
	} // else the region is how the file begins, so that hashing it once is enough
	region := io.MultiWriter(also...)
	payload := region
	if decrypt != nil {
		payload = cipher.StreamWriter{S: decrypt, W: region}
	}
	for _, part := range []struct {
		from io.Reader
		to   io.Writer
	}{
		{bytes.NewReader(m.header[:]), region},
		{image.Section(ctx, m.r, headerSize, m.hdrSize-headerSize), region},
		{image.Section(ctx, m.r, m.hdrSize, m.imgSize), payload},
		{bytes.NewReader(m.protected), region},
	} {
		if _, err := io.Copy(io.MultiWriter(file, part.to), part.from); err != nil {
			return fmt.Errorf("hashing image: %w", err)
		}
	}
	plain := m.encKey == nil || decrypt != nil
	if sum := digest.Sum(nil); plain && !bytes.Equal(sum, m.digest) {
		return fmt.Errorf("checking image digest: content has %s %x, the image says %x: %w", m.hashAlg, sum, m.digest, image.ErrBadDigest)
	}
	covered := m.hdrSize + m.imgSize + int64(len(m.protected))
	if _, err := io.Copy(file, image.Section(ctx, m.r, covered, m.size-covered)); err != nil {
		return fmt.Errorf("hashing image: %w", err)
	}
	m.file = file.Sum(nil)
	return nil
}

func (m *opened) info() (image.Info, error) {
	details, err := m.details()
	if err != nil {
		return image.Info{}, err
	}
	info := image.Info{
		Format:          Format{}.Name(),
		Version:         m.version.String(),
		SecurityCounter: m.counter,
		Vendor:          m.vendor,
		Digests: []image.Digest{
			{Scope: image.ScopeFile, Algorithm: "sha256", Hex: hex.EncodeToString(m.file)},
			{Scope: image.ScopeImage, Algorithm: m.hashAlg, Hex: hex.EncodeToString(m.digest)},
		},
		Size:      m.size,
		Padding:   m.padding,
		Encrypted: m.encrypted(),
		Details:   details,
	}
	if m.class != "" {
		info.Hardware = []string{m.class}
	}
	for _, s := range m.signatures {
		info.Signatures = append(info.Signatures, image.SignatureInfo{Algorithm: m.algorithm(s), KeyID: s.keyID()})
	}
	return info, nil
}

func (s signature) keyID() string {
	if s.pubKey != nil {
		sum := sha256.Sum256(s.pubKey)
		return hex.EncodeToString(sum[:])
	}
	return hex.EncodeToString(s.keyHash)
}
