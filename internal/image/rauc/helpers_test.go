package rauc

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/writ-project/writ/internal/fwtest/cmstest"
	"github.com/writ-project/writ/internal/image"
)

// The samples are those of rauc 1.8: plain.raucb and verity.raucb signed by
// keys/signer.cert.pem, the others by keys/throwaway.cert.pem. The private keys
// are gone.
func sample(tb testing.TB, name string) []byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func certificate(tb testing.TB, name string) *x509.Certificate {
	tb.Helper()
	return cmstest.ReadCertificate(tb, filepath.Join("testdata", "keys", name+".pem"))
}

func inspectBytes(b []byte) (image.Info, error) {
	return Format{}.Inspect(context.Background(), bytes.NewReader(b), int64(len(b)))
}

func verifyBytes(b []byte, keys ...crypto.PublicKey) (image.Verified, error) {
	return Format{}.Verify(context.Background(), bytes.NewReader(b), int64(len(b)), nil, keys)
}

func signBytes(b []byte, by cmstest.Signer, opt image.SignOptions) ([]byte, image.SignResult, error) {
	if opt.Certificates == nil {
		opt.Certificates = []*x509.Certificate{by.Certificate}
	}
	var out bytes.Buffer
	res, err := Format{}.Sign(context.Background(), &out, bytes.NewReader(b), int64(len(b)), by, opt)
	return out.Bytes(), res, err
}

func mustSign(tb testing.TB, b []byte, by cmstest.Signer, opt image.SignOptions) []byte {
	tb.Helper()
	out, res, err := signBytes(b, by, opt)
	if err != nil {
		tb.Fatal(err)
	}
	if res.Size != int64(len(out)) {
		tb.Fatalf("result says %d bytes, %d were written", res.Size, len(out))
	}
	return out
}

func newSigner(tb testing.TB, kind cmstest.Kind) (*cmstest.CA, cmstest.Signer) {
	tb.Helper()
	ca := cmstest.NewCA(tb, "root")
	return ca, ca.Signer(tb, kind, nil, x509.ExtKeyUsageEmailProtection)
}

func wantReason(tb testing.TB, err error, want image.ReasonError) {
	tb.Helper()
	if !errors.Is(err, want) {
		tb.Errorf("got %v, want reason %q", err, want)
	}
}

func detailsOf(tb testing.TB, info image.Info) Details {
	tb.Helper()
	var d Details
	if err := json.Unmarshal(info.Details, &d); err != nil {
		tb.Fatal(err)
	}
	return d
}

// parts splits a bundle without the help of what is tested.
func parts(b []byte) (body, sig []byte) {
	end := len(b) - 8
	n := int(binary.BigEndian.Uint64(b[end:]))
	return b[:end-n], b[end-n : end]
}

// join is the opposite of parts.
func join(body, sig []byte) []byte {
	out := append(bytes.Clone(body), sig...)
	return binary.BigEndian.AppendUint64(out, uint64(len(sig)))
}

// change returns a copy of b with one bit of the byte at i changed.
func change(b []byte, i int) []byte {
	out := bytes.Clone(b)
	out[i] ^= 1
	return out
}

func certs(s cmstest.Signer) []*x509.Certificate { return []*x509.Certificate{s.Certificate} }
