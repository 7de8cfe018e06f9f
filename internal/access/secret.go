package access

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
	"log/slog"
	"math/big"
	"strings"

	"github.com/writ-project/writ/internal/fw"
)

// Lengths of a token in characters.
const (
	secretPrefix = "writ_"
	randomLen    = 43 // base 62 of 256 bits
	checksumLen  = 6  // base 62 of 32 bits
	secretLen    = len(secretPrefix) + randomLen + checksumLen
)

// Secret is a token's secret. It prints, logs and marshals as a placeholder;
// only [Secret.Reveal] returns it.
type Secret struct{ s string }

// Reveal returns the secret, to be shown to its owner once.
func (s Secret) Reveal() string { return s.s }

// String returns a placeholder.
func (Secret) String() string { return secretPrefix + "[redacted]" }

// GoString returns a placeholder.
func (s Secret) GoString() string { return s.String() }

// LogValue implements slog.LogValuer with a placeholder.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText implements encoding.TextMarshaler with a placeholder.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s Secret) hash() [sha256.Size]byte { return sha256.Sum256([]byte(s.s)) }

func newSecret() Secret {
	var b [32]byte
	rand.Read(b[:]) // never fails: crypto/rand.Read, Go 1.24
	body := secretPrefix + base62(b[:], randomLen)
	return Secret{s: body + checksum(body)}
}

// parseSecret checks the form of a token before anything is looked up.
func parseSecret(s string) (Secret, error) {
	switch {
	case !strings.HasPrefix(s, secretPrefix):
		return Secret{}, fw.Errorf(fw.Unauthenticated, "this is not an access token: those begin with %s", secretPrefix)
	case len(s) != secretLen || checksum(s[:secretLen-checksumLen]) != s[secretLen-checksumLen:]:
		return Secret{}, fw.Errorf(fw.Unauthenticated, "this access token has a typing error or is cut short: copy it again")
	}
	return Secret{s: s}, nil
}

// checksum tells typing errors from unknown tokens. It protects nothing:
// anybody can compute it.
func checksum(body string) string {
	sum := crc32.ChecksumIEEE([]byte(body))
	return base62(binary.BigEndian.AppendUint32(nil, sum), checksumLen)
}

// base62 writes b, a big-endian number, in [0-9a-zA-Z] with leading zeros.
func base62(b []byte, width int) string {
	s := new(big.Int).SetBytes(b).Text(62)
	return strings.Repeat("0", width-len(s)) + s
}
