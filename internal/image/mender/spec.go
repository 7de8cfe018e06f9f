package mender

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"

	"github.com/writ-project/writ/internal/image"
)

// Names in the outer tar, and limits.
const (
	nameVersion   = "version"
	nameManifest  = "manifest"
	nameSignature = "manifest.sig"
	nameHeader    = "header.tar"

	// MaxSize is the largest artifact accepted, in bytes.
	MaxSize = 64 << 30

	maxVersion   = 1 << 10
	maxManifest  = 1 << 20
	maxSignature = 4 << 10
	maxHeader    = 64 << 20 // decompressed, with scripts
	maxJSON      = 1 << 20
	maxPayloads  = 64
	maxName      = 100 // what a tar header holds

	// maxWindow bounds the memory of the zstd decoder, in bytes.
	maxWindow = 16 << 20

	minRSA, maxRSA = 2048, 8192 // bits
)

// expansion is how many bytes the payloads of an artifact of size bytes may
// decompress to. A file system image of mostly free space shrinks a lot; what
// shrinks more than this is a bomb.
func expansion(size int64) int64 { return 256<<20 + 200*size }

// counterKey is the provide that holds the security counter.
const counterKey = "writ.security_counter"

// Format implements [image.Format] for Mender artifacts.
type Format struct{}

var _ image.Format = Format{}

// Name returns "mender".
func (Format) Name() string { return "mender" }

// Detect reports whether prefix is the start of a tar whose first file is
// called version.
func (Format) Detect(prefix []byte) bool {
	if len(prefix) < blockSize {
		return false
	}
	rest, ok := bytes.CutPrefix(prefix[:maxName], []byte(nameVersion))
	return ok && len(bytes.Trim(rest, "\x00")) == 0
}

// Details is [image.Info.Details] of this format.
type Details struct {
	ArtifactName  string `json:"artifact_name"`
	ArtifactGroup string `json:"artifact_group,omitempty"`
	// Depends is artifact_depends of the header: names and groups of artifacts,
	// device types.
	Depends  map[string][]string `json:"depends,omitempty"`
	Payloads []Payload           `json:"payloads"`
}

// Payload is one payload of an artifact.
type Payload struct {
	Type           string              `json:"type"` // empty when it only changes provides
	Provides       map[string]string   `json:"provides,omitempty"`
	Depends        map[string][]string `json:"depends,omitempty"`
	ClearsProvides []string            `json:"clears_provides,omitempty"`
	Files          []File              `json:"files,omitempty"`
}

// File is one file of a payload.
type File struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// algorithm names what keys of this kind sign artifacts with.
func algorithm(pub crypto.PublicKey) (string, error) {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return image.AlgECDSAP256, nil
		}
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n >= minRSA && n <= maxRSA && n%8 == 0 {
			return algRSA(n), nil
		}
	}
	return "", fmt.Errorf("choosing signature algorithm: mender takes RSA of %d to %d bits and ECDSA P-256, not this key of type %T: %w",
		minRSA, maxRSA, pub, image.ErrUnsupported)
}

func algRSA(bits int) string { return fmt.Sprintf("rsa%d-pkcs1-sha256", bits) }
