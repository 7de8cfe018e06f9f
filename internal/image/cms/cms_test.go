package cms_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/writ-project/writ/internal/fwtest/cmstest"
	"github.com/writ-project/writ/internal/image"
	"github.com/writ-project/writ/internal/image/cms"
)

var content = []byte("software = { version = \"1.2.3\"; }\n")

func signDigest(tb testing.TB, s cmstest.Signer, b []byte, opt cms.Options) []byte {
	tb.Helper()
	h, err := cms.Hash(s.Public())
	if err != nil {
		tb.Fatal(err)
	}
	d := h.New()
	d.Write(b)
	if opt.Chain == nil {
		opt.Chain = []*x509.Certificate{s.Certificate}
	}
	der, err := cms.SignDigest(s, d.Sum(nil), opt)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

func verify(der, b []byte, trust cms.Trust) ([]cms.Signer, error) {
	s, err := cms.Parse(der)
	if err != nil {
		return nil, err
	}
	if b == nil {
		return s.Verify(nil, trust)
	}
	d := s.NewDigests()
	if _, err := io.Copy(d, bytes.NewReader(b)); err != nil {
		return nil, err
	}
	return s.Verify(d, trust)
}

func trusting(c *x509.Certificate) cms.Trust {
	return cms.Trust{Keys: []crypto.PublicKey{image.CA{Certificate: c}}}
}

func wantReason(tb testing.TB, err error, want image.ReasonError) {
	tb.Helper()
	if !errors.Is(err, want) {
		tb.Errorf("got %v, want reason %q", err, want)
	}
}

type variant struct {
	name string
	kind cmstest.Kind
	pss  bool
	alg  string
}

var variants = []variant{
	{"rsa", cmstest.RSA, false, "rsa2048-pkcs1-sha256"},
	{"rsa-pss", cmstest.RSA, true, "rsa2048-pss-sha256"},
	{"p256", cmstest.P256, false, "ecdsa-p256-sha256"},
	{"p384", cmstest.P384, false, "ecdsa-p384-sha384"},
}

func TestOpenSSLAndWeAgree(t *testing.T) {
	openssl := cmstest.Tool(t, "openssl")
	dir := t.TempDir()
	root := cmstest.NewCA(t, "root")
	sub := root.Intermediate(t, "sub")
	rootPEM := cmstest.PEM(t, dir, "root.pem", root.Certificate)
	other := cmstest.PEM(t, dir, "other.pem", cmstest.NewCA(t, "root").Certificate)
	file := cmstest.Write(t, dir, "content", content)
	changed := cmstest.Write(t, dir, "changed", append(bytes.Clone(content), ' '))
	subPEM := cmstest.PEM(t, dir, "sub.pem", sub.Certificate)
	for _, tc := range variants {
		t.Run(tc.name, func(t *testing.T) {
			signer := sub.Signer(t, tc.kind, nil, x509.ExtKeyUsageEmailProtection)
			chain := []*x509.Certificate{signer.Certificate, sub.Certificate}
			opt := cms.Options{Chain: chain, PSS: tc.pss, Time: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)}

			// Ours to OpenSSL.
			detached := cmstest.Write(t, t.TempDir(), "detached.der", signDigest(t, signer, content, opt))
			check := func(ca, in string) ([]byte, error) {
				return cmstest.Run(t, openssl, "cms", "-verify", "-inform", "DER", "-binary", "-in", detached, "-content", in, "-CAfile", ca, "-out", os.DevNull)
			}
			if out, err := check(rootPEM, file); err != nil {
				t.Errorf("openssl refuses our signature: %v\n%s", err, out)
			}
			if out, err := check(other, file); err == nil {
				t.Errorf("openssl accepts it under another CA:\n%s", out)
			}
			if out, err := check(rootPEM, changed); err == nil {
				t.Errorf("openssl accepts it over another content:\n%s", out)
			}
			der, err := cms.SignContent(signer, content, opt)
			if err != nil {
				t.Fatal(err)
			}
			attached := cmstest.Write(t, t.TempDir(), "attached.der", der)
			got := filepath.Join(t.TempDir(), "content")
			if out, err := cmstest.Run(t, openssl, "cms", "-verify", "-inform", "DER", "-binary", "-in", attached, "-CAfile", rootPEM, "-out", got); err != nil {
				t.Errorf("openssl refuses our attached signature: %v\n%s", err, out)
			}
			if b, err := os.ReadFile(got); err != nil || !bytes.Equal(b, content) {
				t.Errorf("openssl takes out %q, %v", b, err)
			}

			// OpenSSL's to us.
			ours := filepath.Join(t.TempDir(), "openssl.der")
			args := []string{
				"cms", "-sign", "-binary", "-nosmimecap", "-outform", "DER", "-in", file, "-out", ours, "-certfile", subPEM,
				"-signer", cmstest.PEM(t, t.TempDir(), "signer.pem", signer.Certificate), "-inkey", cmstest.KeyPEM(t, t.TempDir(), "key.pem", signer),
			}
			if tc.pss {
				args = append(args, "-keyopt", "rsa_padding_mode:pss")
			}
			if tc.kind == cmstest.P384 {
				args = append(args, "-md", "sha384")
			}
			for _, extra := range [][]string{nil, {"-nodetach"}, {"-keyid"}} {
				if out, err := cmstest.Run(t, openssl, append(args, extra...)...); err != nil {
					t.Fatalf("openssl: %v\n%s", err, out)
				}
				der, err := os.ReadFile(ours)
				if err != nil {
					t.Fatal(err)
				}
				over, inside := content, []byte(nil)
				if len(extra) > 0 && extra[0] == "-nodetach" {
					over, inside = nil, content
				}
				signers, err := verify(der, over, trusting(root.Certificate))
				if err != nil {
					t.Fatalf("%v: %v", extra, err)
				}
				if len(signers) != 1 || signers[0].Algorithm != tc.alg || signers[0].Time.IsZero() || !bytes.Equal(signers[0].Certificate.Raw, signer.Certificate.Raw) {
					t.Errorf("%v: got %+v", extra, signers)
				}
				s, err := cms.Parse(der)
				if err != nil || !bytes.Equal(s.Content, inside) {
					t.Errorf("%v: content %q, %v", extra, s.Content, err)
				}
				if b, err := cms.Content(der); bytes.Equal(b, content) != (inside != nil) || (err == nil) != (inside != nil) {
					t.Errorf("%v: Content gives %q, %v", extra, b, err)
				}
				_, err = verify(der, over, trusting(cmstest.NewCA(t, "root").Certificate))
				wantReason(t, err, image.ErrUnknownKey)
			}
		})
	}
}

func TestVerifySaysWhoSigned(t *testing.T) {
	root := cmstest.NewCA(t, "root")
	for _, tc := range variants {
		s := root.Signer(t, tc.kind, nil, x509.ExtKeyUsageEmailProtection)
		der := signDigest(t, s, content, cms.Options{PSS: tc.pss})
		for name, trust := range map[string]cms.Trust{
			"ca":          trusting(root.Certificate),
			"key":         {Keys: []crypto.PublicKey{"no key", s.Public()}},
			"certificate": trusting(s.Certificate),
		} {
			got, err := verify(der, content, trust)
			if err != nil {
				t.Errorf("%s by %s: %v", tc.name, name, err)
				continue
			}
			id, _ := image.KeyID(s.Public())
			if len(got) != 1 || got[0].KeyID != id || got[0].Algorithm != tc.alg || !got[0].Time.IsZero() {
				t.Errorf("%s by %s: got %+v", tc.name, name, got)
			}
		}
		_, err := verify(der, append(bytes.Clone(content), 0), trusting(root.Certificate))
		wantReason(t, err, image.ErrBadDigest)
		_, err = verify(der, nil, trusting(root.Certificate))
		wantReason(t, err, image.ErrMalformed)
		_, err = verify(der, content, cms.Trust{})
		wantReason(t, err, image.ErrUnknownKey)
		attached, err := cms.SignContent(s, content, cms.Options{Chain: []*x509.Certificate{s.Certificate}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = verify(attached, content, trusting(root.Certificate))
		wantReason(t, err, image.ErrMalformed)
	}
}

func TestPurposeIsCheckedBothWays(t *testing.T) {
	root := cmstest.NewCA(t, "root")
	email, code, server, anyUse := x509.ExtKeyUsageEmailProtection, x509.ExtKeyUsageCodeSigning, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageAny
	for _, tc := range []struct {
		name                string
		usage               []x509.ExtKeyUsage
		email, code, either bool
	}{
		{"none", nil, true, false, true},
		{"email", []x509.ExtKeyUsage{email}, true, false, true},
		{"code", []x509.ExtKeyUsage{code}, false, true, true},
		{"both", []x509.ExtKeyUsage{code, email}, true, true, true},
		{"server", []x509.ExtKeyUsage{server}, false, false, false},
		{"any", []x509.ExtKeyUsage{anyUse}, false, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := root.Signer(t, cmstest.P256, nil, tc.usage...)
			sum := crypto.SHA256.New()
			sum.Write(content)
			var der []byte
			for _, p := range []struct {
				purpose cms.Purpose
				ok      bool
			}{{"", tc.email}, {cms.EmailProtection, tc.email}, {cms.CodeSigning, tc.code}} {
				got, err := cms.SignDigest(s, sum.Sum(nil), cms.Options{Chain: []*x509.Certificate{s.Certificate}, Purpose: p.purpose})
				if (err == nil) != p.ok || err != nil && !errors.Is(err, image.ErrWrongPurpose) {
					t.Errorf("signing for %q: %v", p.purpose, err)
				}
				if err == nil {
					der = got
				}
			}
			if der == nil {
				// Made as if it were good, to be refused by Verify.
				der = resigned(t, root, s)
			}
			for _, keys := range [][]crypto.PublicKey{{image.CA{Certificate: root.Certificate}}, {s.Public()}} {
				for purpose, ok := range map[cms.Purpose]bool{cms.EmailProtection: tc.email, cms.CodeSigning: tc.code, cms.EitherPurpose: tc.either, "": tc.either} {
					_, err := verify(der, content, cms.Trust{Keys: keys, Purpose: purpose})
					if (err == nil) != ok || err != nil && !errors.Is(err, image.ErrWrongPurpose) {
						t.Errorf("verifying for %q: %v", purpose, err)
					}
				}
			}
		})
	}
	noSigning := root.Signer(t, cmstest.P256, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment })
	_, err := cms.SignDigest(noSigning, make([]byte, 32), cms.Options{Chain: []*x509.Certificate{noSigning.Certificate}})
	wantReason(t, err, image.ErrWrongPurpose)
	limited := root.Signer(t, cmstest.P256, nil)
	for _, p := range []cms.Purpose{cms.EitherPurpose, "sport"} {
		_, err = cms.SignDigest(limited, make([]byte, 32), cms.Options{Chain: []*x509.Certificate{limited.Certificate}, Purpose: p})
		wantReason(t, err, image.ErrBadOptions)
	}
}

// resigned is a signature by s with its own certificate, which Sign refuses to
// make: it is made with a certificate of the same serial number and length, and
// then exchanged.
func resigned(t *testing.T, root *cmstest.CA, s cmstest.Signer) []byte {
	t.Helper()
	good := *s.Certificate
	good.ExtKeyUsage = nil // what Sign looks at; Raw stays
	good.UnknownExtKeyUsage = nil
	sum := crypto.SHA256.New()
	sum.Write(content)
	der, err := cms.SignDigest(s, sum.Sum(nil), cms.Options{Chain: []*x509.Certificate{&good}})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestSigningRefusesChainsThatDevicesWould(t *testing.T) {
	root := cmstest.NewCA(t, "root")
	s, other := root.Signer(t, cmstest.P256, nil), root.Signer(t, cmstest.P384, nil)
	long := make([]*x509.Certificate, 17)
	for i := range long {
		long[i] = s.Certificate
	}
	digest := make([]byte, 32)
	for name, opt := range map[string]cms.Options{
		"no chain":       {},
		"other's":        {Chain: []*x509.Certificate{other.Certificate}},
		"not its issuer": {Chain: []*x509.Certificate{s.Certificate, other.Certificate}},
		"too long":       {Chain: long},
		"too early":      {Chain: []*x509.Certificate{s.Certificate}, Time: cmstest.NotBefore.Add(-time.Second)},
	} {
		if der, err := cms.SignDigest(s, digest, opt); !errors.Is(err, image.ErrBadOptions) {
			t.Errorf("%s: got %x, %v", name, der, err)
		}
	}
	ok := cms.Options{Chain: []*x509.Certificate{s.Certificate, root.Certificate}}
	if _, err := cms.SignDigest(s, digest, ok); err != nil {
		t.Error(err)
	}
	if _, err := cms.SignDigest(s, digest[1:], ok); !errors.Is(err, image.ErrBadOptions) {
		t.Errorf("short digest: %v", err)
	}
	for _, b := range [][]byte{nil, make([]byte, cms.MaxSize)} {
		if _, err := cms.SignContent(s, b, ok); !errors.Is(err, image.ErrTooLarge) {
			t.Errorf("content of %d bytes: %v", len(b), err)
		}
	}
}

func TestCertificatesAreCheckedAtTheRightTime(t *testing.T) {
	root := cmstest.NewCA(t, "root")
	from, to := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2025, 2, 1, 0, 0, 0, 0, time.UTC)
	s := root.Signer(t, cmstest.P256, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = from, to })
	inside := from.Add(time.Hour)
	plain := signDigest(t, s, content, cms.Options{})
	dated := signDigest(t, s, content, cms.Options{Time: inside})
	for _, keys := range [][]crypto.PublicKey{{image.CA{Certificate: root.Certificate}}, {s.Public()}} {
		for _, der := range [][]byte{plain, dated} {
			for _, at := range []time.Time{{}, inside} {
				if _, err := verify(der, content, cms.Trust{Keys: keys, Time: at}); err != nil {
					t.Errorf("at %v: %v", at, err)
				}
			}
			for _, at := range []time.Time{from.Add(-time.Hour), to.Add(time.Hour)} {
				_, err := verify(der, content, cms.Trust{Keys: keys, Time: at})
				wantReason(t, err, image.ErrUnknownKey)
			}
		}
	}
	// The root was issued anew, after it certified the signer.
	if got, err := verify(dated, content, trusting(root.Certificate)); err != nil || !got[0].Time.Equal(inside) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestSmallKeysAndOtherKindsAreRefused(t *testing.T) {
	for _, pub := range []crypto.PublicKey{nil, "text", []byte{1}} {
		if h, err := cms.Hash(pub); !errors.Is(err, image.ErrUnsupported) {
			t.Errorf("%T: got %v, %v", pub, h, err)
		}
	}
}
