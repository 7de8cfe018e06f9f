package mender

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"

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

func publicKey(tb testing.TB, name string) crypto.PublicKey {
	tb.Helper()
	p, _ := pem.Decode(sample(tb, "keys/"+name+".pub.pem"))
	k, err := x509.ParsePKIXPublicKey(p.Bytes)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func goldenKeys(tb testing.TB) []crypto.PublicKey {
	tb.Helper()
	return []crypto.PublicKey{publicKey(tb, "rsa"), publicKey(tb, "ec")}
}

func newEC(tb testing.TB, c elliptic.Curve) *ecdsa.PrivateKey {
	tb.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// An RSA key is slow to make, so the tests share one.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		panic(err)
	}
	return k
})

// file is one entry of a tar.
type file struct {
	name string
	body []byte
}

func makeTar(files ...file) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o600, Size: int64(len(f.body)), Typeflag: tar.TypeReg}); err != nil {
			panic(err)
		}
		if _, err := w.Write(f.body); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func pack(ext string, b []byte) []byte {
	var out bytes.Buffer
	var w io.WriteCloser
	switch ext {
	case "":
		return b
	case ".gz":
		w = gzip.NewWriter(&out)
	case ".zst":
		w, _ = zstd.NewWriter(&out)
	}
	if _, err := w.Write(b); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return out.Bytes()
}

// spec says what build builds; the zero value is a good artifact.
type spec struct {
	version    string // of the format
	info       string // header-info
	types      []string
	ext        string
	headerExt  string
	head       []file   // instead of what info and types give
	data       [][]file // of each payload
	dataTars   [][]byte // instead of what data gives
	manifest   func(lines []string) []string
	outer      func(files []file) []file
	headerBody []byte // instead of what head gives
}

const (
	goodInfo = `{"payloads":[{"type":"rootfs-image"}],"artifact_provides":{"artifact_name":"release-1.2.3"},"artifact_depends":{"device_type":["board-a","board-b"]}}`
	goodType = `{"type":"rootfs-image","artifact_provides":{"rootfs-image.version":"1.2.3","writ.security_counter":"7"},"artifact_depends":{"rootfs-image.checksum":"aa","x":["1","2"]},"clears_artifact_provides":["rootfs-image.*"]}`
)

func build(s spec) []byte {
	or := func(a, b string) string {
		if a == "" {
			return b
		}
		return a
	}
	version := []byte(or(s.version, `{"format":"mender","version":3}`))
	if s.types == nil {
		s.types = []string{goodType}
	}
	if s.data == nil {
		s.data = [][]file{{{"fw.ext4", bytes.Repeat([]byte("firmware"), 1000)}}}
	}
	if s.head == nil {
		s.head = []file{{"header-info", []byte(or(s.info, goodInfo))}, {"scripts/ArtifactInstall_Enter_00", []byte("#!/bin/sh\n")}}
		for i, t := range s.types {
			s.head = append(s.head, file{fmt.Sprintf("headers/%04d/type-info", i), []byte(t)}, file{fmt.Sprintf("headers/%04d/meta-data", i), nil})
		}
	}
	if s.headerBody == nil {
		s.headerBody = pack(s.headerExt, makeTar(s.head...))
	}
	if s.dataTars == nil {
		for _, files := range s.data {
			s.dataTars = append(s.dataTars, pack(s.ext, makeTar(files...)))
		}
	}
	line := func(name string, b []byte) string { return fmt.Sprintf("%x  %s", sha256.Sum256(b), name) }
	var lines []string
	for i, files := range s.data {
		for _, f := range files {
			lines = append(lines, line(fmt.Sprintf("data/%04d/%s", i, f.name), f.body))
		}
	}
	lines = append(lines, line("header.tar"+s.headerExt, s.headerBody), line("version", version))
	if s.manifest != nil {
		lines = s.manifest(lines)
	}
	manifest := []byte(strings.Join(lines, "\n") + "\n")
	files := []file{{"version", version}, {"manifest", manifest}, {"header.tar" + s.headerExt, s.headerBody}}
	for i, d := range s.dataTars {
		files = append(files, file{fmt.Sprintf("data/%04d.tar%s", i, s.ext), d})
	}
	if s.outer != nil {
		files = s.outer(files)
	}
	return makeTar(files...)
}

func signBytes(in []byte, key crypto.Signer, opt image.SignOptions) ([]byte, image.SignResult, error) {
	var out bytes.Buffer
	res, err := Format{}.Sign(context.Background(), &out, bytes.NewReader(in), int64(len(in)), key, opt)
	return out.Bytes(), res, err
}

func mustSign(tb testing.TB, in []byte, key crypto.Signer, opt image.SignOptions) []byte {
	tb.Helper()
	out, res, err := signBytes(in, key, opt)
	if err != nil {
		tb.Fatal(err)
	}
	if res.Size != int64(len(out)) || res.SHA256 != sha256.Sum256(out) {
		tb.Fatalf("result says %d bytes, sha256 %x; %d were written, sha256 %x", res.Size, res.SHA256, len(out), sha256.Sum256(out))
	}
	return out
}

func inspectBytes(b []byte) (image.Info, error) {
	return Format{}.Inspect(context.Background(), bytes.NewReader(b), int64(len(b)))
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

// replay is a signer that returns the signature that mender-artifact made, so
// that whole files can be compared. image.SignHash refuses it unless it is the
// right signature over what we hashed.
type replay struct {
	pub crypto.PublicKey
	img []byte
}

func (r replay) Public() crypto.PublicKey { return r.pub }

func (r replay) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	tr := tar.NewReader(bytes.NewReader(r.img))
	for {
		h, err := tr.Next()
		if err != nil {
			return nil, err
		}
		if h.Name != nameSignature {
			continue
		}
		text, err := io.ReadAll(tr)
		if err != nil {
			return nil, err
		}
		sig, err := base64.StdEncoding.DecodeString(string(text))
		if _, ok := r.pub.(*rsa.PublicKey); ok || err != nil {
			return sig, err
		}
		return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])})
	}
}
