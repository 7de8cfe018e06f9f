// Package custodytest holds every custody back end to what package custody
// promises. It is for tests.
package custodytest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // SHA-384 and SHA-512
	"strconv"
	"sync"
	"testing"

	"github.com/writ-project/writ/internal/custody"
	"github.com/writ-project/writ/internal/dsse"
)

// Contract runs the conformance test on a key of a back end. open gives the
// same key each time; reference is its public key as the place itself, or its
// own tool, shows it.
func Contract(t *testing.T, open func(t *testing.T) crypto.Signer, reference crypto.PublicKey) {
	t.Helper()
	key := open(t)

	t.Run("the public key is the place's and stays", func(t *testing.T) {
		want := marshal(t, reference)
		if got := marshal(t, key.Public()); !bytes.Equal(got, want) {
			t.Errorf("public key %x, want %x", got, want)
		}
		if again := marshal(t, open(t).Public()); !bytes.Equal(again, want) {
			t.Errorf("opened again, the public key is %x, want %x", again, want)
		}
	})

	t.Run("it signs by the conventions of crypto.Signer", func(t *testing.T) {
		for _, opts := range Options(key.Public()) {
			input := input(opts, "a firmware image")
			sig, err := key.Sign(rand.Reader, input, opts)
			if err != nil {
				t.Errorf("signing with %#v: %v", opts, err)
				continue
			}
			if err := custody.Verify(reference, input, sig, opts); err != nil {
				t.Errorf("signing with %#v: %v", opts, err)
			}
			if err := custody.Verify(reference, inputOther(opts), sig, opts); err == nil {
				t.Errorf("signing with %#v: the signature verifies for another message too", opts)
			}
			checkSalt(t, reference, input, sig, opts)
		}
	})

	t.Run("it refuses what is no digest of the hash function", func(t *testing.T) {
		if _, ok := key.Public().(ed25519.PublicKey); ok {
			digest := sha256.Sum256(nil)
			if _, err := key.Sign(rand.Reader, digest[:], crypto.SHA256); err == nil {
				t.Error("an Ed25519 key signed a digest")
			}
			if _, err := key.Sign(rand.Reader, make([]byte, custody.MaxMessage+1), crypto.Hash(0)); err == nil {
				t.Error("a message over the bound was signed")
			}
			return
		}
		for name, in := range map[string][]byte{"short": make([]byte, 31), "long": make([]byte, 33), "none": nil} {
			if _, err := key.Sign(rand.Reader, in, crypto.SHA256); err == nil {
				t.Errorf("a %s digest was signed", name)
			}
		}
	})

	t.Run("many sign at a time", func(t *testing.T) {
		opts := Options(key.Public())[0]
		var all sync.WaitGroup
		for i := range 24 {
			all.Go(func() {
				in := input(opts, strconv.Itoa(i))
				sig, err := key.Sign(rand.Reader, in, opts)
				if err == nil {
					err = custody.Verify(reference, in, sig, opts)
				}
				if err != nil {
					t.Errorf("signature %d: %v", i, err)
				}
			})
		}
		all.Wait()
	})
}

// Options lists the ways in which keys like pub sign here.
func Options(pub crypto.PublicKey) []crypto.SignerOpts {
	switch k := pub.(type) {
	case ed25519.PublicKey:
		return []crypto.SignerOpts{crypto.Hash(0)}
	case *ecdsa.PublicKey:
		if k.Curve.Params().BitSize == 384 {
			return []crypto.SignerOpts{crypto.SHA384, crypto.SHA256}
		}
		return []crypto.SignerOpts{crypto.SHA256, crypto.SHA512}
	default:
		return []crypto.SignerOpts{
			crypto.SHA256, crypto.SHA512,
			&rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256},
			&rsa.PSSOptions{SaltLength: 32, Hash: crypto.SHA256},
			&rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto, Hash: crypto.SHA384},
		}
	}
}

// checkSalt: bootloaders want the salt to be as long as they expect.
func checkSalt(t *testing.T, pub crypto.PublicKey, digest, sig []byte, opts crypto.SignerOpts) {
	t.Helper()
	pss, ok := opts.(*rsa.PSSOptions)
	if !ok || pss.SaltLength == rsa.PSSSaltLengthAuto {
		return
	}
	if err := rsa.VerifyPSS(pub.(*rsa.PublicKey), pss.Hash, digest, sig, pss); err != nil { //nolint:errcheck // only RSA keys have these options
		t.Errorf("the salt is not %d bytes: %v", pss.SaltLength, err)
	}
}

func input(opts crypto.SignerOpts, message string) []byte {
	if opts.HashFunc() == 0 {
		return []byte(message)
	}
	h := opts.HashFunc().New()
	h.Write([]byte(message))
	return h.Sum(nil)
}

func inputOther(opts crypto.SignerOpts) []byte { return input(opts, "another firmware image") }

func marshal(t *testing.T, pub crypto.PublicKey) []byte {
	t.Helper()
	der, err := dsse.MarshalPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return der
}
