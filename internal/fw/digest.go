package fw

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Digest is a SHA-256 digest. Its text form is "sha256:" and 64 lower-case
// hexadecimal digits. The zero Digest is no digest and matches nothing.
type Digest [sha256.Size]byte

// DigestOf returns the digest of b.
func DigestOf(b []byte) Digest { return sha256.Sum256(b) }

// ParseDigest reads the text form.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	h, ok := strings.CutPrefix(s, "sha256:")
	if !ok || len(h) != 2*len(d) || strings.ToLower(h) != h {
		return Digest{}, Errorf(Invalid, "digest must be \"sha256:\" and 64 lower-case hexadecimal digits")
	}
	if _, err := hex.Decode(d[:], []byte(h)); err != nil {
		return Digest{}, Errorf(Invalid, "digest must be \"sha256:\" and 64 lower-case hexadecimal digits")
	}
	return d, nil
}

// IsZero reports whether d is no digest.
func (d Digest) IsZero() bool { return d == Digest{} }

// Hex returns the 64 hexadecimal digits alone.
func (d Digest) Hex() string { return hex.EncodeToString(d[:]) }

// String returns the text form, or "" for the zero Digest.
func (d Digest) String() string {
	if d.IsZero() {
		return ""
	}
	return "sha256:" + d.Hex()
}

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; empty text is the zero Digest.
func (d *Digest) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*d = Digest{}
		return nil
	}
	v, err := ParseDigest(string(b))
	if err != nil {
		return err
	}
	*d = v
	return nil
}
