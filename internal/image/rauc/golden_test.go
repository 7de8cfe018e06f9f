package rauc

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-project/writ/internal/fwtest/cmstest"
	"github.com/writ-project/writ/internal/image"
)

const rootfsSum = "8c806d7e663bb1d35373da6ea3914bf7cb94b782c04bc397b354b1c36ec6a53d"

func TestSamplesOfRAUCAreReadAndVerified(t *testing.T) {
	ca := image.CA{Certificate: certificate(t, "ca")}
	signer := certificate(t, "signer.cert")
	keyID, err := image.KeyID(signer.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	plain, verity := sample(t, "plain.raucb"), sample(t, "verity.raucb")
	body, _ := parts(plain)
	bodySum := sha256.Sum256(body)
	images := []Image{{Slot: "rootfs", Filename: "rootfs.img", SHA256: rootfsSum, Size: new(int64(16384))}}
	for _, tc := range []struct {
		file  string
		image string
		want  Details
	}{
		{"plain.raucb", hex.EncodeToString(bodySum[:]), Details{BundleFormat: "plain", Description: "sample", Build: "20261122", Images: images}},
		{"verity.raucb", "3ad0eb9bea6a44a71487a61a812575535ec45b3f11c1e22b2e37a3d7a61e887f", Details{
			BundleFormat: "verity", Description: "sample", Build: "20261122", Images: images,
			Verity: &Verity{
				Hash: "3ad0eb9bea6a44a71487a61a812575535ec45b3f11c1e22b2e37a3d7a61e887f",
				Salt: "15e2266f9aac082f05934865e1177809e2906cc35fd5613065783d1fb5d333ae", Size: 4096,
			},
		}},
	} {
		t.Run(tc.file, func(t *testing.T) {
			b := map[string][]byte{"plain.raucb": plain, "verity.raucb": verity}[tc.file]
			sum := sha256.Sum256(b)
			want := image.Info{
				Format: "rauc", Version: "2026.11-1", Hardware: []string{"board-a"}, Size: int64(len(b)),
				Digests: []image.Digest{
					{Scope: image.ScopeFile, Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])},
					{Scope: image.ScopeImage, Algorithm: "sha256", Hex: tc.image},
				},
				Signatures: []image.SignatureInfo{{Algorithm: "rsa2048-pkcs1-sha256", KeyID: keyID}},
			}
			info, err := inspectBytes(b)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, detailsOf(t, info)); d != "" {
				t.Errorf("details (-want +got):\n%s", d)
			}
			info.Details = nil
			if d := cmp.Diff(want, info); d != "" {
				t.Errorf("inspect (-want +got):\n%s", d)
			}
			for _, key := range []crypto.PublicKey{ca, signer.PublicKey} {
				v, err := verifyBytes(b, key)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(tc.want, detailsOf(t, v.Info)); d != "" {
					t.Errorf("details (-want +got):\n%s", d)
				}
				v.Info.Details = nil
				if d := cmp.Diff(want, v.Info); d != "" || v.KeyID != keyID {
					t.Errorf("verified by %s (-want +got):\n%s", v.KeyID, d)
				}
			}
			_, err = verifyBytes(b, certificate(t, "throwaway.cert").PublicKey)
			wantReason(t, err, image.ErrUnknownKey)
			_, err = verifyBytes(b)
			wantReason(t, err, image.ErrUnknownKey)
		})
	}
}

func TestManifestIsReadInEveryCompressionThatWeHave(t *testing.T) {
	key := certificate(t, "throwaway.cert").PublicKey
	for _, comp := range []string{"gzip", "zstd", "lz4"} {
		b := sample(t, "plain-"+comp+".raucb")
		v, err := verifyBytes(b, key)
		if err != nil {
			t.Errorf("%s: %v", comp, err)
			continue
		}
		if v.Info.Version != "2026.11-1" || len(detailsOf(t, v.Info).Images) != 2 {
			t.Errorf("%s: got %+v", comp, v.Info)
		}
	}
	b := sample(t, "plain-xz.raucb")
	_, err := verifyBytes(b, key)
	wantReason(t, err, image.ErrUnsupported)
	_, by := newSigner(t, cmstest.P256)
	_, _, err = signBytes(b, by, image.SignOptions{})
	wantReason(t, err, image.ErrUnsupported)
}

func TestCryptIsInspectedAndNotSigned(t *testing.T) {
	key := certificate(t, "throwaway.cert").PublicKey
	_, by := newSigner(t, cmstest.P256)
	for _, name := range []string{"crypt.raucb", "crypt-encrypted.raucb"} {
		b := sample(t, name)
		info, err := inspectBytes(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !info.Encrypted || detailsOf(t, info).BundleFormat != "crypt" {
			t.Errorf("%s: got %+v", name, info)
		}
		if bytes.Contains(info.Details, []byte("key")) {
			t.Errorf("%s: details tell the key: %s", name, info.Details)
		}
		_, _, err = signBytes(b, by, image.SignOptions{})
		wantReason(t, err, image.ErrUnsupported)
	}

	open := sample(t, "crypt.raucb")
	v, err := verifyBytes(open, key)
	if err != nil || v.Info.Version != "2026.11-1" || !v.Info.Encrypted {
		t.Errorf("crypt.raucb: got %+v, %v", v, err)
	}
	_, err = verifyBytes(change(open, 5000), key)
	wantReason(t, err, image.ErrBadDigest)

	closed := sample(t, "crypt-encrypted.raucb")
	info, err := inspectBytes(closed)
	if err != nil {
		t.Fatal(err)
	}
	if n := detailsOf(t, info).Recipients; n != 1 || info.Version != "" {
		t.Errorf("crypt-encrypted.raucb: %d recipients, version %q", n, info.Version)
	}
	_, err = verifyBytes(closed, key)
	wantReason(t, err, image.ErrEncrypted)
}

// Every way to sign, on both formats, over what somebody else had signed.
func TestSignedBundlesVerify(t *testing.T) {
	for _, file := range []string{"plain.raucb", "verity.raucb"} {
		for _, tc := range []struct {
			kind   cmstest.Kind
			layout string
			alg    string
		}{
			{cmstest.RSA, "", "rsa2048-pkcs1-sha256"},
			{cmstest.RSA, `{"pss": true}`, "rsa2048-pss-sha256"},
			{cmstest.P256, `{"signing_time": "2026-11-23T12:00:00Z"}`, "ecdsa-p256-sha256"},
			{cmstest.P384, `{}`, "ecdsa-p384-sha384"},
		} {
			t.Run(file+" "+tc.alg, func(t *testing.T) {
				in := sample(t, file)
				ca, by := newSigner(t, tc.kind)
				opt := image.SignOptions{Version: "2026.11-1", Hardware: []string{"board-a"}, SecurityCounter: new(uint64), Layout: json.RawMessage(tc.layout), Certificates: []*x509.Certificate{by.Certificate}}
				out, res, err := signBytes(in, by, opt)
				if err != nil {
					t.Fatal(err)
				}
				oldBody, _ := parts(in)
				if newBody, _ := parts(out); !bytes.Equal(oldBody, newBody) {
					t.Error("signing changed the payload")
				}
				v, err := verifyBytes(out, image.CA{Certificate: ca.Certificate})
				if err != nil {
					t.Fatal(err)
				}
				if v.Algorithm != tc.alg || v.KeyID != res.KeyID || v.Info.Version != "2026.11-1" {
					t.Errorf("got %+v", v)
				}
				img, _ := v.Info.Digest(image.ScopeImage)
				file, _ := v.Info.Digest(image.ScopeFile)
				if img != res.Image || file.Hex != hex.EncodeToString(res.SHA256[:]) {
					t.Errorf("result %+v, verified %+v", res, v.Info.Digests)
				}
				_, err = verifyBytes(out, image.CA{Certificate: certificate(t, "ca")})
				wantReason(t, err, image.ErrUnknownKey) // the old signature is gone
			})
		}
	}
}

// mksquashfs makes what rauc bundle would sign.
func TestUnsignedPlainBundleIsSigned(t *testing.T) {
	body, _ := parts(sample(t, "plain.raucb"))
	ca, by := newSigner(t, cmstest.P256)
	s, err := openSquash(bytes.NewReader(body), int64(len(body)))
	if err != nil {
		t.Fatal(err)
	}
	for name, in := range map[string][]byte{"padded": body, "with mksquashfs -nopad": body[:s.size]} {
		info, err := inspectBytes(in)
		if err != nil || info.Version != "2026.11-1" || len(info.Signatures) != 0 {
			t.Errorf("%s: got %+v, %v", name, info, err)
		}
		_, err = verifyBytes(in, by.Public())
		wantReason(t, err, image.ErrUnsigned)
		out := mustSign(t, in, by, image.SignOptions{})
		if got, _ := parts(out); !bytes.Equal(got, body) {
			t.Errorf("%s: payload has %d bytes, want %d", name, len(got), len(body))
		}
		if _, err := verifyBytes(out, image.CA{Certificate: ca.Certificate}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReleaseMustAgreeWithTheManifest(t *testing.T) {
	ca, by := newSigner(t, cmstest.P256)
	other := ca.Signer(t, cmstest.P256, nil)
	for _, file := range []string{"plain.raucb", "verity.raucb"} {
		in := sample(t, file)
		for name, opt := range map[string]image.SignOptions{
			"version":          {Version: "2026.11-2"},
			"hardware":         {Hardware: []string{"board-b"}},
			"one hardware":     {Hardware: []string{"board-a", "board-b"}},
			"security counter": {SecurityCounter: new(uint64(1))},
			"vendor":           {Vendor: "example.com"},
			"header":           {HeaderSize: 512},
			"unknown layout":   {Layout: json.RawMessage(`{"psss": true}`)},
			"layout and more":  {Layout: json.RawMessage(`{} {}`)},
			"said twice":       {Layout: json.RawMessage(`{"pss": false, "PSS": true}`)},
			"unknown purpose":  {Layout: json.RawMessage(`{"purpose": "any"}`)},
			"no certificate":   {Certificates: []*x509.Certificate{}},
			"certificate":      {Certificates: []*x509.Certificate{other.Certificate}},
			"expired":          {Layout: json.RawMessage(`{"signing_time": "2200-01-01T00:00:00Z"}`)},
		} {
			_, _, err := signBytes(in, by, opt)
			if name == "expired" {
				if !cmstest.NotAfter.Before(time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)) {
					t.Fatal("the certificate is valid for too long")
				}
			}
			t.Run(file+" "+name, func(t *testing.T) { wantReason(t, err, image.ErrBadOptions) })
		}
		_, _, err := signBytes(in, by, image.SignOptions{SlotSize: 100})
		wantReason(t, err, image.ErrTooLarge)
		_, _, err = signBytes(in, ca.Signer(t, cmstest.P256, nil, x509.ExtKeyUsageCodeSigning), image.SignOptions{})
		wantReason(t, err, image.ErrWrongPurpose)
		_, _, err = signBytes(in, by, image.SignOptions{Layout: json.RawMessage(`{"purpose": "code_signing"}`)})
		wantReason(t, err, image.ErrWrongPurpose)
	}
}
