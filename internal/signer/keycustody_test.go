package signer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"os"
	"strings"
	"testing"

	"github.com/writ-project/writ/internal/custody"
	"github.com/writ-project/writ/internal/custody/custodytest"
	"github.com/writ-project/writ/internal/fw"
)

// shelf is a custody back end in memory: it stands for the place, not for the
// code under test.
type shelf map[string]crypto.Signer

func (s shelf) Scheme() string { return "shelf" }
func (s shelf) Close() error   { return nil }

func (s shelf) Open(_ context.Context, uri string) (crypto.Signer, error) {
	if k, ok := s[uri]; ok {
		return k, nil
	}
	return nil, fw.Errorf(fw.NotFound, "nothing on the shelf at %s", uri)
}

func TestFilesKeepTheContractOfCustody(t *testing.T) {
	w := newWorld(t)
	for _, alg := range []Algorithm{ECDSAP256, ECDSAP384, RSA2048, RSA3072, Ed25519} {
		t.Run(string(alg), func(t *testing.T) {
			name := fw.KeyName("contract-" + string(alg))
			info, err := w.ks.Create(t.Context(), name, fw.PurposeImage, alg, t0)
			if err != nil {
				t.Fatal(err)
			}
			pub, err := info.Public()
			if err != nil {
				t.Fatal(err)
			}
			custodytest.Contract(t, func(t *testing.T) crypto.Signer {
				t.Helper()
				k, err := w.ks.use(name, fw.PurposeImage)
				if err != nil {
					t.Fatal(err)
				}
				return &scoped{key: k.key, uses: -1000, allow: func(m []byte, o crypto.SignerOpts) error {
					return custody.CheckInput(k.key.Public(), m, o)
				}}
			}, pub)
		})
	}
}

func TestAKeyElsewhereIsAKeyOfTheStore(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	big, err := rsa.GenerateKey(rand.Reader, 4096)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	place := shelf{"shelf:a": key, "shelf:big": big, "shelf:ed": ed}
	dir := t.TempDir()
	open := func(b ...custody.Backend) (*Keystore, error) {
		return OpenKeystore(dir, KeystoreOptions{Passphrase: []byte("p"), ScryptLogN: 4, Backends: b})
	}
	ks, err := open(place)
	if err != nil {
		t.Fatal(err)
	}
	info, err := ks.Attach(t.Context(), "image-a", fw.PurposeImage, "shelf:a", t0)
	if err != nil || info.Algorithm != ECDSAP384 || info.Custody != "shelf:a" {
		t.Fatalf("%+v %v", info, err)
	}
	for name, c := range map[string]struct {
		key     fw.KeyName
		purpose fw.Purpose
		uri     string
		kind    fw.Kind
	}{
		"a name that is taken":                {"image-a", fw.PurposeImage, "shelf:ed", fw.Conflict},
		"the same key under another name":     {"image-b", fw.PurposeImage, "shelf:a", fw.Conflict},
		"a key of a kind the purpose has not": {"log-b", fw.PurposeLog, "shelf:a", fw.Invalid},
		"a key of a size that is not used":    {"image-big", fw.PurposeImage, "shelf:big", fw.Invalid},
		"a key that is not there":             {"image-c", fw.PurposeImage, "shelf:none", fw.NotFound},
		"a place that is not set up":          {"image-c", fw.PurposeImage, "cloud:x", fw.Invalid},
		"no URI":                              {"image-c", fw.PurposeImage, "x", fw.Invalid},
		"a path for a name":                   {"../x", fw.PurposeImage, "shelf:ed", fw.Invalid},
	} {
		if _, err := ks.Attach(t.Context(), c.key, c.purpose, c.uri, t0); fw.KindOf(err) != c.kind {
			t.Errorf("%s: %v (%s), want %s", name, err, fw.KindOf(err), c.kind)
		}
	}
	if n := len(ks.List()); n != 1 {
		t.Errorf("refusals left %d keys", n)
	}

	// The private part is in no file.
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), "image-a") && f.Name() != "image-a"+publicSuffix {
			t.Errorf("there is a file %s", f.Name())
		}
	}

	if ks, err = open(place); err != nil {
		t.Fatal(err)
	}
	if k, err := ks.use("image-a", fw.PurposeImage); err != nil || !key.Equal(k.key) {
		t.Errorf("after a restart: %v", err)
	}
	if ks, err = open(); err != nil {
		t.Fatal(err)
	}
	if _, err := ks.use("image-a", fw.PurposeImage); fw.KindOf(err) != fw.Unavailable || !strings.Contains(err.Error(), "shelf:a") {
		t.Errorf("without the back end: %v", err)
	}
	if _, err := open(shelf{}); fw.KindOf(err) != fw.NotFound || !strings.Contains(err.Error(), "image-a") {
		t.Errorf("the key is gone from its place: %v", err)
	}
	if _, err := open(shelf{"shelf:a": ed}); fw.KindOf(err) != fw.Corrupt {
		t.Errorf("another key is in its place: %v", err)
	}
	b, err := os.ReadFile(ks.path("image-a", publicSuffix))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseKeyInfo(bytes.Replace(b, []byte("shelf:a"), []byte("nothing"), 1)); fw.KindOf(err) != fw.Invalid {
		t.Errorf("a custody that is no URI: %v", err)
	}
}
