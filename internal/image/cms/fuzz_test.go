package cms_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"os"
	"testing"

	"github.com/writ-project/writ/internal/fwtest/cmstest"
	"github.com/writ-project/writ/internal/image"
	"github.com/writ-project/writ/internal/image/cms"
)

// Whatever is read can be listed, and nothing verifies that the sample's signer
// did not sign: the fuzzer has no private key.
func FuzzParse(f *testing.F) {
	ca := cmstest.ReadCertificate(f, "testdata/ca.pem")
	over, err := os.ReadFile("testdata/content")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range []string{"rsa.der", "ec.der"} {
		der, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := verify(der, over, trusting(ca)); err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	fresh := cmstest.NewCA(f, "fresh")
	for _, v := range variants {
		s := fresh.Signer(f, v.kind, nil)
		f.Add(signDigest(f, s, over, cms.Options{PSS: v.pss, Time: cmstest.NotBefore}))
		attached, err := cms.SignContent(s, over, cms.Options{Chain: []*x509.Certificate{s.Certificate}, PSS: v.pss})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(attached)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		if _, err := cms.Content(der); err != nil {
			if _, ok := image.ReasonOf(err); !ok {
				t.Fatalf("refused without a reason: %v", err)
			}
		}
		s, err := cms.Parse(der)
		if err != nil {
			if _, ok := image.ReasonOf(err); !ok {
				t.Fatalf("refused without a reason: %v", err)
			}
			return
		}
		if len(s.Signatures()) == 0 {
			t.Fatal("read one without signatures")
		}
		content := []byte("something else")
		if s.Content != nil {
			if b, err := cms.Content(der); err != nil || !bytes.Equal(b, s.Content) {
				t.Fatalf("the readers disagree: %q, %q, %v", s.Content, b, err)
			}
			content = nil
		}
		if got, err := verify(der, content, cms.Trust{Keys: []crypto.PublicKey{image.CA{Certificate: ca}}}); err == nil {
			t.Fatalf("verified what nobody signed: %+v over %s", got, hex.EncodeToString(content))
		} else if _, ok := image.ReasonOf(err); !ok {
			t.Fatalf("refused without a reason: %v", err)
		}
	})
}
