// Package cmstest makes the keys and certificates that tests of CMS signatures
// sign with. Programs do not import it.
package cmstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Kind is a kind of key.
type Kind string

// Kinds of keys.
const (
	RSA  Kind = "rsa2048"
	P256 Kind = "p256"
	P384 Kind = "p384"
)

// The validity of every certificate made here, which the clock of no machine
// that runs tests has left.
var (
	NotBefore = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	NotAfter  = time.Date(2124, 1, 1, 0, 0, 0, 0, time.UTC)
)

// CA certifies signers.
type CA struct {
	Certificate *x509.Certificate
	key         crypto.Signer
	serial      int64
}

// Signer is a signing key with its certificate.
type Signer struct {
	crypto.Signer
	Certificate *x509.Certificate
}

// RSA keys are slow to make, and one does for all: what differs is certified.
var rsaKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// NewKey makes a key. RSA keys of one process are the same key.
func NewKey(tb testing.TB, kind Kind) crypto.Signer {
	tb.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case RSA:
		key, err = rsaKey()
	case P256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case P384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// NewCA makes a self-signed CA.
func NewCA(tb testing.TB, name string) *CA {
	tb.Helper()
	key := NewKey(tb, P256)
	t := template(name, 1)
	t.IsCA, t.KeyUsage = true, x509.KeyUsageCertSign
	return &CA{issue(tb, t, t, key.Public(), key), key, 1}
}

// Intermediate makes a CA that ca certified.
func (ca *CA) Intermediate(tb testing.TB, name string) *CA {
	tb.Helper()
	key := NewKey(tb, P256)
	t := template(name, ca.next())
	t.IsCA, t.KeyUsage = true, x509.KeyUsageCertSign
	return &CA{issue(tb, t, ca.Certificate, key.Public(), ca.key), key, 1}
}

// Signer makes a signer of that kind with extended key usages, or without any.
// edit, if not nil, changes its certificate before it is signed.
func (ca *CA) Signer(tb testing.TB, kind Kind, edit func(*x509.Certificate), usage ...x509.ExtKeyUsage) Signer {
	tb.Helper()
	key := NewKey(tb, kind)
	t := template("signer "+string(kind), ca.next())
	t.KeyUsage, t.ExtKeyUsage = x509.KeyUsageDigitalSignature, usage
	if edit != nil {
		edit(t)
	}
	return Signer{key, issue(tb, t, ca.Certificate, key.Public(), ca.key)}
}

func (ca *CA) next() int64 {
	ca.serial++
	return ca.serial
}

func template(name string, serial int64) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: NotBefore, NotAfter: NotAfter, BasicConstraintsValid: true,
	}
}

func issue(tb testing.TB, t, parent *x509.Certificate, pub crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	tb.Helper()
	if len(t.SubjectKeyId) == 0 && !t.IsCA {
		der, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			tb.Fatal(err)
		}
		t.SubjectKeyId = der[len(der)-20:]
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, pub, by)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// Write writes a file into dir and returns its path.
func Write(tb testing.TB, dir, name string, b []byte) string {
	tb.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// PEM writes certificates as one PEM file and returns its path.
func PEM(tb testing.TB, dir, name string, certs ...*x509.Certificate) string {
	tb.Helper()
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return Write(tb, dir, name, out)
}

// KeyPEM writes a private key as PKCS #8 and returns its path.
func KeyPEM(tb testing.TB, dir, name string, key crypto.Signer) string {
	tb.Helper()
	if s, ok := key.(Signer); ok {
		key = s.Signer
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	return Write(tb, dir, name, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// ReadCertificate reads the first certificate of a PEM file.
func ReadCertificate(tb testing.TB, path string) *x509.Certificate {
	tb.Helper()
	b, err := os.ReadFile(path) //nolint:gosec // G304: a test names its own files
	if err != nil {
		tb.Fatal(err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		tb.Fatalf("%s: no PEM", path)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// Tool returns the path of a program, or skips the test. WRIT_REQUIRE_TOOLS=1
// makes its absence a failure.
func Tool(tb testing.TB, name string) string {
	tb.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("WRIT_REQUIRE_TOOLS") == "1" {
			tb.Fatalf("WRIT_REQUIRE_TOOLS=1, and %s is not on PATH", name)
		}
		tb.Skipf("skipped: cross-check against %s, which is not on PATH", name)
	}
	return path
}

// Run runs a program to its end and returns what it wrote.
func Run(tb testing.TB, path string, args ...string) ([]byte, error) {
	tb.Helper()
	return exec.CommandContext(tb.Context(), path, args...).CombinedOutput() //nolint:gosec // G204: a test names its own programs
}
