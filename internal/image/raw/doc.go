// Package raw signs any bytes with a detached signature.
//
// An image in this format is a file without structure. What it is, and who says
// so, stands beside it in a DSSE envelope (secure-systems-lab/dsse, protocol and
// envelope v1) that holds an in-toto Statement (in-toto/attestation, spec/v1):
//
//	{"payload": "<base64 of the statement>",
//	 "payloadType": "application/vnd.in-toto+json",
//	 "signatures": [{"keyid": "<hex>", "sig": "<base64>"}]}
//
// The signature covers the pre-authentication encoding
//
//	PAE = "DSSEv1" SP LEN(type) SP type SP LEN(payload) SP payload
//
// with lengths in decimal. ECDSA P-256 signs its SHA-256 in DER; Ed25519 signs
// the PAE itself. keyid is the SHA-256 of the key's SubjectPublicKeyInfo.
//
// The statement names the file by its digest and says what it is:
//
//	{"_type": "https://in-toto.io/Statement/v1",
//	 "subject": [{"name": "<product, or firmware>", "digest": {"sha256": "<hex>"}}],
//	 "predicateType": "https://writ-project.dev/firmware-release/v1",
//	 "predicate": {
//	   "product": "thermostat", "version": "1.2.3", "security_counter": 7,
//	   "hardware": ["board-a"], "format": "raw", "size": 4099}}
//
// product, version, security_counter and hardware may be missing; size and
// format may not. security_counter is at most 2^53-1, so that every JSON reader
// sees the same number (RFC 8259, section 6).
//
// # What Verify demands
//
// DSSE tells readers to ignore unknown members of the envelope, and Verify does.
// Inside the statement it is strict: unknown, duplicate or differently cased
// members are refused. A member that a later version adds may be a restriction,
// and a reader that skips it would accept what the signer meant to forbid.
//
// At least one signature is by a given key, and every signature whose keyid is a
// given key is good. There is exactly one subject, with a SHA-256 digest that
// the file has, and the size is right. The statement is parsed only after its
// signature was checked.
//
// # Example
//
//	f := raw.Format{}
//	res, err := f.Sign(ctx, io.Discard, r, size, key, image.SignOptions{Product: "thermostat", Version: "1.2.3"})
//	v, err := f.Verify(ctx, r, size, res.Envelope, []crypto.PublicKey{key.Public()})
package raw

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/writ-project/writ/internal/image"
)

// Names of the envelope and the statement.
const (
	PayloadType   = "application/vnd.in-toto+json"
	StatementType = "https://in-toto.io/Statement/v1"
	PredicateType = "https://writ-project.dev/firmware-release/v1"
)

// Limits.
const (
	// MaxSize is the largest file accepted, in bytes.
	MaxSize = 16 << 30
	// MaxEnvelope is the largest envelope accepted, in bytes.
	MaxEnvelope = 64 << 10

	maxSignatures = 8
	maxHardware   = 64
	maxText       = 256 // bytes in product, version or a hardware id
	maxCounter    = 1<<53 - 1
)

// Format implements [image.Format] for files without structure.
type Format struct{}

var _ image.Format = Format{}

// Name returns "raw".
func (Format) Name() string { return "raw" }

// Detect reports true for anything but nothing.
func (Format) Detect(prefix []byte) bool { return len(prefix) > 0 }

// Inspect reports size and digest, all that the bytes alone can say.
func (Format) Inspect(ctx context.Context, r io.ReaderAt, size int64) (image.Info, error) {
	if err := checkSize(size); err != nil {
		return image.Info{}, fmt.Errorf("inspecting raw image: %w", err)
	}
	h := sha256.New()
	if _, err := io.Copy(h, image.Section(ctx, r, 0, size)); err != nil {
		return image.Info{}, fmt.Errorf("inspecting raw image: %w", err)
	}
	return image.Info{Format: Format{}.Name(), Size: size, Digests: digests(h.Sum(nil))}, nil
}

// digests lists the one digest under both scopes: the whole file is what the
// device knows.
func digests(sum []byte) []image.Digest {
	x := hex.EncodeToString(sum)
	return []image.Digest{
		{Scope: image.ScopeFile, Algorithm: "sha256", Hex: x},
		{Scope: image.ScopeImage, Algorithm: "sha256", Hex: x},
	}
}

func checkSize(size int64) error {
	switch {
	case size <= 0:
		return fmt.Errorf("image is empty: %w", image.ErrTruncated)
	case size > MaxSize:
		return fmt.Errorf("%d bytes are over the limit of %d: %w", size, int64(MaxSize), image.ErrTooLarge)
	}
	return nil
}
