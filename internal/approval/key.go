package approval

import (
	"crypto/rsa"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/writ-project/writ/internal/fw"
)

// Bounds on what is read from outside.
const (
	maxKeyLine   = 8 << 10 // bytes of one authorized_keys line; RSA-16384 needs 2.8 kB
	maxArmored   = 16 << 10
	minRSABits   = 3072
	maxRSABits   = 8192
	MaxApprovals = 64 // approvals looked at for one document
)

// Key is an approver's public key. The zero Key verifies nothing.
type Key struct {
	pub ssh.PublicKey
}

// ParsePublicKey reads one line in authorized_keys form: type, base64,
// optional comment. Options before the type are refused, because nothing here
// would honour them.
func ParsePublicKey(line string) (Key, error) {
	if len(line) > maxKeyLine {
		return Key{}, fw.Errorf(fw.TooLarge, "public key line is %d bytes, over the limit of %d", len(line), maxKeyLine)
	}
	pub, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return Key{}, fw.Wrap(fw.Invalid, err, "not an SSH public key: give one line as in ~/.ssh/id_ed25519.pub")
	}
	if len(options) > 0 {
		return Key{}, fw.Errorf(fw.Invalid, "public key line has options (%s): give only type, key and comment", strings.Join(options, ","))
	}
	if len(strings.TrimSpace(string(rest))) > 0 {
		return Key{}, fw.Errorf(fw.Invalid, "more than one line where one public key is expected")
	}
	return NewKey(pub)
}

// NewKey checks that pub is of a kind that may approve.
func NewKey(pub ssh.PublicKey) (Key, error) {
	if pub == nil {
		return Key{}, fw.Errorf(fw.Invalid, "no public key")
	}
	switch pub.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoSKECDSA256:
		return Key{pub}, nil
	case ssh.KeyAlgoRSA:
		if bits, ok := rsaBits(pub); !ok || bits < minRSABits || bits > maxRSABits {
			return Key{}, fw.Errorf(fw.Invalid, "RSA keys must have %d to %d bits, this one has %d; ssh-keygen -t ed25519 makes a better one", minRSABits, maxRSABits, bits)
		}
		return Key{pub}, nil
	}
	return Key{}, fw.Errorf(fw.Invalid, "keys of type %s cannot approve: use ed25519, ed25519-sk, ecdsa-sha2-nistp256, ecdsa-sk, or RSA from %d bits", pub.Type(), minRSABits)
}

func rsaBits(pub ssh.PublicKey) (int, bool) {
	c, ok := pub.(ssh.CryptoPublicKey)
	if !ok {
		return 0, false
	}
	k, ok := c.CryptoPublicKey().(*rsa.PublicKey)
	if !ok {
		return 0, false
	}
	return k.N.BitLen(), true
}

// Fingerprint returns "SHA256:" and unpadded base64, as ssh-keygen -l prints it.
func (k Key) Fingerprint() string {
	if k.pub == nil {
		return ""
	}
	return ssh.FingerprintSHA256(k.pub)
}

// Type returns the SSH key type, e.g. "ssh-ed25519".
func (k Key) Type() string {
	if k.pub == nil {
		return ""
	}
	return k.pub.Type()
}

// Hardware reports whether the key lives in a FIDO2 authenticator.
func (k Key) Hardware() bool {
	return k.Type() == ssh.KeyAlgoSKED25519 || k.Type() == ssh.KeyAlgoSKECDSA256
}

// String returns the authorized_keys line without comment.
func (k Key) String() string {
	if k.pub == nil {
		return ""
	}
	return strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(k.pub)), "\n")
}
