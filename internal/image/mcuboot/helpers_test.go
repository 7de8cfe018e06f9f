package mcuboot

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/writ-project/writ/internal/image"
)

func sample(tb testing.TB, name string) []byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// publicKey reads a key as the bootloader embeds it.
func publicKey(tb testing.TB, name string) crypto.PublicKey {
	tb.Helper()
	der := sample(tb, "keys/"+name+".bootpub.der")
	if k, err := x509.ParsePKCS1PublicKey(der); err == nil {
		return k
	}
	k, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func allKeys(tb testing.TB) []crypto.PublicKey {
	tb.Helper()
	return []crypto.PublicKey{publicKey(tb, "ecdsa-p256"), publicKey(tb, "ed25519"), publicKey(tb, "rsa-2048")}
}

func newP256(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func newEd25519(tb testing.TB) ed25519.PrivateKey {
	tb.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func mustSign(tb testing.TB, in []byte, key crypto.Signer, opt image.SignOptions) []byte {
	tb.Helper()
	var out bytes.Buffer
	res, err := Format{}.Sign(context.Background(), &out, bytes.NewReader(in), int64(len(in)), key, opt)
	if err != nil {
		tb.Fatal(err)
	}
	if res.Size != int64(out.Len()) {
		tb.Fatalf("result says %d bytes, %d were written", res.Size, out.Len())
	}
	return out.Bytes()
}

func verifyBytes(b []byte, keys ...crypto.PublicKey) (image.Verified, error) {
	return Format{}.Verify(context.Background(), bytes.NewReader(b), int64(len(b)), nil, keys)
}

func wantReason(tb testing.TB, err error, want image.ReasonError) {
	tb.Helper()
	if !errors.Is(err, want) {
		tb.Errorf("got %v, want reason %q", err, want)
	}
}

// replay is a signer that returns a signature made by somebody else, so that
// what imgtool signed can be compared in full. MakeSignature refuses it unless
// it is the right signature over what we hashed.
type replay struct {
	pub crypto.PublicKey
	sig []byte
}

func (r replay) Public() crypto.PublicKey { return r.pub }

func (r replay) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return r.sig, nil }

func newP384(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// RSA keys take long to make: one of each size serves all tests.
var (
	rsa2048 = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })
	rsa3072 = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 3072) })
)

func theRSA(tb testing.TB, get func() (*rsa.PrivateKey, error)) *rsa.PrivateKey {
	tb.Helper()
	k, err := get()
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func newRecipient(tb testing.TB, curve ecdh.Curve) *ecdh.PrivateKey {
	tb.Helper()
	k, err := curve.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// withLayout returns options with a layout in JSON.
func withLayout(version, text string) image.SignOptions {
	return image.SignOptions{Version: version, Layout: json.RawMessage(text)}
}

// encryptTo returns a layout that encrypts to the recipient.
func encryptTo(tb testing.TB, recipient *ecdh.PrivateKey, aes int, hmac string) string {
	tb.Helper()
	return fmt.Sprintf(`{"encryption": {"recipient": %q, "aes": %d, "hmac": %q}}`, publicPEM(tb, recipient.PublicKey()), aes, hmac)
}

func publicPEM(tb testing.TB, pub crypto.PublicKey) []byte {
	tb.Helper()
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		tb.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func privatePEM(tb testing.TB, key any) []byte {
	tb.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func details(tb testing.TB, b []byte) Details {
	tb.Helper()
	info, err := Format{}.Inspect(context.Background(), bytes.NewReader(b), int64(len(b)))
	if err != nil {
		tb.Fatal(err)
	}
	var d Details
	if err := json.Unmarshal(info.Details, &d); err != nil {
		tb.Fatal(err)
	}
	return d
}

// mode is a way to sign that bootloaders are built for.
type mode struct {
	name, alg string
	key       func(testing.TB) crypto.Signer
	opt       string   // members of the layout
	imgtool   []string // the same for imgtool
}

func modes() []mode {
	p256 := func(tb testing.TB) crypto.Signer { tb.Helper(); return newP256(tb) }
	p384 := func(tb testing.TB) crypto.Signer { tb.Helper(); return newP384(tb) }
	ed := func(tb testing.TB) crypto.Signer { tb.Helper(); return newEd25519(tb) }
	r2 := func(tb testing.TB) crypto.Signer { tb.Helper(); return theRSA(tb, rsa2048) }
	r3 := func(tb testing.TB) crypto.Signer { tb.Helper(); return theRSA(tb, rsa3072) }
	return []mode{
		{"p256", image.AlgECDSAP256, p256, `"hash": "sha256"`, []string{"--sha", "256"}},
		{"p384", image.AlgECDSAP384, p384, `"hash": "sha384"`, []string{"--sha", "384"}},
		{"ed25519", image.AlgEd25519, ed, `"hash": "sha256"`, nil},
		{"ed25519-sha512", image.AlgEd25519, ed, `"hash": "sha512"`, []string{"--sha", "512"}},
		{"ed25519-pure", image.AlgEd25519Pure, ed, `"pure": true`, []string{"--pure"}},
		{"rsa2048", image.AlgRSA2048, r2, `"pure": false`, nil},
		{"rsa3072", image.AlgRSA3072, r3, `"hash": "sha256"`, nil},
	}
}
