package swu

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/writ-project/writ/internal/fwtest/cmstest"
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

func sampleCA(tb testing.TB) image.CA {
	tb.Helper()
	return image.CA{Certificate: cmstest.ReadCertificate(tb, "testdata/keys/ca.pem")}
}

func layout(tb testing.TB, l Layout) json.RawMessage {
	tb.Helper()
	b, err := json.Marshal(l)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// rawfile is the layout of an image of one file that goes to a path.
func rawfile(path string) Layout {
	return Layout{Images: []Image{{
		Filename: "rootfs.bin", Type: "rawfile", Path: path, Properties: map[string]string{"create-destination": "true"},
	}}}
}

func signBytes(in []byte, key crypto.Signer, opt image.SignOptions) ([]byte, error) {
	if s, ok := key.(cmstest.Signer); ok && opt.Certificates == nil {
		opt.Certificates = []*x509.Certificate{s.Certificate}
	}
	var out bytes.Buffer
	res, err := Format{}.Sign(context.Background(), &out, bytes.NewReader(in), int64(len(in)), key, opt)
	if err != nil {
		return nil, err
	}
	if res.Size != int64(out.Len()) || res.SHA256 != sha256.Sum256(out.Bytes()) {
		return nil, errors.New("the result does not describe what was written")
	}
	return out.Bytes(), nil
}

func mustSign(tb testing.TB, in []byte, key crypto.Signer, opt image.SignOptions) []byte {
	tb.Helper()
	b, err := signBytes(in, key, opt)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func verifyBytes(b []byte, keys ...crypto.PublicKey) (image.Verified, error) {
	return Format{}.Verify(context.Background(), bytes.NewReader(b), int64(len(b)), nil, keys)
}

func inspectBytes(b []byte) (image.Info, error) {
	return Format{}.Inspect(context.Background(), bytes.NewReader(b), int64(len(b)))
}

func wantReason(tb testing.TB, err error, want image.ReasonError) {
	tb.Helper()
	if !errors.Is(err, want) {
		tb.Errorf("got %v, want reason %q", err, want)
	}
}

var update = flag.Bool("update", false, "write the golden files")

// pack makes an unsigned image of rootfs.bin with that description. edit, if not
// nil, changes the names and contents of its files.
func pack(tb testing.TB, description string, edit func([]packed) []packed) []byte {
	tb.Helper()
	files := []packed{{nameDescription, []byte(description)}, {"rootfs.bin", sample(tb, "rootfs.bin")}}
	if edit != nil {
		files = edit(files)
	}
	var out bytes.Buffer
	w := newWriter(&out)
	for _, f := range files {
		if err := w.file(source{name: f.name, size: int64(len(f.b)), sum: byteSum(0, f.b)}, bytes.NewReader(f.b)); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.finish(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

type packed struct {
	name string
	b    []byte
}

// signerKeys is the public key of a signer, or a CA.
func signerKeys(key any) []crypto.PublicKey {
	if s, ok := key.(crypto.Signer); ok {
		return []crypto.PublicKey{s.Public()}
	}
	return []crypto.PublicKey{key}
}
