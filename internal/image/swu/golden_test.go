package swu

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-project/writ/internal/fwtest/cmstest"
	"github.com/writ-project/writ/internal/image"
)

const payloadSum = "2cd5a00d765f529f2f4f2f2731280fe759939caf1f98ff0c2aa2fd94387aa92a"

func TestVerifyAcceptsTheSamples(t *testing.T) {
	for _, tc := range []struct{ file, cert, alg string }{
		{"cms-rsa.swu", "signer.cert.pem", "rsa2048-pkcs1-sha256"},
		{"cms-ec.swu", "signer-ec.cert.pem", image.AlgECDSAP256},
	} {
		t.Run(tc.file, func(t *testing.T) {
			b := sample(t, tc.file)
			cert := cmstest.ReadCertificate(t, filepath.Join("testdata/keys", tc.cert))
			for _, key := range []crypto.PublicKey{sampleCA(t), cert.PublicKey, image.CA{Certificate: cert}} {
				v, err := verifyBytes(b, key)
				if err != nil {
					t.Fatal(err)
				}
				if id, _ := image.KeyID(cert.PublicKey); v.Algorithm != tc.alg || v.KeyID != id || v.Info.Version != "1.2.3" {
					t.Errorf("got %+v", v)
				}
				info, err := inspectBytes(b)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(info, v.Info); d != "" {
					t.Errorf("Inspect and Verify differ:\n%s", d)
				}
				if d := cmp.Diff([]string{"1.0", "1.2"}, info.Hardware); d != "" {
					t.Errorf("hardware (-want +got):\n%s", d)
				}
				var details Details
				if err := json.Unmarshal(info.Details, &details); err != nil {
					t.Fatal(err)
				}
				want := Details{
					Description: "sample", Language: "libconfig", Signature: "cms",
					Files: []File{{Name: "rootfs.bin", Size: 4099, SHA256: payloadSum, Section: "images", Type: "rawfile"}},
				}
				if d := cmp.Diff(want, details); d != "" {
					t.Errorf("details (-want +got):\n%s", d)
				}
			}
			_, err := verifyBytes(b)
			wantReason(t, err, image.ErrUnknownKey)
			_, err = verifyBytes(b, image.CA{Certificate: cmstest.NewCA(t, "fw root").Certificate})
			wantReason(t, err, image.ErrUnknownKey)
		})
	}
}

// Nothing but the signature changes: what was signed stays to the byte.
func TestReSigningKeepsTheDescription(t *testing.T) {
	ca := cmstest.NewCA(t, "root")
	old := sample(t, "cms-rsa.swu")
	before, err := inspectBytes(old)
	if err != nil {
		t.Fatal(err)
	}
	signer := ca.Signer(t, cmstest.P384, nil)
	b := mustSign(t, old, signer, image.SignOptions{Version: "1.2.3", Hardware: []string{"1.2", "1.0"}})
	v, err := verifyBytes(b, image.CA{Certificate: ca.Certificate})
	if err != nil {
		t.Fatal(err)
	}
	was, _ := before.Digest(image.ScopeImage)
	if is, _ := v.Info.Digest(image.ScopeImage); is != was || v.Algorithm != "ecdsa-p384-sha384" || len(v.Info.Signatures) != 1 {
		t.Errorf("got %+v", v)
	}
	_, err = verifyBytes(b, sampleCA(t))
	wantReason(t, err, image.ErrUnknownKey)
}

func TestReSigningComparesWithTheRelease(t *testing.T) {
	ca := cmstest.NewCA(t, "root")
	signer := ca.Signer(t, cmstest.P256, nil)
	in := sample(t, "cms-ec.swu")
	for name, opt := range map[string]image.SignOptions{
		"version":         {Version: "1.2.4"},
		"other hardware":  {Hardware: []string{"9.9"}},
		"more hardware":   {Hardware: []string{"1.0"}},
		"less hardware":   {Hardware: []string{"1.0", "1.2", "2.0"}},
		"layout hardware": {Hardware: []string{"1.0", "1.2"}, Layout: layout(t, Layout{Hardware: []string{"board"}})},
		"description":     {Layout: layout(t, Layout{Description: "new"})},
		"images":          {Layout: layout(t, rawfile("x"))},
		"archive":         {Layout: layout(t, Layout{Archive: true})},
		"unknown member":  {Layout: json.RawMessage(`{"colour":"blue"}`)},
		"signature":       {Layout: layout(t, Layout{Signature: "gpg"})},
		"time":            {Layout: layout(t, Layout{SigningTime: "yesterday"})},
		"purpose of rsa":  {Layout: layout(t, Layout{Signature: signRSA, Purpose: "code_signing"})},
	} {
		if _, err := signBytes(in, signer, opt); err == nil {
			t.Errorf("%s: signed", name)
		} else {
			wantReason(t, err, image.ErrBadOptions)
		}
	}
	for name, opt := range map[string]image.SignOptions{
		"nothing":         {},
		"the same":        {Version: "1.2.3", Hardware: []string{"1.2", "1.0"}},
		"layout hardware": {Hardware: []string{"board-a"}, Layout: layout(t, Layout{Hardware: []string{"1.0", "1.2"}})},
		"any hardware":    {Hardware: []string{"board-a"}, Layout: layout(t, Layout{AnyHardware: true})},
		"time":            {Layout: layout(t, Layout{SigningTime: "2026-01-02T03:04:05Z"})},
	} {
		if _, err := signBytes(in, signer, opt); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHardwareMayBeAnExpression(t *testing.T) {
	signer := cmstest.NewCA(t, "root").Signer(t, cmstest.P256, nil)
	in := pack(t, `software = { version = "1"; hardware-compatibility: [ "#RE:^1\.[023]$", "2.0" ];
		images: ({ filename = "rootfs.bin"; type = "raw"; sha256 = "`+payloadSum+`"; }); }`, nil)
	for hardware, ok := range map[string]bool{"1.0,2.0": true, "1.3,1.2,2.0": true, "1.1,2.0": false, "1.0": false, "11.0,2.0": false} {
		_, err := signBytes(in, signer, image.SignOptions{Hardware: strings.Split(hardware, ",")})
		if (err == nil) != ok {
			t.Errorf("%s: %v", hardware, err)
		}
	}
	bad := pack(t, `software = { version = "1"; hardware-compatibility: [ "#RE:(" ];
		images: ({ filename = "rootfs.bin"; type = "raw"; sha256 = "`+payloadSum+`"; }); }`, nil)
	_, err := signBytes(bad, signer, image.SignOptions{Hardware: []string{"1.0"}})
	wantReason(t, err, image.ErrUnsupported)
}

func TestBareRSASignatures(t *testing.T) {
	openssl := cmstest.Tool(t, "openssl")
	ca := cmstest.NewCA(t, "root")
	signer := ca.Signer(t, cmstest.RSA, nil)
	other := cmstest.NewKey(t, cmstest.P256)
	large, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for kind, alg := range map[string]string{signRSA: "rsa2048-pkcs1-sha256", signRSAPSS: image.AlgRSA2048} {
		l := rawfile("/rootfs")
		l.Signature = kind
		b := mustSign(t, sample(t, "rootfs.bin"), signer.Signer, image.SignOptions{Version: "1.2.3", Hardware: deviceHardware, Layout: layout(t, l)})
		v, err := verifyBytes(b, other.Public(), large.Public(), foreign.Public(), signer.Public())
		if err != nil || v.Algorithm != alg || len(v.Info.Signatures) != 1 || v.Info.Signatures[0].Algorithm != "rsa2048-sha256" {
			t.Errorf("%s: got %+v, %v", kind, v, err)
		}
		_, err = verifyBytes(b, foreign.Public())
		wantReason(t, err, image.ErrBadSignature)
		_, err = verifyBytes(b, large.Public(), other.Public(), image.CA{Certificate: ca.Certificate})
		wantReason(t, err, image.ErrUnknownKey)
		// The description is what is signed: the digest of the file in it was changed.
		bad := bytes.Replace(b, []byte(payloadSum), []byte(strings.Repeat("0", 64)), 1)
		_, err = verifyBytes(bad, signer.Public())
		wantReason(t, err, image.ErrBadSignature)

		// SWUpdate with opensslRSA or opensslRSAPSS does what openssl does here.
		dir := t.TempDir()
		files, err := listFiles(t.Context(), bytes.NewReader(b), int64(len(b)))
		if err != nil || len(files) != 3 {
			t.Fatalf("%d files, %v", len(files), err)
		}
		for _, f := range files[:2] {
			cmstest.Write(t, dir, f.name, b[f.off:f.off+f.size])
		}
		der, err := x509.MarshalPKIXPublicKey(signer.Public())
		if err != nil {
			t.Fatal(err)
		}
		pub := cmstest.Write(t, dir, "pub.der", der)
		args := []string{"dgst", "-sha256", "-verify", pub, "-keyform", "DER", "-signature", filepath.Join(dir, nameSignature)}
		if kind == signRSAPSS {
			args = append(args, "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:-2")
		}
		if out, err := cmstest.Run(t, openssl, append(args, filepath.Join(dir, nameDescription))...); err != nil {
			t.Errorf("%s: openssl refuses it: %v\n%s", kind, err, out)
		}
		if out, err := cmstest.Run(t, openssl, append(args, filepath.Join(dir, nameSignature))...); err == nil {
			t.Errorf("%s: openssl takes it for another file:\n%s", kind, out)
		}

		_, err = signBytes(sample(t, "rootfs.bin"), ca.Signer(t, cmstest.P256, nil), image.SignOptions{Version: "1.2.3", Layout: layout(t, l)})
		wantReason(t, err, image.ErrUnsupported)
	}
}

func TestSameInputGivesTheSameImage(t *testing.T) {
	want, err := os.ReadFile("testdata/built.golden")
	if err != nil && !*update {
		t.Fatal(err)
	}
	l := Layout{
		Description: `back\slash "quotes" é`,
		Images: []Image{{
			Filename: "fs.bin", Name: "fs", Version: "7", Type: "raw", Device: "/dev/mmcblk0p2", Offset: "4K", Compressed: "zstd",
			InstalledDirectly: true, InstallIfDifferent: true, Encrypted: true, IVT: strings.Repeat("ab", 16),
			Properties: map[string]string{"b": "2", "a": `1"`},
		}},
	}
	s, err := readOptions(image.SignOptions{Version: "1.2.3+4", Hardware: []string{"1.0", "2.0"}, Layout: layout(t, l)})
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := s.build(t.Context(), bytes.NewReader([]byte("x")), 1)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("testdata/built.golden", got, 0o600); err != nil {
			t.Fatal(err)
		}
		want = got
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("description (-golden +got); run with -update if it is right:\n%s", d)
	}
	d, err := readDescription(got)
	if err != nil || d.text != l.Description || d.version != "1.2.3+4" || !d.files[0].encrypted || cmp.Diff([]string{"1.0", "2.0"}, d.hardware) != "" {
		t.Errorf("read back as %+v, %v", d, err)
	}
}
