// Package image defines what every firmware container format can do: say what
// an image claims, sign it, and verify it.
//
// # The contract of a format
//
// A [Format] works over an [io.ReaderAt] and a size, never over a file name and
// never over the whole image in memory. Three operations exist.
//
//   - Inspect needs no key. It refuses an image that is not well formed, and one
//     whose own digest is wrong. What it returns is what the image claims, no
//     more: an attacker can make well-formed claims.
//   - Sign streams the signed image to a writer. A [crypto.Signer] makes the
//     signature, so the key may live in an HSM. When Sign fails, what was
//     written so far is not a signed image and must be thrown away.
//   - Verify needs the trusted keys and returns the claims again, this time
//     those under the signature, with the key that made it. Callers act on the
//     Info inside [Verified], not on an earlier Inspect of the same bytes.
//
// Verify shares no parsing or encoding code with Sign, so that a mistake made
// in one is not repeated in the other. The two share only I/O plumbing
// ([Section], [ReadAt]) and the numbers of the specification.
//
// # What is signed
//
// Every byte of the file that Verify accepts is either under the signature or
// has a fixed meaning that carries no information (signature blocks themselves,
// erased-flash padding). Verify never accepts an image followed by something
// else: a device that writes the whole file would write that too.
//
// # Refusals
//
// A refused image is an error that wraps one [ReasonError]; [errors.Is] finds
// it and [ReasonOf] gives its stable code. An error without a reason is an I/O
// failure or a cancelled context, and says nothing about the image.
//
// # Example
//
//	f, err := formats.Detect(r, size)   // mcuboot, or raw when nothing else fits
//	res, err := f.Sign(ctx, out, r, size, key, image.SignOptions{Version: "1.2.3+4"})
//	v, err := f.Verify(ctx, signed, res.Size, res.Envelope, trusted)
//	fmt.Println(v.KeyID, v.Info.Version)
package image

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"io"
)

// Format is one firmware container format.
//
// Implementations hold no state and are safe for concurrent use. They never
// panic on hostile input, read within [0, size), and use memory that does not
// grow with the image.
type Format interface {
	// Name is the format's name in JSON, URLs and SQL: "mcuboot", "raw".
	Name() string

	// Detect reports whether an image that starts with prefix may be in this
	// format. It looks at magic numbers only. prefix holds the first
	// PrefixSize bytes, or the whole image when it is shorter.
	Detect(prefix []byte) bool

	// Inspect reports what the image claims.
	Inspect(ctx context.Context, r io.ReaderAt, size int64) (Info, error)

	// Sign writes the signed image to w.
	Sign(ctx context.Context, w io.Writer, r io.ReaderAt, size int64, key crypto.Signer, opt SignOptions) (SignResult, error)

	// Verify checks the image against keys, which may hold a [CA] and, for
	// encrypted images, a [Recipient]. envelope is the detached signature
	// of formats that have one and must be empty for the others.
	Verify(ctx context.Context, r io.ReaderAt, size int64, envelope []byte, keys []crypto.PublicKey) (Verified, error)
}

// PrefixSize is how many bytes Detect is shown.
const PrefixSize = 512

// Info is what an image says about itself.
type Info struct {
	Format  string `json:"format"`
	Product string `json:"product,omitempty"`
	Version string `json:"version,omitempty"`

	// SecurityCounter is the anti-rollback counter; nil when the image has
	// none, which is not the same as zero.
	SecurityCounter *uint64 `json:"security_counter,omitempty"`

	// Hardware lists the compatibility ids the image is bound to, in the form
	// the format stores them. For MCUboot that is the class UUID; see
	// mcuboot.ClassID for how to compare.
	Hardware []string `json:"hardware,omitempty"`
	// Vendor is the vendor id the image is bound to, if the format has one.
	Vendor string `json:"vendor,omitempty"`

	Digests    []Digest        `json:"digests"`
	Signatures []SignatureInfo `json:"signatures,omitempty"`

	// Size is the size of the whole file in bytes, Padding how many of them
	// are erased-flash padding at its end.
	Size    int64 `json:"size"`
	Padding int64 `json:"padding,omitempty"`

	Encrypted bool `json:"encrypted,omitempty"`

	// Details is what only this format says, as a JSON object that the format's
	// package documents; nil when there is nothing.
	Details json.RawMessage `json:"details,omitempty"`
}

// Digest is one digest of an image.
type Digest struct {
	// Scope says what was hashed: ScopeFile or ScopeImage.
	Scope     string `json:"scope"`
	Algorithm string `json:"algorithm"` // sha256, sha384, sha512
	Hex       string `json:"hex"`
}

// Scopes of a [Digest].
const (
	// ScopeFile is every byte of the file as stored and downloaded.
	ScopeFile = "file"
	// ScopeImage is the region the format itself hashes. It is the digest the
	// bootloader knows and so the one a device reports as running.
	ScopeImage = "image"
)

// Digest returns the digest of the given scope, or false when there is none.
func (i Info) Digest(scope string) (Digest, bool) {
	for _, d := range i.Digests {
		if d.Scope == scope {
			return d, true
		}
	}
	return Digest{}, false
}

// SignatureInfo is one signature an image carries. It is a claim until Verify
// accepts it.
type SignatureInfo struct {
	Algorithm string `json:"algorithm"`
	// KeyID is the format's own hint at the key, in hexadecimal. For EC and
	// Ed25519 keys with SHA-256 it equals [KeyID] of the key.
	KeyID string `json:"key_id"`
}

// SignOptions is what a signed image shall say. A format uses the fields it has
// a place for and refuses a value it cannot store; it ignores Product and
// Hardware when it has no place for them at all, because the release metadata
// and the authorization bind those as well.
type SignOptions struct {
	Version         string
	SecurityCounter *uint64
	Product         string
	Hardware        []string

	// Vendor makes formats with UUID binding (MCUboot) store vendor and class
	// identifiers. It is a DNS name or a UUID, and needs exactly one Hardware.
	Vendor string

	// HeaderSize is the size of the image header with its padding in bytes;
	// zero means the format's default.
	HeaderSize int
	// HeaderInPlace says that the input already starts with HeaderSize zero
	// bytes kept free for the header, as Zephyr's build leaves them.
	HeaderInPlace bool
	// Layout holds options that only one format has, as a JSON object in the
	// form that the format's package documents. Unknown members are refused.
	Layout json.RawMessage
	// Certificates is the chain of the signing key, its own certificate first,
	// for formats whose signature is CMS.
	Certificates []*x509.Certificate

	// SlotSize is the size of the flash slot in bytes that the image and the
	// bootloader's trailer must fit; zero means unchecked.
	SlotSize int64
}

// SignResult describes what Sign wrote.
type SignResult struct {
	Size   int64
	SHA256 [sha256.Size]byte // of every byte written
	// Image is the digest the bootloader knows (ScopeImage).
	Image Digest
	KeyID string
	// Envelope is the detached signature; nil when the image contains it.
	Envelope []byte
}

// Verified is the result of a successful verification.
type Verified struct {
	Key       crypto.PublicKey
	KeyID     string // [KeyID] of Key
	Algorithm string
	// Info holds the claims as verified. Everything in it is under the
	// signature, except Signatures, Padding and the file digest, which
	// describe the bytes seen.
	Info Info
}
