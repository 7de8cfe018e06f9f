package signerd

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/writ-project/writ/internal/fw"
)

// ca issues certificates into a folder.
type ca struct {
	w    *world
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (w *world) ca() *ca {
	w.tb.Helper()
	c := &ca{w: w, dir: w.tb.TempDir()}
	var err error
	c.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, c.key.Public(), c.key)
	w.must(err)
	c.cert, err = x509.ParseCertificate(der)
	w.must(err)
	c.write("ca.pem", "CERTIFICATE", der)
	return c
}

func (c *ca) path(name string) string { return filepath.Join(c.dir, name) }

func (c *ca) write(name, kind string, der []byte) {
	c.w.must(os.WriteFile(c.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

// issue makes NAME.pem and NAME.key.
func (c *ca) issue(name string, usage x509.ExtKeyUsage) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	c.w.must(err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}, c.cert, key.Public(), c.key)
	c.w.must(err)
	c.write(name+".pem", "CERTIFICATE", der)
	der, err = x509.MarshalPKCS8PrivateKey(key)
	c.w.must(err)
	c.write(name+".key", "PRIVATE KEY", der)
}

func TestOverTLSBothSidesSayWhoTheyAre(t *testing.T) {
	w := newWorld(t)
	ours, theirs := w.ca(), w.ca()
	ours.issue("localhost", x509.ExtKeyUsageServerAuth)
	for _, name := range []string{"writ.test", "other.test"} {
		ours.issue(name, x509.ExtKeyUsageClientAuth)
	}
	theirs.issue("writ.test", x509.ExtKeyUsageClientAuth)
	addr := w.listen(&Listen{
		Addr: "localhost:0", Certificate: ours.path("localhost.pem"), Key: ours.path("localhost.key"),
		ClientCA: ours.path("ca.pem"), ClientNames: []string{"writ.test"},
	})
	_, port, _ := bytes.Cut([]byte(addr[len(addr)-6:]), []byte(":"))
	dial := func(trust, from *ca, name string) *Client {
		c, err := NewClient(ClientConfig{
			Address: "https://localhost:" + string(port), CA: trust.path("ca.pem"), Certificate: from.path(name + ".pem"), Key: from.path(name + ".key"),
		})
		w.must(err)
		t.Cleanup(c.Close)
		return c
	}
	if _, err := dial(ours, ours, "writ.test").SignImage(t.Context(), w.order("1.0.0"), bytes.NewReader(w.input), io.Discard); err != nil {
		t.Error(err)
	}
	_, err := dial(ours, ours, "other.test").Info(t.Context())
	wantError(t, err, fw.Forbidden, "may not ask this signer")
	_, err = dial(ours, theirs, "writ.test").Info(t.Context())
	wantError(t, err, fw.Unavailable, "cannot be reached")
	_, err = dial(theirs, ours, "writ.test").Info(t.Context())
	wantError(t, err, fw.Unavailable, "certificate")
}

func TestAddressesThatAreNone(t *testing.T) {
	for address, words := range map[string]string{
		"":                         "is not unix:PATH",
		"unix:":                    "is not unix:PATH",
		"http://localhost:1":       "is not unix:PATH",
		"https://":                 "is not unix:PATH",
		"https://user@localhost:1": "is not unix:PATH",
		"https://localhost:1/path": "is not unix:PATH",
		"https://localhost:1":      "--signer-ca",
	} {
		_, err := NewClient(ClientConfig{Address: address})
		wantError(t, err, fw.Invalid, words)
	}
}
