package image

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestSectionStopsWhereItShould(t *testing.T) {
	r := strings.NewReader("0123456789")
	b, err := io.ReadAll(Section(t.Context(), r, 2, 5))
	if err != nil || string(b) != "23456" {
		t.Errorf("got %q, %v", b, err)
	}
	if err := iotest.TestReader(Section(t.Context(), r, 3, 7), []byte("3456789")); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(Section(t.Context(), r, 8, -1)); err != nil || len(b) != 0 {
		t.Errorf("negative length: got %q, %v", b, err)
	}
	if _, err := io.ReadAll(Section(t.Context(), r, 5, 6)); !errors.Is(err, ErrTruncated) {
		t.Errorf("too long: got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := io.ReadAll(Section(ctx, r, 0, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
}

func TestReasonOfFindsOnlyReasons(t *testing.T) {
	err := fmt.Errorf("verifying: %w", fmt.Errorf("reading: %w", ErrBadDigest))
	if r, ok := ReasonOf(err); !ok || r != ErrBadDigest || !errors.Is(err, ErrBadDigest) || errors.Is(err, ErrUnsigned) {
		t.Errorf("got %q, %v", r, ok)
	}
	for _, err := range []error{nil, io.EOF, context.Canceled} {
		if r, ok := ReasonOf(err); ok {
			t.Errorf("%v: got %q", err, r)
		}
	}
}

func TestMakeSignatureKnowsItsKeys(t *testing.T) {
	msg := []byte("message")
	digest := sha256.Sum256(msg)
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pub, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if sig, err := MakeSignature(p256, digest, msg); err != nil || !ecdsa.VerifyASN1(&p256.PublicKey, digest[:], sig) {
		t.Errorf("p256: %v", err)
	}
	if sig, err := MakeSignature(ed, digest, msg); err != nil || !ed25519.Verify(pub, msg, sig) {
		t.Errorf("ed25519: %v", err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []crypto.Signer{p384, rsaKey, noKey{}} {
		if _, err := MakeSignature(key, digest, msg); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%T: got %v, want unsupported", key, err)
		}
	}
	// A signer whose answer its own public key refuses.
	if sig, err := MakeSignature(wrongSigner{pub, p256}, digest, msg); err == nil {
		t.Errorf("faulty signer: got %x", sig)
	}
}

type noKey struct{}

func (noKey) Public() crypto.PublicKey { return (*ecdsa.PublicKey)(nil) }

func (noKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("no key")
}

// wrongSigner claims one public key and signs with another.
type wrongSigner struct {
	pub crypto.PublicKey
	key *ecdsa.PrivateKey
}

func (w wrongSigner) Public() crypto.PublicKey { return w.pub }

func (w wrongSigner) Sign(_ io.Reader, msg []byte, _ crypto.SignerOpts) ([]byte, error) {
	sum := sha256.Sum256(msg)
	return ecdsa.SignASN1(rand.Reader, w.key, sum[:])
}

func TestKeyIDIsStable(t *testing.T) {
	pub := ed25519.PublicKey(bytes.Repeat([]byte{0x42}, 32))
	id, err := KeyID(pub)
	if err != nil || len(id) != 64 {
		t.Fatalf("got %q, %v", id, err)
	}
	spki := append([]byte{0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00}, pub...) // RFC 8410, section 4
	if want := fmt.Sprintf("%x", sha256.Sum256(spki)); id != want {
		t.Errorf("got %s, want %s", id, want)
	}
	if _, err := KeyID("text"); err == nil {
		t.Error("a string is no key")
	}
}
