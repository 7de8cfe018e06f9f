package esp

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"slices"
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
	return []crypto.PublicKey{publicKey(tb, "rsa3072"), publicKey(tb, "ecdsa256")}
}

func newEC(tb testing.TB, c elliptic.Curve) *ecdsa.PrivateKey {
	tb.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// RSA keys are slow to make, so the tests share three.
var rsaKeys = sync.OnceValue(func() (keys [3]*rsa.PrivateKey) {
	for i := range keys {
		k, err := rsa.GenerateKey(rand.Reader, rsaBits)
		if err != nil {
			panic(err)
		}
		keys[i] = k
	}
	return keys
})

// build makes an unsigned image as ESP-IDF does: chip ESP32-C3, digest
// appended, segments as given.
func build(segments ...[]byte) []byte {
	b := []byte{
		imageMagic, byte(len(segments)), 2, 0x20, 0, 0, 0, 0x42,
		0xee, 0, 0, 0, 5, 0, 0, 0, 0, 99, 0, 0, 0, 0, 0, 1,
	}
	sum := byte(checksumIV)
	for _, s := range segments {
		b = append(b, 0x20, 0, 0, 0x3c)
		b = le.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
		for _, v := range s {
			sum ^= v
		}
	}
	for len(b)%16 != 15 {
		b = append(b, 0)
	}
	b = append(b, sum)
	d := sha256.Sum256(b)
	return append(b, d[:]...)
}

// app makes the data of a first segment, n bytes in all.
func app(version string, counter uint32, n int) []byte {
	d := make([]byte, n)
	le.PutUint32(d, descMagic)
	le.PutUint32(d[4:], counter)
	copy(d[16:47], version)
	copy(d[48:79], "sample-app")
	copy(d[80:], "12:00:00")
	copy(d[96:], "Nov 22 2026")
	copy(d[112:], "v5.5")
	for i := descSize; i < n; i++ {
		d[i] = byte(i * 7)
	}
	return d
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

// replay is a signer that returns the signature in block i of an image that
// espsecure signed, so that whole files can be compared. image.SignHash refuses
// it unless it is the right signature over what we hashed.
type replay struct {
	pub crypto.PublicKey
	img []byte
}

func (r replay) Public() crypto.PublicKey { return r.pub }

func (r replay) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	b := r.img[len(r.img)-sectorSize:]
	if _, ok := r.pub.(*rsa.PublicKey); ok {
		sig := bytes.Clone(b[812:1196])
		slices.Reverse(sig)
		return sig, nil
	}
	num := func(from, to int) *big.Int {
		v := bytes.Clone(b[from:to])
		slices.Reverse(v)
		return new(big.Int).SetBytes(v)
	}
	return asn1.Marshal(struct{ R, S *big.Int }{num(101, 133), num(133, 165)})
}
