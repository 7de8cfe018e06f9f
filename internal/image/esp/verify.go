package esp

import (
	"context"
	"crypto"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	"github.com/writ-project/writ/internal/image"
)

// Details is [image.Info.Details] of this format.
type Details struct {
	ChipID uint16 `json:"chip_id"`
	// Revisions of the chip, as major*100+minor.
	MinChipRevision uint16 `json:"min_chip_revision"`
	MaxChipRevision uint16 `json:"max_chip_revision"`

	// From the application description; empty when the image has none.
	Project   string `json:"project,omitempty"`
	BuildDate string `json:"build_date,omitempty"`
	BuildTime string `json:"build_time,omitempty"`
	IDF       string `json:"idf,omitempty"`
	ELFSHA256 string `json:"elf_sha256,omitempty"`
}

// Inspect reports what the image claims. Version and security counter are
// those of the application description, the hardware is the chip.
func (Format) Inspect(ctx context.Context, r io.ReaderAt, size int64) (image.Info, error) {
	c, err := parse(ctx, r, size)
	if err != nil {
		return image.Info{}, fmt.Errorf("inspecting esp image: %w", err)
	}
	info, err := c.info(size)
	if err != nil {
		return image.Info{}, fmt.Errorf("inspecting esp image: %w", err)
	}
	return info, nil
}

func (c *content) info(size int64) (image.Info, error) {
	d := Details{ChipID: c.chip, MinChipRevision: c.minRev, MaxChipRevision: c.maxRev}
	info := image.Info{
		Format: Format{}.Name(), Hardware: []string{chipName(c.chip)}, Size: size,
		Digests: []image.Digest{
			{Scope: image.ScopeFile, Algorithm: "sha256", Hex: hex.EncodeToString(c.file)},
			{Scope: image.ScopeImage, Algorithm: "sha256", Hex: hex.EncodeToString(c.sha256)},
		},
	}
	if c.app != nil {
		info.Version = c.app.version
		info.SecurityCounter = new(uint64(c.app.secureVersion))
		d.Project, d.IDF, d.ELFSHA256 = c.app.project, c.app.idf, c.app.elfSHA
		d.BuildDate, d.BuildTime = c.app.date, c.app.time
	}
	for _, b := range c.blocks {
		if b.alg == image.AlgECDSAP384 {
			info.Digests[1] = image.Digest{Scope: image.ScopeImage, Algorithm: "sha384", Hex: hex.EncodeToString(c.sha384)}
		}
		info.Signatures = append(info.Signatures, image.SignatureInfo{Algorithm: b.alg, KeyID: b.keyID})
	}
	var err error
	info.Details, err = json.Marshal(d)
	return info, err
}

// Verify checks the image against keys: RSA of 3072 bits, ECDSA P-256 and
// P-384. Keys of other kinds never match.
func (Format) Verify(ctx context.Context, r io.ReaderAt, size int64, envelope []byte, keys []crypto.PublicKey) (image.Verified, error) {
	v, err := verify(ctx, r, size, envelope, keys)
	if err != nil {
		return image.Verified{}, fmt.Errorf("verifying esp image: %w", err)
	}
	return v, nil
}

func verify(ctx context.Context, r io.ReaderAt, size int64, envelope []byte, keys []crypto.PublicKey) (image.Verified, error) {
	if len(envelope) != 0 {
		return image.Verified{}, fmt.Errorf("got a detached signature of %d bytes, but esp images carry their own: %w", len(envelope), image.ErrMalformed)
	}
	c, err := parse(ctx, r, size)
	if err != nil {
		return image.Verified{}, err
	}
	if len(c.blocks) == 0 {
		return image.Verified{}, fmt.Errorf("the image has no signature sector: %w", image.ErrUnsigned)
	}
	var found crypto.PublicKey
	for i, b := range c.blocks {
		if err := b.check(); err != nil {
			return image.Verified{}, fmt.Errorf("checking block %d at offset %#x by key %s: %w", i, b.off, b.keyID, err)
		}
		for _, k := range keys {
			if found == nil && b.by(k) {
				found = k
			}
		}
	}
	if found == nil {
		return image.Verified{}, fmt.Errorf("none of %d signatures is by one of %d given keys, the first is by the key with eFuse digest %s: %w",
			len(c.blocks), len(keys), c.blocks[0].keyID, image.ErrUnknownKey)
	}
	info, err := c.info(size)
	if err != nil {
		return image.Verified{}, err
	}
	id, err := image.KeyID(found)
	if err != nil {
		return image.Verified{}, err
	}
	return image.Verified{Key: found, KeyID: id, Algorithm: c.blocks[0].alg, Info: info}, nil
}
