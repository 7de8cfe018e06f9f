package mcuboot

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/writ-project/writ/internal/image"
)

func TestSignedImagesVerify(t *testing.T) {
	payload := sample(t, "payload.bin")
	for _, key := range []crypto.Signer{newP256(t), newEd25519(t)} {
		for _, opt := range []image.SignOptions{
			{Version: "0.0.0"},
			{Version: "255.255.65535+4294967295", SecurityCounter: new(uint64(1<<32 - 1))},
			{Version: "1.0.0", HeaderSize: 32},
			{Version: "1.0.0", HeaderSize: 0xffff, SecurityCounter: new(uint64(0))},
			{Version: "1.0.0", Vendor: "example.com", Hardware: []string{"board-a"}},
		} {
			b := mustSign(t, payload, key, opt)
			v, err := verifyBytes(b, newEd25519(t).Public(), key.Public())
			if err != nil {
				t.Errorf("%+v: %v", opt, err)
				continue
			}
			if v.Info.Version != opt.Version {
				t.Errorf("version %s, want %s", v.Info.Version, opt.Version)
			}
			if opt.SecurityCounter != nil && *v.Info.SecurityCounter != *opt.SecurityCounter {
				t.Errorf("security counter %d, want %d", *v.Info.SecurityCounter, *opt.SecurityCounter)
			}
			// A second signature replaces the first.
			other := newEd25519(t)
			again := mustSign(t, b, other, image.SignOptions{})
			if _, err := verifyBytes(again, other.Public()); err != nil {
				t.Errorf("re-signed: %v", err)
			}
			if _, err := verifyBytes(again, key.Public()); !errors.Is(err, image.ErrUnknownKey) {
				t.Errorf("re-signed, old key: %v", err)
			}
		}
	}
}

func TestSignResultDescribesTheOutput(t *testing.T) {
	var out bytes.Buffer
	in := sample(t, "payload.bin")
	key := newP256(t)
	res, err := Format{}.Sign(t.Context(), &out, bytes.NewReader(in), int64(len(in)), key, image.SignOptions{Version: "1.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	v, err := verifyBytes(out.Bytes(), key.Public())
	if err != nil {
		t.Fatal(err)
	}
	d, _ := v.Info.Digest(image.ScopeImage)
	if res.SHA256 != sha256.Sum256(out.Bytes()) || res.Image != d || res.KeyID != v.KeyID || res.Envelope != nil {
		t.Errorf("result %+v does not describe what was verified, %+v", res, v)
	}
}

func TestHeaderInPlaceUsesTheSpaceOfTheBuild(t *testing.T) {
	key := newEd25519(t)
	in := append(make([]byte, 0x200), sample(t, "payload.bin")...)
	b := mustSign(t, in, key, image.SignOptions{Version: "1.2.3", HeaderInPlace: true})
	if !bytes.Equal(b[headerSize:len(in)], in[headerSize:]) {
		t.Error("bytes after the header changed")
	}
	if _, err := verifyBytes(b, key.Public()); err != nil {
		t.Error(err)
	}
	in[0x1ff] = 1
	_, err := Format{}.Sign(t.Context(), io.Discard, bytes.NewReader(in), int64(len(in)), key, image.SignOptions{Version: "1.2.3", HeaderInPlace: true})
	wantReason(t, err, image.ErrBadOptions)
}

func TestSignRefuses(t *testing.T) {
	payload := sample(t, "payload.bin")
	damaged := sample(t, "p256.bin")
	damaged[0x1000] ^= 1
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsa4096, err := rsa.GenerateKey(rand.Reader, 4096)
	if err != nil {
		t.Fatal(err)
	}
	good := newP256(t)
	type o = image.SignOptions
	for _, tc := range []struct {
		name string
		in   []byte
		key  crypto.Signer
		opt  o
		want image.ReasonError
	}{
		{"empty input", nil, good, o{Version: "1.0.0"}, image.ErrTruncated},
		{"no version", payload, good, o{}, image.ErrBadOptions},
		{"small header", payload, good, o{Version: "1.0.0", HeaderSize: 31}, image.ErrBadOptions},
		{"negative header", payload, good, o{Version: "1.0.0", HeaderSize: -1}, image.ErrBadOptions},
		{"large header", payload, good, o{Version: "1.0.0", HeaderSize: 0x10000}, image.ErrBadOptions},
		{"large counter", payload, good, o{Version: "1.0.0", SecurityCounter: new(uint64(1 << 32))}, image.ErrBadOptions},
		{"two boards", payload, good, o{Version: "1.0.0", Vendor: "example.com", Hardware: []string{"a", "b"}}, image.ErrBadOptions},
		{"small slot", payload, good, o{Version: "1.0.0", SlotSize: 0x2000 - 512}, image.ErrTooLarge},
		{"p521", payload, p521, o{Version: "1.0.0"}, image.ErrUnsupported},
		{"rsa4096", payload, rsa4096, o{Version: "1.0.0"}, image.ErrUnsupported},
		{"damaged image", damaged, good, o{}, image.ErrBadDigest},
		{"encrypted image", sample(t, "p256-enc128.bin"), good, o{}, image.ErrEncrypted},
		{"cut image", sample(t, "p256.bin")[:3000], good, o{}, image.ErrTruncated},
		{"other version", sample(t, "p256.bin"), good, o{Version: "1.2.4"}, image.ErrBadOptions},
		{"other build", sample(t, "p256.bin"), good, o{Version: "1.2.3"}, image.ErrBadOptions},
		{"other header", sample(t, "p256.bin"), good, o{HeaderSize: 0x400}, image.ErrBadOptions},
		{"other counter", sample(t, "p256-seccnt.bin"), good, o{SecurityCounter: new(uint64(8))}, image.ErrBadOptions},
		{"missing counter", sample(t, "p256.bin"), good, o{SecurityCounter: new(uint64(7))}, image.ErrBadOptions},
		{"other board", sample(t, "p256-full.bin"), good, o{Vendor: "example.com", Hardware: []string{"board-b"}}, image.ErrBadOptions},
		{"two counters", build(t, good, []item{{tlvSecCnt, make([]byte, 4)}, {tlvSecCnt, make([]byte, 4)}}, []item{{tlvSHA256, nil}}), good, o{}, image.ErrMalformed},
		{"protected key hash", build(t, good, []item{{tlvKeyHash, make([]byte, 32)}}, []item{{tlvSHA256, nil}}), good, o{}, image.ErrMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Format{}.Sign(t.Context(), io.Discard, bytes.NewReader(tc.in), int64(len(tc.in)), tc.key, tc.opt)
			wantReason(t, err, tc.want)
		})
	}
}

// A signer that returns a wrong signature must not produce an image.
func TestSignRefusesAFaultySigner(t *testing.T) {
	key := replay{publicKey(t, "ecdsa-p256"), []byte{0x30, 0x06, 2, 1, 1, 2, 1, 1}}
	_, err := Format{}.Sign(t.Context(), io.Discard, strings.NewReader("firmware"), 8, key, image.SignOptions{Version: "1.0.0"})
	if err == nil {
		t.Error("a signature that does not verify was accepted from the signer")
	}
}

func TestParseVersion(t *testing.T) {
	for in, want := range map[string]Version{
		"0.0.0":                    {},
		"1.2.3":                    {1, 2, 3, 0},
		"1.2.3+0":                  {1, 2, 3, 0},
		"1.2.3+4":                  {1, 2, 3, 4},
		"255.255.65535+4294967295": {255, 255, 65535, 1<<32 - 1},
	} {
		got, err := ParseVersion(in)
		if err != nil || got != want {
			t.Errorf("%s: got %v, %v", in, got, err)
		}
		if again, err := ParseVersion(got.String()); err != nil || again != got {
			t.Errorf("%s: String gives %s, which reads back as %v, %v", in, got, again, err)
		}
	}
	for _, in := range []string{
		"", "1", "1.2", "1.2.3.4", "1.2.3+", "1.2.3+4+5", "256.0.0", "0.256.0", "0.0.65536", "0.0.0+4294967296",
		"01.2.3", "1.2.3-rc1", "+1.2.3", "1.+2.3", "1.2.-3", " 1.2.3", "1.2.3 ", "0x1.2.3", "1_0.2.3", "v1.2.3", "१.2.3",
	} {
		if v, err := ParseVersion(in); !errors.Is(err, image.ErrBadOptions) {
			t.Errorf("%q: got %v, %v; want bad_options", in, v, err)
		}
	}
}
