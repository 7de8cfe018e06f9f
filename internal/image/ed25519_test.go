package image

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"slices"
	"testing"

	"filippo.io/edwards25519"
)

// The streaming check decides as crypto/ed25519 does, on good signatures, on
// damaged ones, and on the encodings that implementations differ about.
func TestEd25519CheckAgreesWithTheStandardLibrary(t *testing.T) {
	agree := func(what string, pub ed25519.PublicKey, msg, sig []byte) bool {
		t.Helper()
		want := len(pub) == ed25519.PublicKeySize && ed25519.Verify(pub, msg, sig)
		got := false
		if c := NewEd25519Check(pub, sig); c != nil {
			for chunk := range slices.Chunk(msg, 7) {
				if _, err := c.Write(chunk); err != nil {
					t.Fatal(err)
				}
			}
			got = c.OK()
		}
		if got != want {
			t.Errorf("%s: got %t, crypto/ed25519 says %t", what, got, want)
		}
		return got
	}
	newKey := func() (ed25519.PublicKey, ed25519.PrivateKey) {
		t.Helper()
		pub, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return pub, key
	}
	order, err := hex.DecodeString("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
	if err != nil {
		t.Fatal(err)
	}
	for n := range 40 {
		pub, key := newKey()
		msg := make([]byte, 5*n)
		rand.Read(msg)
		sig := ed25519.Sign(key, msg)
		if !agree("good", pub, msg, sig) {
			t.Fatal("a good signature is refused")
		}
		for i := range sig {
			sig[i] ^= 1 << (i % 8)
			agree("damaged", pub, msg, sig)
			sig[i] ^= 1 << (i % 8)
		}
		agree("other message", pub, append(msg, 0), sig)
		other, _ := newKey()
		agree("other key", other, msg, sig)
		for i := range pub { // most of these are no point on the curve, or another
			pub[i] ^= 1 << (i % 8)
			agree("damaged key", pub, msg, sig)
			pub[i] ^= 1 << (i % 8)
		}
		agree("short", pub, msg, sig[:63])
		agree("long", pub, msg, append(sig, 0))
		agree("short key", pub[:31], msg, sig)
		// S + L is the same scalar and must not verify: RFC 8032, section 8.4.
		big, carry := bytes.Clone(sig), 0
		for i := range 32 {
			carry += int(sig[32+i]) + int(order[i])
			big[32+i] = byte(carry)
			carry >>= 8
		}
		if agree("S not reduced", pub, msg, big) {
			t.Error("a second encoding of a signature verifies")
		}
	}
	// Points of small order, as key and as R, canonical and not.
	var points [][]byte
	for _, s := range []string{
		"0100000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000080",
		"0000000000000000000000000000000000000000000000000000000000000000",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"0200000000000000000000000000000000000000000000000000000000000000",
	} {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		points = append(points, b)
	}
	points = append(points, edwards25519.NewGeneratorPoint().Bytes())
	for _, a := range points {
		for _, r := range points {
			for m := range byte(16) {
				agree("small order", a, []byte{m}, append(bytes.Clone(r), make([]byte, 32)...))
			}
		}
	}
}
