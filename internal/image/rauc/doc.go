// Package rauc reads, signs and verifies RAUC update bundles.
//
// The specification is the RAUC reference manual ("Bundle Formats", "Manifest"),
// the kernel's dm-verity documentation and the squashfs 4.0 layout; the reference
// tool is rauc 1.8. docs/formats/rauc.md says byte by byte what is here in short.
//
// # Layout
//
//	payload        squashfs, padded with zeros to a multiple of 4096 bytes
//	hash tree      dm-verity, formats verity and crypt only
//	signature      CMS SignedData in DER
//	length         u64, big-endian: bytes of the signature
//
// Three formats exist:
//
//	plain   The signature is detached, over the payload. The manifest is the
//	        file manifest.raucm in the squashfs.
//	verity  The signature encloses the manifest and is over it. The manifest
//	        holds the root of the tree, and the tree the hash of every block.
//	crypt   As verity, over an encrypted payload, with its key in the manifest.
//	        rauc encrypt then wraps the signature in an EnvelopedData.
//
// Crypt bundles are inspected, and verified as long as their signature can be
// read, but not signed: whoever signs must see what the device will run.
//
// # What the manifest says
//
// compatible becomes Hardware, version becomes Version. Sign demands that the
// release says the same of itself as the manifest, because the device looks only
// at the manifest. There is no place for a security counter; devices compare
// versions (min-bundle-version).
//
// # What Verify demands
//
// Every signer in the signature is trusted (see package cms), and the payload is
// what was signed: by its digest in plain, block by block through the tree in
// verity. rauc info does not look at a verity payload, only rauc extract and the
// kernel do. The squashfs, its padding, the tree, the signature and the length
// follow each other without a gap and are all of the file. Manifests with a group
// or key twice are refused: GLib, and so RAUC, lets the last one win.
//
// The digests of the single images in the manifest are reported and not
// compared with the files: those are under the signature as well, and RAUC
// compares them as it installs.
//
// # Reading the manifest of plain bundles
//
// It needs a squashfs reader, and this package has one that can do just that: find
// a file in the root directory and return its few bytes. Of the public readers
// diskfs/go-diskfs loads whole tables and has panicked on images it did not
// expect, and the others are not served by the module proxy. The compressions
// gzip, zstd and lz4 are understood; xz, lzo and lzma are refused as unsupported
// with a hint at how to build the bundle.
//
// # Independence
//
// What Sign writes is the signature and its length, for which Verify has a reader
// that shares no code with the writer. Before that, Sign checks the input with
// the readers of manifest and tree that Verify uses as well. It writes neither.
//
// # Options
//
// [image.SignOptions.Certificates] is needed. Layout may be
//
//	{"pss": true, "purpose": "code_signing", "signing_time": "2026-11-23T12:00:00Z"}
//
// pss makes an RSA key sign with PSS instead of PKCS #1 v1.5. purpose is what the
// device checks the signer's certificate for: email_protection, RAUC's default,
// or code_signing (check-purpose=codesign). signing_time is needed by devices with
// use-bundle-signing-time. All may be missing.
//
// # Example
//
//	f := rauc.Format{}
//	res, err := f.Sign(ctx, out, r, size, key, image.SignOptions{
//		Version: "2026.11-1", Hardware: []string{"board-a"}, Certificates: chain,
//	})
//	v, err := f.Verify(ctx, signed, res.Size, nil, []crypto.PublicKey{image.CA{Certificate: ca}})
package rauc

import (
	"io"

	"github.com/writ-project/writ/internal/image"
)

// Format implements [image.Format] for RAUC bundles.
type Format struct{}

var _ image.Format = Format{}

// Name returns "rauc".
func (Format) Name() string { return "rauc" }

// Detect reports whether prefix is the start of a squashfs. That may be a bundle
// or any other squashfs, and a crypt bundle does not start like that: Probe knows
// better.
func (Format) Detect(prefix []byte) bool {
	return len(prefix) >= len(squashMagic) && string(prefix[:len(squashMagic)]) == squashMagic
}

// Probe reports whether the file is a bundle: whether it ends with a CMS message
// and its length, or is a squashfs with a manifest and nothing more.
func (Format) Probe(r io.ReaderAt, size int64) bool {
	if size < trailerSize || size > MaxSize {
		return false
	}
	if unsigned(r, size) {
		s, err := openSquash(r, size)
		if err != nil {
			return false
		}
		_, err = s.readManifest()
		// A manifest that cannot be read is for Inspect to explain.
		reason, ok := image.ReasonOf(err)
		return err == nil || ok && reason == image.ErrUnsupported
	}
	der, err := readCMS(r, size)
	if err != nil {
		return false
	}
	kind := contentType(der)
	return kind.Equal(oidSignedData) || kind.Equal(oidEnvelopedData)
}

// Details is [image.Info.Details] of this format.
type Details struct {
	BundleFormat string  `json:"bundle_format"` // plain, verity or crypt
	Description  string  `json:"description,omitempty"`
	Build        string  `json:"build,omitempty"`
	Images       []Image `json:"images,omitempty"`
	Verity       *Verity `json:"verity,omitempty"`
	// Recipients is how many keys can decrypt the signature of a crypt bundle,
	// and with it everything; zero when it is not encrypted.
	Recipients int `json:"recipients,omitempty"`
}

// Image is one [image.*] group of the manifest. The digest is a claim.
type Image struct {
	Slot     string `json:"slot"` // what follows "image." in the group's name
	Filename string `json:"filename,omitempty"`
	SHA256   string `json:"sha256,omitempty"` // hexadecimal
	Size     *int64 `json:"size,omitempty"`   // bytes
}

// Verity is the dm-verity tree of a bundle; hash and salt are hexadecimal.
type Verity struct {
	Hash string `json:"hash"`
	Salt string `json:"salt"`
	Size int64  `json:"size"` // bytes of the tree
}
