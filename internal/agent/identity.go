package agent

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"os"
	"path/filepath"
	"time"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/fw"
)

// identity is a key of the device with its certificates. A chain is missing
// only before enrolment.
type identity struct {
	key        *ecdsa.PrivateKey
	thumbprint fw.Digest
	chain      [][]byte // DER, leaf first
	leaf       *x509.Certificate
}

// Prefixes of the two identities' files.
const (
	currentID = ""
	nextID    = "next-"
)

// ensureKey reads a key of dir, or makes it if it is not there: an
// interrupted request is repeated with the same key.
func ensureKey(dir, prefix string) (*ecdsa.PrivateKey, error) {
	path := filepath.Join(dir, prefix+"key.pem")
	if exists(path) {
		return readKey(path)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fw.Wrap(fw.Internal, err, "cannot make a key")
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fw.Wrap(fw.Internal, err, "cannot encode the device's key")
	}
	if err := writeFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})); err != nil {
		return nil, fw.Wrap(fw.Internal, err, "cannot write the device's key")
	}
	return key, nil
}

func readKey(path string) (*ecdsa.PrivateKey, error) {
	b, err := os.ReadFile(path) //nolint:gosec // G304: within the state directory
	if err != nil {
		return nil, fw.Wrap(fw.NotFound, err, "cannot read %s: enrol this device first with writ-agent enroll", path)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fw.Errorf(fw.Corrupt, "%s is damaged", path)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fw.Wrap(fw.Corrupt, err, "%s is damaged", path)
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fw.Errorf(fw.Invalid, "%s is not a P-256 key", path)
	}
	return key, nil
}

// loadIdentity reads a key and its certificates, and requires that they
// belong together.
func loadIdentity(dir, prefix string) (*identity, error) {
	key, err := readKey(filepath.Join(dir, prefix+"key.pem"))
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, prefix+"cert.pem")
	b, err := os.ReadFile(path) //nolint:gosec // G304: within the state directory
	if err != nil {
		return nil, fw.Wrap(fw.NotFound, err, "cannot read %s: enrol this device first with writ-agent enroll", path)
	}
	id := &identity{key: key}
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		id.chain = append(id.chain, block.Bytes)
	}
	return id, id.check()
}

// check parses the leaf and compares keys.
func (id *identity) check() error {
	if len(id.chain) == 0 {
		return fw.Errorf(fw.Corrupt, "there is no certificate")
	}
	var err error
	if id.leaf, err = x509.ParseCertificate(id.chain[0]); err != nil {
		return fw.Wrap(fw.Corrupt, err, "the certificate is malformed")
	}
	if !id.key.PublicKey.Equal(id.leaf.PublicKey) {
		return fw.Errorf(fw.Corrupt, "the certificate is for another key")
	}
	id.thumbprint, err = authz.Thumbprint(id.key.Public())
	return err
}

// recoverIdentity loads the device's identity and finishes what a crash left
// of adopt.
func recoverIdentity(dir string) (*identity, error) {
	id, err := loadIdentity(dir, currentID)
	if err == nil || exists(filepath.Join(dir, nextID+"key.pem")) || !exists(filepath.Join(dir, nextID+"cert.pem")) {
		return id, err
	}
	if err := rename(filepath.Join(dir, nextID+"cert.pem"), filepath.Join(dir, "cert.pem")); err != nil {
		return nil, fw.Wrap(fw.Internal, err, "cannot finish the renewal")
	}
	return loadIdentity(dir, currentID)
}

// adopt makes the next identity the current one. The key goes first: that is
// how recoverIdentity sees how far it came.
func adopt(dir string) error {
	for _, name := range []string{"key.pem", "cert.pem"} {
		if err := rename(filepath.Join(dir, nextID+name), filepath.Join(dir, name)); err != nil {
			return fw.Wrap(fw.Internal, err, "cannot finish the renewal")
		}
	}
	return nil
}

// storeChain writes the certificates a server issued for key.
func storeChain(dir, prefix string, key *ecdsa.PrivateKey, chain [][]byte) (*identity, error) {
	id := &identity{key: key, chain: chain}
	if err := id.check(); err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "the server's answer is of no use")
	}
	var b []byte
	for _, der := range chain {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	if err := writeFile(filepath.Join(dir, prefix+"cert.pem"), b); err != nil {
		return nil, fw.Wrap(fw.Internal, err, "cannot write the certificate")
	}
	return id, nil
}

// request makes the PKCS #10 request for a device's certificate.
func request(key crypto.Signer, device fw.DeviceID) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: string(device)}}, key)
	if err != nil {
		return nil, fw.Wrap(fw.Internal, err, "cannot make the certificate request")
	}
	return der, nil
}

func (id *identity) tls() *tls.Certificate {
	return &tls.Certificate{Certificate: id.chain, PrivateKey: id.key, Leaf: id.leaf}
}

// renewDue reports whether two thirds of the certificate's life are over.
func (id *identity) renewDue(now time.Time) bool {
	life := id.leaf.NotAfter.Sub(id.leaf.NotBefore)
	return now.After(id.leaf.NotAfter.Add(-life / 3))
}
