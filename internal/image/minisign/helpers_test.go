package minisign

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/writ-project/writ/internal/image"
)

// both are the formats of this package.
var both = []image.Format{Format{}, Signify{}}

func sample(tb testing.TB, name string) []byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// sampleEnvelope returns the signature file that the reference tool made.
func sampleEnvelope(tb testing.TB, f image.Format) []byte {
	tb.Helper()
	return sample(tb, map[string]string{"minisign": "payload.bin.minisig", "signify": "payload.bin.signify"}[f.Name()])
}

func sampleKey(tb testing.TB) PublicKey {
	tb.Helper()
	k, err := ParsePublicKey(sample(tb, "minisign.pub"))
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func newKey(tb testing.TB) ed25519.PrivateKey {
	tb.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func mustSign(tb testing.TB, f image.Format, b []byte, key crypto.Signer, opt image.SignOptions) image.SignResult {
	tb.Helper()
	var out bytes.Buffer
	res, err := f.Sign(context.Background(), &out, bytes.NewReader(b), int64(len(b)), key, opt)
	if err != nil {
		tb.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), b) {
		tb.Fatal("signing changed the image")
	}
	return res
}

func verifyBytes(f image.Format, b, env []byte, keys ...crypto.PublicKey) (image.Verified, error) {
	return f.Verify(context.Background(), bytes.NewReader(b), int64(len(b)), env, keys)
}

func wantReason(tb testing.TB, err error, want image.ReasonError) {
	tb.Helper()
	if !errors.Is(err, want) {
		tb.Errorf("got %v, want reason %q", err, want)
	}
}

func layout(tb testing.TB, l Layout) json.RawMessage {
	tb.Helper()
	b, err := json.Marshal(l)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}
