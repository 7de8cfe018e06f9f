package tlog

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-project/writ/internal/fw"
)

// SignFunc signs a message with the log's Ed25519 key.
type SignFunc func(message []byte) ([]byte, error)

// Checkpoint is a tree head.
type Checkpoint struct {
	Origin string
	Size   int64
	Root   Hash
}

// MaxCheckpoint bounds a checkpoint note with cosignatures.
const MaxCheckpoint = 16 << 10

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
	k, err := note.NewEd25519VerifierKey(origin, pub)
	if err != nil {
		return "", fw.Wrap(fw.Invalid, err, "the log origin %q cannot name a key", origin)
	}
	return k, nil
}

// Sign returns the signed note of c.
func (c Checkpoint) Sign(pub ed25519.PublicKey, sign SignFunc) ([]byte, error) {
	body := c.Body()
	sig, err := sign(body)
	if err != nil {
		return nil, err
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
	v, err := note.NewVerifier(vkey)
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

// ParseCheckpoint reads a checkpoint body. It accepts no extension lines.
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
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return bad("the second line must be the tree size")
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != len(Hash{}) {
		return bad("the third line must be the root hash")
	}
	if lines[0] == "" || bytes.ContainsAny([]byte(lines[0]), " +\t\r") {
		return bad("the first line must be the origin")
	}
	return Checkpoint{Origin: lines[0], Size: size, Root: Hash(root)}, nil
}
