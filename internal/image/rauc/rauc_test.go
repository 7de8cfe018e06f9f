package rauc

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/writ-project/writ/internal/fwtest/cmstest"
	"github.com/writ-project/writ/internal/image"
)

// bundleByRAUC makes a bundle with a key that is gone when the test is over. It
// returns the bundle and the root file system inside.
func bundleByRAUC(t *testing.T, format string) (b, rootfs []byte) {
	t.Helper()
	rauc := cmstest.Tool(t, "rauc")
	cmstest.Tool(t, "mksquashfs")
	dir := t.TempDir()
	_, by := newSigner(t, cmstest.RSA)
	rootfs = make([]byte, 300<<10) // more blocks of payload than one block of the tree covers
	noise := rand.NewChaCha8([32]byte{1})
	_, _ = noise.Read(rootfs) // never fails
	in := filepath.Join(dir, "in")
	if err := os.Mkdir(in, 0o700); err != nil {
		t.Fatal(err)
	}
	cmstest.Write(t, in, "rootfs.img", rootfs)
	cmstest.Write(t, in, "manifest.raucm", fmt.Appendf(nil,
		"[update]\ncompatible=board-a\nversion=1.2.3\n\n[bundle]\nformat=%s\n\n[image.rootfs]\nfilename=rootfs.img\n", format))
	path := filepath.Join(dir, "bundle.raucb")
	out, err := cmstest.Run(t, rauc, "bundle", "--cert="+cmstest.PEM(t, dir, "cert.pem", by.Certificate),
		"--key="+cmstest.KeyPEM(t, dir, "key.pem", by), in, path)
	if err != nil {
		t.Fatalf("rauc bundle: %v\n%s", err, out)
	}
	if b, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	return b, rootfs
}

// device is RAUC with a keyring.
type device struct {
	rauc, dir, keyring string
}

func newDevice(t *testing.T, root *x509.Certificate) device {
	t.Helper()
	dir := t.TempDir()
	return device{cmstest.Tool(t, "rauc"), dir, cmstest.PEM(t, dir, "ca.pem", root)}
}

func (d device) info(t *testing.T, b []byte) ([]byte, error) {
	t.Helper()
	return cmstest.Run(t, d.rauc, "info", "--output-format=json", "--keyring="+d.keyring, cmstest.Write(t, d.dir, "b.raucb", b))
}

// extract returns the root file system that the device would write.
func (d device) extract(t *testing.T, b []byte) ([]byte, error) {
	t.Helper()
	to := filepath.Join(t.TempDir(), "out")
	out, err := cmstest.Run(t, d.rauc, "extract", "--keyring="+d.keyring, cmstest.Write(t, d.dir, "b.raucb", b), to)
	if err != nil {
		return out, err
	}
	got, err := os.ReadFile(filepath.Join(to, "rootfs.img"))
	if err != nil {
		t.Fatal(err)
	}
	return got, nil
}

func TestRAUCTakesWhatWeSignAndNothingElse(t *testing.T) {
	for _, format := range []string{formatPlain, formatVerity} {
		in, rootfs := bundleByRAUC(t, format)
		for _, tc := range []struct {
			name   string
			kind   cmstest.Kind
			layout string
		}{
			{"rsa", cmstest.RSA, ""},
			{"rsa-pss", cmstest.RSA, `{"pss": true}`},
			{"p256", cmstest.P256, ""},
			{"p384 at a time", cmstest.P384, `{"signing_time": "2026-01-01T00:00:00Z"}`},
		} {
			t.Run(format+" "+tc.name, func(t *testing.T) {
				ca, by := newSigner(t, tc.kind)
				root := image.CA{Certificate: ca.Certificate}
				d := newDevice(t, ca.Certificate)
				if out, err := d.info(t, in); err == nil {
					t.Fatalf("rauc takes a bundle by a stranger: %s", out)
				}
				b := mustSign(t, in, by, image.SignOptions{Version: "1.2.3", Hardware: []string{"board-a"}, Layout: json.RawMessage(tc.layout)})
				if out, err := d.info(t, b); err != nil || !bytes.Contains(out, []byte("board-a")) {
					t.Errorf("rauc info: %v\n%s", err, out)
				}
				if got, err := d.extract(t, b); err != nil || !bytes.Equal(got, rootfs) {
					t.Errorf("rauc extract: %v\n%.400s", err, got)
				}
				if _, err := verifyBytes(b, root); err != nil {
					t.Error(err)
				}

				body, sig := parts(b)
				for _, attack := range []struct {
					name string
					b    []byte
					want image.ReasonError
				}{
					{"payload", change(b, 100<<10), image.ErrBadDigest},
					{"padding or tree", change(b, len(body)-1), image.ErrBadDigest},
					{"signature", join(body, change(sig, len(sig)-1)), image.ErrBadSignature},
				} {
					got, err := d.extract(t, attack.b)
					if err == nil {
						t.Errorf("%s: rauc extracts it", attack.name)
					}
					_, ours := verifyBytes(attack.b, root)
					if ours == nil {
						t.Errorf("%s: accepted, rauc says %v\n%.400s", attack.name, err, got)
					}
					wantReason(t, ours, attack.want)
				}
			})
		}
	}
}

// Both refuse what the device cannot use, before it is shipped.
func TestRAUCAndWeRefuseTheSameCertificates(t *testing.T) {
	for _, format := range []string{formatPlain, formatVerity} {
		in, _ := bundleByRAUC(t, format)
		ca := cmstest.NewCA(t, "root")
		by := ca.Signer(t, cmstest.P256, nil, x509.ExtKeyUsageCodeSigning)
		_, _, err := signBytes(in, by, image.SignOptions{})
		wantReason(t, err, image.ErrWrongPurpose)
		b := mustSign(t, in, by, image.SignOptions{Layout: json.RawMessage(`{"purpose": "code_signing"}`)})
		if out, err := newDevice(t, ca.Certificate).info(t, b); err == nil {
			t.Errorf("%s: rauc takes it by default, contrary to what we say: %s", format, out)
		}
		without := ca.Signer(t, cmstest.P256, nil)
		if out, err := newDevice(t, ca.Certificate).info(t, mustSign(t, in, without, image.SignOptions{})); err != nil {
			t.Errorf("%s: without extended key usage: %v\n%s", format, err, out)
		}
	}
}

// A chain, as a PKI with an intermediate CA makes it.
func TestRAUCTakesAChain(t *testing.T) {
	in, rootfs := bundleByRAUC(t, formatVerity)
	ca := cmstest.NewCA(t, "root")
	middle := ca.Intermediate(t, "releases")
	by := middle.Signer(t, cmstest.P256, nil, x509.ExtKeyUsageEmailProtection)
	b := mustSign(t, in, by, image.SignOptions{Certificates: []*x509.Certificate{by.Certificate, middle.Certificate}})
	if got, err := newDevice(t, ca.Certificate).extract(t, b); err != nil || !bytes.Equal(got, rootfs) {
		t.Errorf("rauc extract: %v\n%.400s", err, got)
	}
	if _, err := verifyBytes(b, image.CA{Certificate: ca.Certificate}); err != nil {
		t.Error(err)
	}
}

// RAUC's own bundles, some sizes around where the tree gains a level.
func TestTreesOfRAUCAreUnderstood(t *testing.T) {
	rauc := cmstest.Tool(t, "rauc")
	cmstest.Tool(t, "mksquashfs")
	_, by := newSigner(t, cmstest.RSA)
	for _, size := range []int{8 << 10, 128 * 4096, 129 * 4096, 1 << 20} {
		dir := t.TempDir()
		in := filepath.Join(dir, "in")
		if err := os.Mkdir(in, 0o700); err != nil {
			t.Fatal(err)
		}
		rootfs := make([]byte, size)
		_, _ = rand.NewChaCha8([32]byte{2}).Read(rootfs) // never fails
		cmstest.Write(t, in, "rootfs.img", rootfs)
		cmstest.Write(t, in, "manifest.raucm", []byte("[update]\ncompatible=b\n[bundle]\nformat=verity\n[image.rootfs]\nfilename=rootfs.img\n"))
		path := filepath.Join(dir, "b.raucb")
		out, err := cmstest.Run(t, rauc, "bundle", "--cert="+cmstest.PEM(t, dir, "cert.pem", by.Certificate),
			"--key="+cmstest.KeyPEM(t, dir, "key.pem", by), in, path)
		if err != nil {
			t.Fatalf("rauc bundle: %v\n%s", err, out)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := verifyBytes(b, by.Public()); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}
