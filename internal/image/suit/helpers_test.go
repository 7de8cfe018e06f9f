package suit

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
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

// draftKey is the public key of the draft's examples.
func draftKey(tb testing.TB) crypto.PublicKey {
	tb.Helper()
	k, err := x509.ParsePKIXPublicKey(sample(tb, "draft37-pub.der"))
	if err != nil {
		tb.Fatal(err)
	}
	return k
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

// options are those of a release with all that an envelope can say.
func options(tb testing.TB, l Layout) image.SignOptions {
	tb.Helper()
	b, err := json.Marshal(l)
	if err != nil {
		tb.Fatal(err)
	}
	return image.SignOptions{
		Product: "thermostat", Version: "1.2.3", SecurityCounter: new(uint64(7)),
		Vendor: "example.com", Hardware: []string{"board-a"}, Layout: b,
	}
}

// mustSign returns what was written and the detached envelope.
func mustSign(tb testing.TB, in []byte, key crypto.Signer, opt image.SignOptions) (out, env []byte) {
	tb.Helper()
	var w bytes.Buffer
	res, err := Format{}.Sign(context.Background(), &w, bytes.NewReader(in), int64(len(in)), key, opt)
	if err != nil {
		tb.Fatal(err)
	}
	if res.Size != int64(w.Len()) {
		tb.Fatalf("result says %d bytes, %d were written", res.Size, w.Len())
	}
	return w.Bytes(), res.Envelope
}

func verifyBytes(b, env []byte, keys ...crypto.PublicKey) (image.Verified, error) {
	return Format{}.Verify(context.Background(), bytes.NewReader(b), int64(len(b)), env, keys)
}

func inspectBytes(b []byte) (image.Info, error) {
	return Format{}.Inspect(context.Background(), bytes.NewReader(b), int64(len(b)))
}

func detailsOf(tb testing.TB, info image.Info) Details {
	tb.Helper()
	var d Details
	if err := json.Unmarshal(info.Details, &d); err != nil {
		tb.Fatal(err)
	}
	return d
}

func wantReason(tb testing.TB, err error, want image.ReasonError) {
	tb.Helper()
	if !errors.Is(err, want) {
		tb.Errorf("got %v, want reason %q", err, want)
	}
}

// replay is a signer that returns the signature of a draft example, so that all
// of it can be compared. MakeSignature refuses it unless it is the right one
// over what we made.
type replay struct {
	pub crypto.PublicKey
	der []byte
}

func (r replay) Public() crypto.PublicKey { return r.pub }

func (r replay) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return r.der, nil }
