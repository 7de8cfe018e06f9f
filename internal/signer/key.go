package signer

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"slices"

	"filippo.io/mldsa"

	"github.com/writ-project/writ/internal/custody"
	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
)

// Algorithm is a kind of key with its signature algorithm.
type Algorithm string

// Algorithms.
const (
	Ed25519   Algorithm = "ed25519"    // RFC 8032
	ECDSAP256 Algorithm = "ecdsa-p256" // FIPS 186-5, with SHA-256
	ECDSAP384 Algorithm = "ecdsa-p384" // FIPS 186-5
	RSA2048   Algorithm = "rsa-2048"   // RFC 8017; PSS or PKCS #1 as the format wants
	RSA3072   Algorithm = "rsa-3072"
	MLDSA65   Algorithm = "ml-dsa-65" // FIPS 204
)

// KeyState says whether a key may still be used.
type KeyState string

// Key states in life-cycle order.
const (
	KeyActive  KeyState = "active"
	KeyRetired KeyState = "retired" // verifies what it signed, signs no more; final
)

// purposes lists the algorithms of each purpose, the default first. Device
// certificates are P-256 for the sake of TLS stacks on small devices; roots
// and logs are Ed25519 because their formats are (C2SP signed notes, DSSE).
var purposes = map[fw.Purpose][]Algorithm{
	fw.PurposeImage:         {ECDSAP256, Ed25519, ECDSAP384, RSA2048, RSA3072},
	fw.PurposeAuthorization: {Ed25519, ECDSAP256},
	fw.PurposeLog:           {Ed25519},
	fw.PurposeDeviceCA:      {ECDSAP256},
	fw.PurposeRosterRoot:    {Ed25519},
	fw.PurposeStatement:     {Ed25519, ECDSAP256, MLDSA65},
}

// DefaultAlgorithm returns the algorithm that keys of purpose p have unless
// another is asked for; "" if p is no purpose.
func DefaultAlgorithm(p fw.Purpose) Algorithm {
	if a := purposes[p]; len(a) > 0 {
		return a[0]
	}
	return ""
}

// TypeKey is the "type" member of a KeyInfo.
const TypeKey = "writ-key/v1"

const maxKeyInfo = 8 << 10 // bytes

// KeyInfo is what is public about a key. It is the content of NAME.pub.json.
type KeyInfo struct {
	Type      string     `json:"type"` // writ-key/v1
	Name      fw.KeyName `json:"name"`
	Purpose   fw.Purpose `json:"purpose"`
	Algorithm Algorithm  `json:"algorithm"`
	PublicKey string     `json:"public_key"` // SubjectPublicKeyInfo, PEM
	KeyID     string     `json:"key_id"`     // hexadecimal SHA-256 of the SubjectPublicKeyInfo DER
	CreatedAt int64      `json:"created_at"` // Unix seconds
	State     KeyState   `json:"state"`

	// Custody is the URI of the key at the place that keeps it (package
	// custody), e.g. "pkcs11:token=fw;object=image-1"; empty: the key is in a
	// file of the key store.
	Custody string `json:"custody,omitempty"`
}

// ParseKeyInfo reads and checks a key's metadata.
func ParseKeyInfo(b []byte) (KeyInfo, error) {
	if len(b) > maxKeyInfo {
		return KeyInfo{}, fw.Errorf(fw.TooLarge, "key metadata is %d bytes, over the limit of %d", len(b), maxKeyInfo)
	}
	var i KeyInfo
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&i); err != nil {
		return KeyInfo{}, fw.Wrap(fw.Invalid, err, "malformed key metadata")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return KeyInfo{}, fw.Errorf(fw.Invalid, "key metadata is followed by something else")
	}
	if err := i.check(); err != nil {
		return KeyInfo{}, err
	}
	return i, nil
}

func (i KeyInfo) check() error {
	if i.Type != TypeKey {
		return fw.Errorf(fw.Invalid, "key metadata has type %q, not %q", i.Type, TypeKey)
	}
	if err := checkName(i.Name); err != nil {
		return err
	}
	if !slices.Contains(purposes[i.Purpose], i.Algorithm) {
		return fw.Errorf(fw.Invalid, "key %q: a key for %q cannot be %q", i.Name, i.Purpose, i.Algorithm)
	}
	if i.State != KeyActive && i.State != KeyRetired {
		return fw.Errorf(fw.Invalid, "key %q has unknown state %q", i.Name, i.State)
	}
	pub, err := i.Public()
	if err != nil {
		return err
	}
	alg, err := algorithmOf(pub)
	if err != nil || alg != i.Algorithm {
		return fw.Wrap(fw.Invalid, err, "key %q says it is %s and its public key is not", i.Name, i.Algorithm)
	}
	id, err := keyID(pub)
	if err != nil || id != i.KeyID {
		return fw.Wrap(fw.Invalid, err, "key %q: the key id is not that of its public key", i.Name)
	}
	if i.Custody != "" && custody.SchemeOf(i.Custody) == "" {
		return fw.Errorf(fw.Invalid, "key %q is kept at %q, which is no URI", i.Name, i.Custody)
	}
	return nil
}

// checkName keeps key names usable as file names on every system.
func checkName(n fw.KeyName) error {
	s, err := fw.ParseName("key name", string(n))
	if err != nil {
		return err
	}
	for _, c := range s {
		if c == ':' || c >= 'A' && c <= 'Z' {
			return fw.Errorf(fw.Invalid, "key name %q is also a file name: use lower-case letters, digits and . _ -", s)
		}
	}
	return nil
}

// Public returns the public key.
func (i KeyInfo) Public() (crypto.PublicKey, error) {
	block, rest := pem.Decode([]byte(i.PublicKey))
	if block == nil || block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fw.Errorf(fw.Invalid, "key %q has no PEM public key", i.Name)
	}
	pub, err := dsse.ParsePublicKey(block.Bytes)
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "key %q has a malformed public key", i.Name)
	}
	return pub, nil
}

func algorithmOf(pub crypto.PublicKey) (Algorithm, error) {
	switch k := pub.(type) {
	case ed25519.PublicKey:
		return Ed25519, nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return ECDSAP256, nil
		case elliptic.P384():
			return ECDSAP384, nil
		}
	case *rsa.PublicKey:
		switch k.N.BitLen() {
		case 2048:
			return RSA2048, nil
		case 3072:
			return RSA3072, nil
		}
	case *mldsa.PublicKey:
		if k.Parameters() == mldsa.MLDSA65() {
			return MLDSA65, nil
		}
	}
	return "", fw.Errorf(fw.Invalid, "keys of kind %T are not used here", pub)
}

func keyID(pub crypto.PublicKey) (string, error) {
	return dsse.KeyID(pub)
}

func generate(alg Algorithm) (crypto.Signer, error) {
	switch alg {
	case Ed25519:
		_, k, err := ed25519.GenerateKey(rand.Reader)
		return k, err
	case ECDSAP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ECDSAP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case RSA3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case MLDSA65:
		return mldsa.GenerateKey(mldsa.MLDSA65())
	}
	return nil, fw.Errorf(fw.Invalid, "unknown key algorithm %q", alg)
}

// private is an unlocked key. It never leaves the package; the types below
// give it the abilities of its purpose and no others.
type private struct {
	info KeyInfo
	key  crypto.Signer
}

type (
	// ImageKey signs firmware images.
	ImageKey struct{ k *private }
	// AuthorizationKey signs authorizations.
	AuthorizationKey struct{ k *private }
	// LogKey signs checkpoints and receipts.
	LogKey struct{ k *private }
	// DeviceCAKey signs certificates and revocation lists.
	DeviceCAKey struct{ k *private }
	// RosterRootKey signs rosters and trust bundles.
	RosterRootKey struct{ k *private }
	// StatementKey signs release statements.
	StatementKey struct{ k *private }
)
