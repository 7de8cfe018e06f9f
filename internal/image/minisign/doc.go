// Package minisign signs any bytes with the detached signature files of
// minisign and of OpenBSD's signify.
//
// Both sign with Ed25519 and keep key and signature in short text files, which
// small devices verify with a page of code. [Format] is minisign, [Signify] is
// signify. The image stays as it is; the signature file is the envelope.
//
// A minisign signature file has four lines:
//
//	untrusted comment: <anything>
//	base64("ED" || number || S1)   S1 = Ed25519 over BLAKE2b-512(image)
//	trusted comment: <comment>
//	base64(S2)                     S2 = Ed25519 over S1 || comment
//
// A signify signature file has two:
//
//	untrusted comment: <anything>
//	base64("Ed" || number || S)    S = Ed25519 over the image
//
// number is eight bytes that name the key pair; see [Number].
// docs/formats/minisign.md has every byte and the traps.
//
// # Claims
//
// A minisign signature says what the image is in its trusted comment, as
// name:value fields between tabs. Those that this package writes and reads are
// product, version, security_counter and hw, which may occur more than once;
// minisign's own, such as timestamp and file, and unknown ones are left alone.
// A signify signature says nothing: release and authorization bind the rest.
//
// # Choice of format
//
// An image has no mark that says how it is signed, so a release names the
// format. Detect recognises the signature files themselves, and Inspect
// describes them as [InspectEnvelope] does.
//
// # Example
//
//	res, err := minisign.Format{}.Sign(ctx, io.Discard, r, size, key, image.SignOptions{Version: "1.2.3"})
//	os.WriteFile("app.bin.minisig", res.Envelope, 0o644)     // minisign -V -p app.pub -m app.bin
//	v, err := minisign.Format{}.Verify(ctx, r, size, res.Envelope, []crypto.PublicKey{key.Public()})
package minisign

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/writ-project/writ/internal/image"
)

// Limits.
const (
	// MaxSize is the largest image accepted, in bytes.
	MaxSize = 16 << 30
	// MaxSignifySign is the largest image that [Signify] signs, in bytes: a
	// crypto.Signer wants all of what Ed25519 signs at once. Verifying streams
	// and is bound by MaxSize only.
	MaxSignifySign = 16 << 20
	// MaxEnvelope is the largest signature file accepted, in bytes.
	MaxEnvelope = 16 << 10

	maxUntrusted = 1024 // bytes of the first line, in both programs
	maxTrusted   = 8192 // bytes of the third line, in minisign
	maxText      = 256  // bytes in a claim
	maxHardware  = 64
	maxCounter   = 1<<53 - 1 // what every JSON reader sees as the same number
)

// What stands in the files.
const (
	untrustedPrefix = "untrusted comment: "
	trustedPrefix   = "trusted comment: "

	algPrehashed = "ED" // Ed25519 over BLAKE2b-512
	algPlain     = "Ed" // Ed25519 over the message; also that of a public key
)

// Format implements [image.Format] for minisign signatures.
type Format struct{}

// Signify implements [image.Format] for signify signatures.
type Signify struct{}

var (
	_ image.Format = Format{}
	_ image.Format = Signify{}
)

// Name returns "minisign".
func (Format) Name() string { return "minisign" }

// Name returns "signify".
func (Signify) Name() string { return "signify" }

// Detect reports whether prefix begins a signature file of minisign. It says
// nothing about images.
func (Format) Detect(prefix []byte) bool {
	alg, ok := sniff(prefix)
	return ok && alg != algPlain // a long comment hides it: Inspect will tell
}

// Detect reports whether prefix begins a signature file of signify. It says
// nothing about images.
func (Signify) Detect(prefix []byte) bool {
	alg, ok := sniff(prefix)
	return ok && alg == algPlain
}

// sniff looks for the first line and what of the second is there. alg is empty
// when that does not tell.
func sniff(prefix []byte) (alg string, ok bool) {
	rest, ok := bytes.CutPrefix(prefix, []byte(untrustedPrefix))
	if !ok {
		return "", false
	}
	_, line, _ := bytes.Cut(rest, []byte("\n"))
	switch {
	case bytes.HasPrefix(line, []byte("RW")): // base64 of "Ed"
		return algPlain, true
	case bytes.HasPrefix(line, []byte("RU")): // base64 of "ED"
		return algPrehashed, true
	}
	return "", true
}

// Inspect reports size and digest of an image, all that its bytes can say. A
// signature file it describes as [InspectEnvelope] does.
func (f Format) Inspect(ctx context.Context, r io.ReaderAt, size int64) (image.Info, error) {
	return inspect(ctx, f, r, size)
}

// Inspect is as for [Format].
func (f Signify) Inspect(ctx context.Context, r io.ReaderAt, size int64) (image.Info, error) {
	return inspect(ctx, f, r, size)
}

func inspect(ctx context.Context, f image.Format, r io.ReaderAt, size int64) (image.Info, error) {
	if err := checkSize(size); err != nil {
		return image.Info{}, fmt.Errorf("inspecting %s image: %w", f.Name(), err)
	}
	prefix := make([]byte, min(size, int64(len(untrustedPrefix))))
	if err := image.ReadAt(r, prefix, 0); err != nil {
		return image.Info{}, fmt.Errorf("inspecting %s image: %w", f.Name(), err)
	}
	if string(prefix) == untrustedPrefix && size <= MaxEnvelope {
		b := make([]byte, size)
		if err := image.ReadAt(r, b, 0); err != nil {
			return image.Info{}, fmt.Errorf("inspecting signature file: %w", err)
		}
		return InspectEnvelope(b)
	}
	h := sha256.New()
	if _, err := io.Copy(h, image.Section(ctx, r, 0, size)); err != nil {
		return image.Info{}, fmt.Errorf("inspecting %s image: %w", f.Name(), err)
	}
	return image.Info{Format: f.Name(), Size: size, Digests: digests(h.Sum(nil))}, nil
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
