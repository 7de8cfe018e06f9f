package tlog

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-project/writ/internal/fw"
)

// SignFunc signs a message with the log's Ed25519 key (RFC 8032, PureEdDSA). It
// may refuse: the signer keeps its own account of what it signed.
type SignFunc func(message []byte) ([]byte, error)

// Checkpoint is a tree head.
type Checkpoint struct {
	Origin string
	Size   int64
	Root   Hash
}

// MaxCheckpoint bounds a checkpoint note with cosignatures, in bytes.
const MaxCheckpoint = 16 << 10

// maxOrigin bounds the name of a log, in bytes.
const maxOrigin = 255

// checkOrigin checks the name of a log: it is a line of the checkpoint and the
// key name of its signature (C2SP signed-note, no spaces and no plus signs).
func checkOrigin(s string) error {
	if s == "" || len(s) > maxOrigin || !utf8.ValidString(s) ||
		strings.ContainsFunc(s, func(r rune) bool { return r == '+' || unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return fw.Errorf(fw.Invalid, "%q cannot name a log: use 1 to %d bytes without spaces and plus signs, such as a host name", s, maxOrigin)
	}
	return nil
}

// Body returns the text that is signed (C2SP tlog-checkpoint).
func (c Checkpoint) Body() []byte {
	b := make([]byte, 0, len(c.Origin)+80)
	b = append(b, c.Origin...)
	b = append(b, '\n')
	b = strconv.AppendInt(b, c.Size, 10)
	b = append(b, '\n')
	b = base64.StdEncoding.AppendEncode(b, c.Root[:])
	return append(b, '\n')
}

// algEd25519 is the signature type of C2SP signed-note.
const algEd25519 = 1

// keyHash is the key id of C2SP signed-note: the first four bytes of
// SHA-256(name || "\n" || alg || public key).
func keyHash(origin string, pub ed25519.PublicKey) uint32 {
	h := sha256.New()
	h.Write([]byte(origin))
	h.Write([]byte{'\n', algEd25519})
	h.Write(pub)
	return binary.BigEndian.Uint32(h.Sum(nil))
}

// VerifierKey returns the signed-note verifier key (vkey) of a log.
func VerifierKey(origin string, pub ed25519.PublicKey) (string, error) {
	if err := checkOrigin(origin); err != nil {
		return "", err
	}
	k, err := note.NewEd25519VerifierKey(origin, pub)
	if err != nil {
		return "", fw.Wrap(fw.Invalid, err, "the log origin %q cannot name a key", origin)
	}
	return k, nil
}

// Sign returns the signed note of c (C2SP signed-note).
func (c Checkpoint) Sign(pub ed25519.PublicKey, sign SignFunc) ([]byte, error) {
	if err := checkOrigin(c.Origin); err != nil {
		return nil, err
	}
	body := c.Body()
	sig, err := sign(body)
	if err != nil {
		return nil, err
	}
	if len(sig) != ed25519.SignatureSize {
		return nil, fmt.Errorf("the log key made a signature of %d bytes, not %d", len(sig), ed25519.SignatureSize)
	}
	raw := make([]byte, 4, 4+len(sig))
	binary.BigEndian.PutUint32(raw, keyHash(c.Origin, pub))
	raw = append(raw, sig...)
	b := append(body, "\n— "...) // U+2014 and a space begin a signature line
	b = append(b, c.Origin...)
	b = append(b, ' ')
	b = base64.StdEncoding.AppendEncode(b, raw)
	return append(b, '\n'), nil
}

// OpenCheckpoint checks the log's signature on a checkpoint note and returns
// the checkpoint. Cosignatures are allowed and ignored.
func OpenCheckpoint(b []byte, origin string, pub ed25519.PublicKey) (Checkpoint, error) {
	if len(b) > MaxCheckpoint {
		return Checkpoint{}, fw.Errorf(fw.TooLarge, "a checkpoint of %d bytes is over the limit of %d", len(b), MaxCheckpoint)
	}
	vkey, err := VerifierKey(origin, pub)
	if err != nil {
		return Checkpoint{}, err
	}
	v, err := note.NewVerifier(vkey) // refuses a key that is not 32 bytes
	if err != nil {
		return Checkpoint{}, fw.Wrap(fw.Invalid, err, "the log key cannot be used")
	}
	n, err := note.Open(b, note.VerifierList(v))
	if err != nil {
		return Checkpoint{}, fw.Wrap(fw.Corrupt, err, "the checkpoint is not signed by the log %s", origin)
	}
	c, err := ParseCheckpoint([]byte(n.Text))
	if err != nil {
		return Checkpoint{}, err
	}
	if c.Origin != origin {
		return Checkpoint{}, fw.Errorf(fw.Corrupt, "the checkpoint is of log %q, not %q", c.Origin, origin)
	}
	return c, nil
}

// ParseCheckpoint reads a checkpoint body, the signed text of the note. It
// accepts exactly what [Checkpoint.Body] writes, so no extension lines (C2SP
// tlog-checkpoint: NOT RECOMMENDED) and no tree over [MaxSize].
func ParseCheckpoint(body []byte) (Checkpoint, error) {
	bad := func(what string) (Checkpoint, error) {
		return Checkpoint{}, fw.Errorf(fw.Invalid, "malformed checkpoint: %s", what)
	}
	if len(body) > MaxCheckpoint {
		return bad("too large")
	}
	lines := strings.Split(string(body), "\n")
	if len(lines) != 4 || lines[3] != "" {
		return bad("it must be three lines")
	}
	if checkOrigin(lines[0]) != nil {
		return bad("the first line must be the origin")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || size > MaxSize || strconv.FormatInt(size, 10) != lines[1] {
		return bad("the second line must be the tree size")
	}
	// Encoding again refuses what even strict base64 lets pass: carriage
	// returns within.
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != len(Hash{}) || base64.StdEncoding.EncodeToString(root) != lines[2] {
		return bad("the third line must be the root hash")
	}
	return Checkpoint{Origin: lines[0], Size: size, Root: Hash(root)}, nil
}
