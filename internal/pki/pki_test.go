package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/writ-project/writ/internal/fw"
)

var t0 = time.Date(2027, 1, 15, 8, 0, 0, 0, time.UTC)

func newKey(tb testing.TB, c elliptic.Curve) *ecdsa.PrivateKey {
	tb.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func newCSR(tb testing.TB, key crypto.Signer, tmpl *x509.CertificateRequest) []byte {
	tb.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

func cn(s string) pkix.Name { return pkix.Name{CommonName: s} }

// authority is a CA with its key in the test.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func sign(tb testing.TB, tmpl, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	tb.Helper()
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, key)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func newAuthority(tb testing.TB) authority {
	tb.Helper()
	k := newKey(tb, elliptic.P256())
	tmpl, err := NewCATemplate("writ device CA", k.Public(), 0, t0)
	if err != nil {
		tb.Fatal(err)
	}
	return authority{k, sign(tb, tmpl, tmpl, k.Public(), k)}
}

func (a authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func (a authority) device(tb testing.TB, key crypto.Signer, change func(*x509.Certificate)) *x509.Certificate {
	tb.Helper()
	csr, err := ParseCSR(newCSR(tb, key, &x509.CertificateRequest{Subject: cn("gw-1")}))
	if err != nil {
		tb.Fatal(err)
	}
	tmpl, err := DeviceTemplate(csr, DeviceProfile{}, "gateway", "gw-1", t0)
	if err != nil {
		tb.Fatal(err)
	}
	if change != nil {
		change(tmpl)
	}
	return sign(tb, tmpl, a.cert, key.Public(), a.key)
}

func TestParseCSRAcceptsDERAndPEM(t *testing.T) {
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	for name, key := range map[string]crypto.Signer{"P-256": newKey(t, elliptic.P256()), "Ed25519": ed} {
		der := newCSR(t, key, &x509.CertificateRequest{Subject: cn("gw-1"), DNSNames: []string{"gw-1"}})
		for _, b := range [][]byte{der, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})} {
			csr, err := ParseCSR(b)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if err := csr.CheckDevice("gateway", "gw-1"); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if err := csr.CheckDevice("gateway", "gw-2"); fw.KindOf(err) != fw.Forbidden {
				t.Errorf("%s: another device: %v", name, err)
			}
		}
	}
}

func TestParseCSRRefuses(t *testing.T) {
	k := newKey(t, elliptic.P256())
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	good := newCSR(t, k, &x509.CertificateRequest{Subject: cn("gw-1")})
	broken := bytes.Clone(good)
	broken[len(broken)-1] ^= 1
	ext := func(oid asn1.ObjectIdentifier, v []byte) *x509.CertificateRequest {
		return &x509.CertificateRequest{Subject: cn("gw-1"), ExtraExtensions: []pkix.Extension{{Id: oid, Value: v}}}
	}
	caTrue, err := asn1.Marshal(struct{ CA bool }{true})
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"nothing":         nil,
		"junk":            []byte("hello"),
		"truncated":       good[:len(good)-10],
		"trailing bytes":  append(bytes.Clone(good), 0),
		"a bad signature": broken,
		"oversized":       make([]byte, maxCSR+1),
		"RSA":             newCSR(t, rsaKey, &x509.CertificateRequest{Subject: cn("gw-1")}),
		"P-384":           newCSR(t, newKey(t, elliptic.P384()), &x509.CertificateRequest{Subject: cn("gw-1")}),
		"P-521":           newCSR(t, newKey(t, elliptic.P521()), &x509.CertificateRequest{Subject: cn("gw-1")}),
		"P-224":           newCSR(t, newKey(t, elliptic.P224()), &x509.CertificateRequest{Subject: cn("gw-1")}),
		"no common name":  newCSR(t, k, &x509.CertificateRequest{Subject: pkix.Name{Organization: []string{"x"}}}),
		"two common names": newCSR(t, k, &x509.CertificateRequest{Subject: pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{
			{Type: oidCommonName, Value: "gw-1"}, {Type: oidCommonName, Value: "gw-2"},
		}}}),
		"a CA":                newCSR(t, k, ext(oidBasicConstraints, caTrue)),
		"a foreign extension": newCSR(t, k, ext(asn1.ObjectIdentifier{1, 2, 3}, []byte{5, 0})),
		"name constraints":    newCSR(t, k, ext(asn1.ObjectIdentifier{2, 5, 29, 30}, []byte{0x30, 0})),
		"an IP address":       newCSR(t, k, &x509.CertificateRequest{Subject: cn("gw-1"), IPAddresses: []net.IP{net.IPv4(1, 2, 3, 4)}}),
		"a huge subject":      newCSR(t, k, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "gw-1", Organization: []string{strings.Repeat("x", 2000)}}}),
		"a PEM certificate":   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: good}),
		"two PEM blocks":      bytes.Repeat(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: good}), 2),
	} {
		if csr, err := ParseCSR(b); err == nil {
			t.Errorf("%s: accepted %+v", name, csr)
		} else if k := fw.KindOf(err); k == fw.Internal {
			t.Errorf("%s: %v has no kind", name, err)
		}
	}
	uri, _ := url.Parse(DeviceURI("gateway", "gw-2"))
	for name, r := range map[string]*x509.CertificateRequest{
		"another DNS name": {Subject: cn("gw-1"), DNSNames: []string{"gw-2"}},
		"another URI":      {Subject: cn("gw-1"), URIs: []*url.URL{uri}},
	} {
		csr, err := ParseCSR(newCSR(t, k, r))
		if err != nil {
			t.Fatal(err)
		}
		if err := csr.CheckDevice("gateway", "gw-1"); fw.KindOf(err) != fw.Forbidden {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDeviceCertificateVerifies(t *testing.T) {
	ca := newAuthority(t)
	k := newKey(t, elliptic.P256())
	c := ca.device(t, k, nil)
	id, err := VerifyDevice([]*x509.Certificate{c}, ca.pool(), DeviceProfile{}, t0)
	if err != nil {
		t.Fatal(err)
	}
	thumb, err := Thumbprint(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	if id.Product != "gateway" || id.Device != "gw-1" || id.Status != CertValid || id.Thumbprint != thumb || id.Fingerprint != fw.DigestOf(c.Raw) {
		t.Errorf("%+v", id)
	}
	if c.SerialNumber.BitLen() > 159 || c.SerialNumber.Sign() <= 0 || len(c.SubjectKeyId) != 20 || !bytes.Equal(c.AuthorityKeyId, ca.cert.SubjectKeyId) {
		t.Error("serial or key identifiers are off the profile")
	}
	if c.KeyUsage != x509.KeyUsageDigitalSignature || c.IsCA || !c.BasicConstraintsValid {
		t.Error("usages are off the profile")
	}
	if d := c.NotAfter.Sub(t0); d != DefaultDeviceLife {
		t.Errorf("lives %v", d)
	}
	if !ca.cert.MaxPathLenZero || !ca.cert.IsCA {
		t.Error("the CA is off the profile")
	}
}

func TestExpiryIsAValue(t *testing.T) {
	ca := newAuthority(t)
	c := ca.device(t, newKey(t, elliptic.P256()), nil)
	for _, tc := range []struct {
		at   time.Time
		want CertStatus
	}{
		{c.NotBefore.Add(-time.Second), CertNotYetValid},
		{c.NotBefore, CertValid},
		{c.NotAfter.Add(-DefaultRenewBefore), CertValid},
		{c.NotAfter.Add(-DefaultRenewBefore + time.Second), CertRenewalDue},
		{c.NotAfter, CertRenewalDue},
		{c.NotAfter.Add(time.Second), CertExpired},
		{c.NotAfter.AddDate(30, 0, 0), CertExpired},
		{c.NotBefore.AddDate(-30, 0, 0), CertNotYetValid},
	} {
		id, err := VerifyDevice([]*x509.Certificate{c}, ca.pool(), DeviceProfile{}, tc.at)
		if err != nil {
			t.Fatal(err)
		}
		if id.Status != tc.want {
			t.Errorf("at %v: %s, want %s", tc.at, id.Status, tc.want)
		}
	}
	// A CA that ended first takes its leaves along.
	id, err := VerifyDevice([]*x509.Certificate{ca.device(t, newKey(t, elliptic.P256()), func(c *x509.Certificate) {
		c.NotAfter = ca.cert.NotAfter.AddDate(1, 0, 0)
	})}, ca.pool(), DeviceProfile{}, ca.cert.NotAfter.Add(time.Hour))
	if err != nil || id.Status != CertExpired {
		t.Errorf("under an expired CA: %s, %v", id.Status, err)
	}
}

func TestVerifyDeviceRefuses(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	k := newKey(t, elliptic.P256())
	good := ca.device(t, k, nil)
	broken := *good
	broken.Signature = bytes.Clone(good.Signature)
	broken.Signature[10] ^= 1
	server, err := ServerTemplate(k.Public(), ServerProfile{}, []string{"localhost"}, t0)
	if err != nil {
		t.Fatal(err)
	}
	web, _ := url.Parse("https://example.org/gw-1")
	for name, chain := range map[string][]*x509.Certificate{
		"nothing":           nil,
		"another CA's":      {other.device(t, k, nil)},
		"the CA itself":     {ca.cert},
		"a bad signature":   {&broken},
		"a server":          {sign(t, server, ca.cert, k.Public(), ca.key)},
		"no usage":          {ca.device(t, k, func(c *x509.Certificate) { c.ExtKeyUsage = nil })},
		"two usages":        {ca.device(t, k, func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) })},
		"no name":           {ca.device(t, k, func(c *x509.Certificate) { c.URIs = nil })},
		"two names":         {ca.device(t, k, func(c *x509.Certificate) { c.URIs = append(c.URIs, c.URIs[0]) })},
		"a name of the web": {ca.device(t, k, func(c *x509.Certificate) { c.URIs = []*url.URL{web} })},
		"a critical extension": {ca.device(t, k, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		})},
		"a long chain": {good, ca.cert, ca.cert, ca.cert, ca.cert},
	} {
		if id, err := VerifyDevice(chain, ca.pool(), DeviceProfile{}, t0); fw.KindOf(err) != fw.Unauthenticated {
			t.Errorf("%s: %+v, %v", name, id, err)
		}
	}
	if _, err := VerifyDevice([]*x509.Certificate{good}, nil, DeviceProfile{}, t0); err == nil {
		t.Error("verified under the system's roots")
	}
}

func TestTemplatesRefuse(t *testing.T) {
	k := newKey(t, elliptic.P256())
	csr, err := ParseCSR(newCSR(t, k, &x509.CertificateRequest{Subject: cn("gw-1")}))
	if err != nil {
		t.Fatal(err)
	}
	_, e1 := DeviceTemplate(csr, DeviceProfile{}, "gateway", "gw-2", t0)
	_, e2 := DeviceTemplate(csr, DeviceProfile{Life: time.Second}, "gateway", "gw-1", t0)
	_, e3 := DeviceTemplate(csr, DeviceProfile{Life: time.Hour, RenewBefore: time.Hour}, "gateway", "gw-1", t0)
	_, e4 := DeviceTemplate(csr, DeviceProfile{}, "gate:way", "gw-1", t0)
	_, e5 := ServerTemplate(k.Public(), ServerProfile{}, nil, t0)
	_, e6 := ServerTemplate(k.Public(), ServerProfile{}, []string{"*.example.org"}, t0)
	_, e7 := NewCATemplate("", k.Public(), 0, t0)
	_, e8 := NewCRLTemplate(big.NewInt(1), nil, t0, t0)
	for i, err := range []error{e1, e2, e3, e4, e5, e6, e7, e8} {
		if err == nil {
			t.Errorf("case %d accepted", i+1)
		}
	}
}

func TestDeviceURIRoundTrips(t *testing.T) {
	for _, id := range []fw.DeviceID{"gw-1", "00:11:22", "A.b_c"} {
		p, d, err := ParseDeviceURI(DeviceURI("gateway", id))
		if err != nil || p != "gateway" || d != id {
			t.Errorf("%s: %s %s %v", id, p, d, err)
		}
	}
	for _, bad := range []string{"", "urn:writ:device:", "urn:writ:device:gateway", "urn:writ:device:gateway:", "urn:writ:device::x", "urn:writ:device:gateway:a b", "URN:writ:device:gateway:a"} {
		if _, _, err := ParseDeviceURI(bad); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

// RFC 9679, section 6, has this key and this thumbprint.
func TestThumbprintMatchesRFC9679(t *testing.T) {
	x, _ := hex.DecodeString("65eda5a12577c2bae829437fe338701a10aaa375e1bb5b5de108de439c08551d")
	y, _ := hex.DecodeString("1e52ed75701163f7f9e40ddf9f341b3dc9ba860af7e0ca7ca7e9eecd0084d19c")
	pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
	if err != nil {
		t.Fatal(err)
	}
	got, err := Thumbprint(pub)
	if err != nil {
		t.Fatal(err)
	}
	if want := "496bd8afadf307e5b08c64b0421bf9dc01528a344a43bda88fadd1669da253ec"; got.Hex() != want {
		t.Errorf("Thumbprint = %s, want %s", got.Hex(), want)
	}
}

// Our hand-written CBOR is what a CBOR encoder makes in deterministic mode.
func TestCOSEKeyIsDeterministicCBOR(t *testing.T) {
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		t.Fatal(err)
	}
	edPub, _, _ := ed25519.GenerateKey(rand.Reader)
	p256 := &newKey(t, elliptic.P256()).PublicKey
	e, err := p256.ECDH()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		pub crypto.PublicKey
		m   map[int]any
	}{
		{edPub, map[int]any{1: 1, -1: 6, -2: []byte(edPub)}},
		{p256, map[int]any{1: 2, -1: 1, -2: e.Bytes()[1:33], -3: e.Bytes()[33:]}},
	} {
		want, err := mode.Marshal(c.m)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := coseKey(c.pub); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%x, %v, want %x", got, err, want)
		}
	}
	if _, err := Thumbprint(newKey(t, elliptic.P384()).Public()); err == nil {
		t.Error("P-384 has a thumbprint")
	}
}

func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("WRIT_REQUIRE_TOOLS") == "1" {
			t.Fatalf("%s is required and not installed", name)
		}
		t.Skipf("%s is not installed", name)
	}
	return path
}

// OpenSSL accepts our certificates and lists, and its requests are ours.
func TestCertificatesPassOpenSSL(t *testing.T) {
	openssl := tool(t, "openssl")
	dir := t.TempDir()
	file := func(name, kind string, der []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), openssl, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("openssl %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	ca := newAuthority(t)
	caFile := file("ca.pem", "CERTIFICATE", ca.cert.Raw)

	// The request comes from OpenSSL, whose subject is a UTF8String.
	keyFile, csrFile := filepath.Join(dir, "dev.key"), filepath.Join(dir, "dev.csr")
	run("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", keyFile, "-out", csrFile, "-subj", "/CN=gw-1", "-sha256")
	b, err := os.ReadFile(csrFile)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := ParseCSR(b)
	if err != nil {
		t.Fatal(err)
	}
	tmpl, err := DeviceTemplate(csr, DeviceProfile{}, "gateway", "gw-1", t0)
	if err != nil {
		t.Fatal(err)
	}
	device := sign(t, tmpl, ca.cert, csr.PublicKey, ca.key)
	if !bytes.Equal(device.RawSubject, csr.RawSubject) {
		t.Error("the subject was encoded again")
	}
	devFile := file("dev.pem", "CERTIFICATE", device.Raw)

	sk := newKey(t, elliptic.P256())
	stmpl, err := ServerTemplate(sk.Public(), ServerProfile{}, []string{"updates.example.org", "127.0.0.1"}, t0)
	if err != nil {
		t.Fatal(err)
	}
	srvFile := file("srv.pem", "CERTIFICATE", sign(t, stmpl, ca.cert, sk.Public(), ca.key).Raw)

	at := t0.Add(time.Hour).Unix()
	run("verify", "-x509_strict", "-attime", big.NewInt(at).String(), "-CAfile", caFile, "-purpose", "sslclient", devFile)
	run("verify", "-x509_strict", "-attime", big.NewInt(at).String(), "-CAfile", caFile, "-purpose", "sslserver", "-verify_hostname", "updates.example.org", srvFile)
	text := run("x509", "-noout", "-text", "-in", devFile)
	for _, want := range []string{"urn:writ:device:gateway:gw-1", "TLS Web Client Authentication", "Digital Signature", "CA:FALSE", "CN = gw-1", "X509v3 Subject Key Identifier", "X509v3 Authority Key Identifier"} {
		if !strings.Contains(text, want) {
			t.Errorf("openssl x509 -text does not show %q:\n%s", want, text)
		}
	}
	if text := run("x509", "-noout", "-text", "-in", caFile); !strings.Contains(text, "CA:TRUE, pathlen:0") {
		t.Errorf("the CA:\n%s", text)
	}

	ctmpl, err := NewCRLTemplate(big.NewInt(1), []Revoked{{device.SerialNumber, t0, ReasonKeyCompromise}}, t0, t0.Add(24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	crl, err := x509.CreateRevocationList(rand.Reader, ctmpl, ca.cert, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	crlFile := file("ca.crl", "X509 CRL", crl)
	run("crl", "-noout", "-in", crlFile, "-CAfile", caFile)
	out, err := exec.CommandContext(t.Context(), openssl, "verify", "-attime", big.NewInt(at).String(), "-CAfile", caFile, "-CRLfile", crlFile, "-crl_check", devFile).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "revoked") {
		t.Errorf("openssl does not find the certificate revoked: %s", out)
	}
}

func FuzzParseCSR(f *testing.F) {
	f.Add(newCSR(f, newKey(f, elliptic.P256()), &x509.CertificateRequest{Subject: cn("gw-1"), DNSNames: []string{"gw-1"}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		csr, err := ParseCSR(b)
		if err != nil {
			return
		}
		if csr.CommonName == "" || len(csr.RawSubject) > maxSubject || CheckKey(csr.PublicKey) != nil {
			t.Fatalf("accepted %+v", csr)
		}
	})
}

func BenchmarkVerifyDevice(b *testing.B) {
	ca := newAuthority(b)
	chain := []*x509.Certificate{ca.device(b, newKey(b, elliptic.P256()), nil)}
	pool := ca.pool()
	for b.Loop() {
		if _, err := VerifyDevice(chain, pool, DeviceProfile{}, t0); err != nil {
			b.Fatal(err)
		}
	}
}
