package mcuboot

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/writ-project/writ/internal/image"
)

func seed(f *testing.F) {
	f.Helper()
	files, err := filepath.Glob("testdata/*.bin")
	if err != nil || len(files) == 0 {
		f.Fatalf("no samples: %v", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, m := range modes() {
		key := m.key(f)
		b := mustSign(f, []byte("firmware"), key, image.SignOptions{Version: "1.0.0", Layout: []byte("{" + m.opt + "," + everything.opt + "}")})
		f.Add(b)
		f.Add(mustSign(f, b, key, withLayout("", `{"key": "full"}`)))
	}
	for _, c := range ciphers {
		var key crypto.Signer = newEd25519(f)
		if c.curve == ecdh.P256() {
			key = newP256(f)
		}
		f.Add(mustSign(f, []byte("firmware"), key, withLayout("1.0.0", encryptTo(f, newRecipient(f, c.curve), c.aes, c.hmac))))
	}
	small := make([]byte, headerSize+1+tlvInfoSize)
	le.PutUint32(small, imageMagic)
	le.PutUint16(small[8:], headerSize)
	le.PutUint32(small[12:], 1)
	le.PutUint16(small[headerSize+1:], tlvInfoMagic)
	le.PutUint16(small[headerSize+3:], tlvInfoSize)
	f.Add(small)
}

// fixDigest puts the right digest into an image that is otherwise well formed,
// so that the fuzzer gets past it.
func fixDigest(b []byte) {
	l, err := parse(context.Background(), bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return
	}
	c, err := interpret(l)
	if err != nil || c.encKey != nil {
		return
	}
	h := c.hash.New()
	h.Write(b[:l.hdrSize+l.imgSize+int64(len(l.protected))])
	copy(b[l.tlvs[0].off+tlvHeadSize:], h.Sum(nil))
}

// Whatever Inspect accepts, it describes without contradiction, and re-signing
// it gives an image that verifies and says the same.
func FuzzInspect(f *testing.F) {
	seed(f)
	key := newEd25519(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		b = bytes.Clone(b) // the fuzzer owns its input
		fixDigest(b)
		ctx := context.Background()
		info, err := Format{}.Inspect(ctx, bytes.NewReader(b), int64(len(b)))
		if err != nil {
			if _, ok := image.ReasonOf(err); !ok {
				t.Fatalf("refused without a reason: %v", err)
			}
			return
		}
		if info.Size != int64(len(b)) || info.Padding >= info.Size {
			t.Fatalf("size %d, padding %d of %d bytes", info.Size, info.Padding, len(b))
		}
		d, _ := info.Digest(image.ScopeImage)
		var out bytes.Buffer
		_, err = Format{}.Sign(ctx, &out, bytes.NewReader(b), int64(len(b)), key, image.SignOptions{})
		var details Details
		if err := json.Unmarshal(info.Details, &details); err != nil {
			t.Fatal(err)
		}
		if info.Encrypted || slices.Contains(details.Flags, "compressed") {
			if err == nil {
				t.Fatal("signed an image that cannot be signed")
			}
			return
		}
		// Ed25519 does not sign SHA-384, and a boot record fixes the hash.
		if d.Algorithm == "sha384" && details.BootRecord != nil && errors.Is(err, image.ErrBadOptions) {
			return
		}
		if err != nil {
			t.Fatalf("inspected but not signed: %v", err)
		}
		v, err := verifyBytes(out.Bytes(), key.Public())
		if err != nil {
			t.Fatalf("signed but not verified: %v", err)
		}
		if v.Info.Version != info.Version || v.Info.Vendor != info.Vendor || len(v.Info.Signatures) != 1 {
			t.Fatalf("signing changed %+v to %+v", info, v.Info)
		}
	})
}

// Only images whose signed region is one of the samples' verify under the
// samples' keys: the fuzzer has no private key.
func FuzzVerify(f *testing.F) {
	seed(f)
	keys := allKeys(f)
	signed := map[string]bool{}
	// A pure and an encrypted image of our own, with their keys.
	ed, p256, recipient := newEd25519(f), newP256(f), newRecipient(f, ecdh.P256())
	keys = append(keys, ed.Public(), p256.Public(), image.Recipient{PrivateKey: recipient})
	for _, b := range [][]byte{
		mustSign(f, []byte("firmware"), ed, withLayout("1.0.0", `{"pure": true}`)),
		mustSign(f, []byte("firmware"), p256, withLayout("1.0.0", encryptTo(f, recipient, 128, ""))),
	} {
		v, err := verifyBytes(b, keys...)
		if err != nil {
			f.Fatal(err)
		}
		d, _ := v.Info.Digest(image.ScopeImage)
		signed[d.Hex] = true
		f.Add(b)
	}
	for _, name := range []string{"p256", "p256-seccnt", "p256-full", "ed25519", "rsa2048"} {
		v, err := verifyBytes(sample(f, name+".bin"), keys...)
		if err != nil {
			f.Fatal(err)
		}
		d, _ := v.Info.Digest(image.ScopeImage)
		signed[d.Hex] = true
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := verifyBytes(b, keys...)
		if err != nil {
			if _, ok := image.ReasonOf(err); !ok {
				t.Fatalf("refused without a reason: %v", err)
			}
			return
		}
		if d, _ := v.Info.Digest(image.ScopeImage); !signed[d.Hex] {
			t.Fatalf("verified an image nobody signed: %+v", v.Info)
		}
	})
}

// Sign takes any bytes. What it returns without an error always verifies.
func FuzzSign(f *testing.F) {
	seed(f)
	key := newEd25519(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		var out bytes.Buffer
		opt := image.SignOptions{Version: "1.2.3+4"}
		_, err := Format{}.Sign(context.Background(), io.Writer(&out), bytes.NewReader(b), int64(len(b)), key, opt)
		if err != nil {
			if _, ok := image.ReasonOf(err); !ok {
				t.Fatalf("refused without a reason: %v", err)
			}
			return
		}
		v, err := verifyBytes(out.Bytes(), key.Public())
		if err != nil {
			t.Fatalf("signed but not verified: %v", err)
		}
		if v.Info.Version != opt.Version {
			t.Fatalf("signed as %s, verified as %s", opt.Version, v.Info.Version)
		}
	})
}

// Any bytes as layout are refused with a reason, or make an image that verifies
// and says what the layout says.
func FuzzLayout(f *testing.F) {
	for _, m := range modes() {
		f.Add([]byte("{" + m.opt + "," + everything.opt + "}"))
	}
	recipient := newRecipient(f, ecdh.X25519())
	f.Add([]byte(encryptTo(f, recipient, 256, "sha512")))
	f.Add([]byte(`{"signatures": "replace", "encryption": {"deferred": true}, "header_size": 64, "slot_size": 65536}`))
	key := newEd25519(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		var out bytes.Buffer
		in := []byte("firmware that is signed")
		_, err := Format{}.Sign(context.Background(), &out, bytes.NewReader(in), int64(len(in)), key, image.SignOptions{Version: "1.0.0", Layout: b})
		if err != nil {
			if _, ok := image.ReasonOf(err); !ok {
				t.Fatalf("refused without a reason: %v", err)
			}
			return
		}
		got := details(t, out.Bytes())
		var want Layout
		if len(b) > 0 {
			if err := json.Unmarshal(b, &want); err != nil {
				t.Fatalf("signed with a layout that is no JSON: %v", err)
			}
		}
		if len(got.Dependencies) != len(want.Dependencies) || len(got.TLVs) != len(want.TLVs) || got.Pure != (want.Pure != nil && *want.Pure) ||
			(got.BootRecord != nil) != (want.BootRecord != "") || (got.Encryption != nil) != (want.Encryption != nil) {
			t.Fatalf("layout %s made %+v", b, got)
		}
		if _, err := verifyBytes(out.Bytes(), key.Public(), image.Recipient{PrivateKey: recipient}); err != nil && want.Encryption == nil {
			t.Fatalf("signed but not verified: %v", err)
		}
	})
}
