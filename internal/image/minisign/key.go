package minisign

import (
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/writ-project/writ/internal/image"
)

// Number names a key pair. minisign and signify draw it at random when they
// make one, and refuse a signature whose number is not that of the public key.
// It is no secret, and nothing vouches for it: it is not under the signature.
type Number [8]byte

// String returns the number as minisign prints it: the bytes as a little-endian
// integer, in hexadecimal, here in lower case.
func (n Number) String() string { return fmt.Sprintf("%016x", binary.LittleEndian.Uint64(n[:])) }

// NumberOf returns the number that writ gives a key without one: the first eight
// bytes of the SHA-256 of its SubjectPublicKeyInfo, so of its [image.KeyID].
// It needs no state, so whoever has the key makes the same files.
func NumberOf(pub ed25519.PublicKey) (Number, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil || len(pub) != ed25519.PublicKeySize {
		return Number{}, fmt.Errorf("numbering key: it is no Ed25519 key: %w", image.ErrUnsupported)
	}
	sum := sha256.Sum256(der)
	return Number(sum[:8]), nil
}

// PublicKey is a key with its number, as a public key file holds it. Verify
// takes it among its keys beside [ed25519.PublicKey]: with the number it can
// tell a changed image from somebody else's signature.
type PublicKey struct {
	Number Number
	Key    ed25519.PublicKey
}

// ParsePublicKey reads a public key file of minisign or signify, or its second
// line alone. Anything else is [image.ErrMalformed].
func ParsePublicKey(b []byte) (PublicKey, error) {
	if len(b) > maxUntrusted+128 {
		return PublicKey{}, fmt.Errorf("reading public key: %d bytes are too many: %w", len(b), image.ErrMalformed)
	}
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	if len(lines) == 2 && strings.HasPrefix(lines[0], untrustedPrefix) {
		lines = lines[1:]
	}
	raw, err := decode64(lines[0])
	if err != nil || len(lines) != 1 || len(raw) != 2+8+ed25519.PublicKeySize || string(raw[:2]) != algPlain {
		return PublicKey{}, fmt.Errorf("reading public key: it is not one of minisign or signify, which is a comment and a line that begins with RW: %w", image.ErrMalformed)
	}
	return PublicKey{Number(raw[2:10]), ed25519.PublicKey(raw[10:])}, nil
}

// File returns the public key file that minisign -p and signify -p read.
func (k PublicKey) File() []byte {
	raw := append(append([]byte(algPlain), k.Number[:]...), k.Key...)
	return fmt.Appendf(nil, "%sminisign public key %X\n%s\n", untrustedPrefix,
		binary.LittleEndian.Uint64(k.Number[:]), base64.StdEncoding.EncodeToString(raw))
}

// candidates returns the keys that can have made a signature with that number.
// named is set when one of them is known to bear it.
func candidates(keys []crypto.PublicKey, n Number) (out []ed25519.PublicKey, named bool) {
	for _, k := range keys {
		switch k := k.(type) {
		case ed25519.PublicKey:
			own, err := NumberOf(k)
			if err != nil {
				continue
			}
			out, named = append(out, k), named || own == n
		case PublicKey:
			if k.Number == n && len(k.Key) == ed25519.PublicKeySize {
				out, named = append(out, k.Key), true
			}
		}
	}
	return out, named
}

// decode64 reads base64 in its only form: encoding/base64 overlooks line breaks
// and, unless strict, stray bits.
func decode64(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("base64 has line breaks")
	}
	return base64.StdEncoding.Strict().DecodeString(s)
}
