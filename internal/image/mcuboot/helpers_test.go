package mcuboot

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"path/filepath"
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
