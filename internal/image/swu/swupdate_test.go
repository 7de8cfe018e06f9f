package swu

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/writ-project/writ/internal/fwtest/cmstest"
	"github.com/writ-project/writ/internal/image"
)

// swupdate runs Debian's swupdate on an image, for a device with board:1.0 that
// trusts ca. A folder of its own for every run: several that share TMPDIR get
// into each other's way.
func swupdate(t *testing.T, b []byte, ca *x509.Certificate, args ...string) (string, error) {
	t.Helper()
	path := cmstest.Tool(t, "swupdate")
	// Not t.TempDir: the sockets in it must have short names.
	dir, err := os.MkdirTemp("", "swu") //nolint:usetesting // its paths are too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	args = append([]string{
		"-v", "-k", cmstest.PEM(t, dir, "ca.pem", ca), "-H", "board:1.0", "-i", cmstest.Write(t, dir, "image.swu", b),
	}, args...)
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	cmd.Dir = dir
	cmd.WaitDelay = 5 * time.Second // its children may hold the pipe
	raw, runErr := cmd.CombinedOutput()
	out := string(raw)
	// Its exit status and its last line are wrong now and then, both ways: the
	// process that was started asks another how it went, and one of its children
	// ends at the same time. What the installer itself says is right.
	good, bad := strings.Contains(out, "SWUPDATE successful !"), strings.Contains(out, "SWUPDATE failed [1]")
	switch {
	case good == bad:
		t.Fatalf("swupdate ends with %v and no verdict:\n%s", runErr, out)
	case good:
		return out, nil
	}
	return out, errors.New("swupdate says that it failed")
}

// deviceHardware is what the tests' device calls itself.
var deviceHardware = []string{"1.0"}

// tampered are images that a device that trusts signer's CA refuses, with what
// swupdate says of each.
func tampered(t *testing.T, ca *cmstest.CA, signer cmstest.Signer, payload []byte, l Layout) map[string]struct {
	image  []byte
	reason image.ReasonError // of our own; empty: we accept, for another device
	says   string
} {
	t.Helper()
	opt := image.SignOptions{Version: "1.2.3", Hardware: deviceHardware, Layout: layout(t, l)}
	good := mustSign(t, payload, signer, opt)
	changedPayload := bytes.Clone(good)
	i := bytes.Index(changedPayload, payload[100:])
	// Two changes that leave the sum of bytes as it was.
	changedPayload[i], changedPayload[i+1] = changedPayload[i+1], changedPayload[i]
	changedText := bytes.Replace(good, []byte("1.2.3"), []byte("1.3.2"), 1)
	stranger := cmstest.NewCA(t, "root")
	foreign := mustSign(t, payload, stranger.Signer(t, cmstest.P256, nil), opt)
	opt.Hardware = []string{"7.7"}
	otherBoard := mustSign(t, payload, signer, opt)
	return map[string]struct {
		image  []byte
		reason image.ReasonError
		says   string
	}{
		"payload":     {changedPayload, image.ErrBadDigest, "HASH mismatch"},
		"description": {changedText, image.ErrBadDigest, "CMS_SignerInfo_verify_content:verification failure"},
		"signer":      {foreign, image.ErrUnknownKey, "Failed to verify certificate"},
		"hardware":    {otherBoard, "", "not compatible with hardware"},
	}
}

func TestSWUpdateChecksAndInstallsWhatWeSign(t *testing.T) {
	t.Parallel()
	ca := cmstest.NewCA(t, "root")
	payload := bytes.Repeat([]byte("firmware that is of no use to anybody. "), 5000)
	for _, tc := range []struct {
		name, signature string
		kind            cmstest.Kind
	}{
		{"rsa", signCMS, cmstest.RSA},
		{"rsa-pss", signCMSPSS, cmstest.RSA},
		{"p256", signCMS, cmstest.P256},
		{"p384", signCMS, cmstest.P384},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			signer := ca.Signer(t, tc.kind, nil, x509.ExtKeyUsageEmailProtection)
			target := filepath.Join(t.TempDir(), "new", "rootfs")
			l := rawfile(target)
			l.Signature, l.Description = tc.signature, `a "quoted" \ text`
			opt := image.SignOptions{Version: "1.2.3", Hardware: []string{"1.0", "1.2"}, Layout: layout(t, l)}
			good := mustSign(t, payload, signer, opt)
			resigned := mustSign(t, sample(t, "cms-rsa.swu"), signer, image.SignOptions{
				Version: "1.2.3", Hardware: []string{"1.0", "1.2"}, Layout: layout(t, Layout{Signature: tc.signature}),
			})
			for name, b := range map[string][]byte{"built": good, "re-signed": resigned} {
				if out, err := swupdate(t, b, ca.Certificate, "-c"); err != nil {
					t.Errorf("%s: swupdate -c refuses it: %v\n%s", name, err, out)
				}
				if _, err := verifyBytes(b, image.CA{Certificate: ca.Certificate}); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			if out, err := swupdate(t, good, ca.Certificate); err != nil {
				t.Fatalf("swupdate does not install it: %v\n%s", err, out)
			}
			if got, err := os.ReadFile(target); err != nil || !bytes.Equal(got, payload) {
				t.Errorf("installed %d bytes, %v, want the %d of the payload", len(got), err, len(payload))
			}
		})
	}
}

func TestSWUpdateRefusesWhatWasTamperedWith(t *testing.T) {
	t.Parallel()
	ca := cmstest.NewCA(t, "root")
	signer := ca.Signer(t, cmstest.P256, nil, x509.ExtKeyUsageEmailProtection)
	payload := bytes.Repeat([]byte("firmware that is of no use to anybody. "), 5000)
	target := filepath.Join(t.TempDir(), "new", "rootfs")
	for name, bad := range tampered(t, ca, signer, payload, rawfile(target)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, args := range [][]string{{"-c"}, nil} {
				out, err := swupdate(t, bad.image, ca.Certificate, args...)
				if err == nil {
					t.Errorf("swupdate %v takes it:\n%s", args, out)
				} else if !strings.Contains(out, bad.says) {
					t.Errorf("swupdate %v refuses it for another reason than %q:\n%s", args, bad.says, out)
				}
			}
			if _, err := os.Stat(target); err == nil {
				t.Error("swupdate installed it")
			}
			_, err := verifyBytes(bad.image, image.CA{Certificate: ca.Certificate})
			if bad.reason != "" {
				wantReason(t, err, bad.reason)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// A certificate that we refuse to sign with is one that swupdate refuses.
func TestSWUpdateChecksThePurpose(t *testing.T) {
	t.Parallel()
	ca := cmstest.NewCA(t, "root")
	signer := ca.Signer(t, cmstest.P256, nil, x509.ExtKeyUsageCodeSigning)
	opt := image.SignOptions{Version: "1.2.3", Hardware: deviceHardware, Layout: layout(t, rawfile("rootfs"))}
	_, err := signBytes([]byte("payload"), signer, opt)
	wantReason(t, err, image.ErrWrongPurpose)

	l := rawfile("rootfs")
	l.Purpose = "code_signing"
	opt.Layout = layout(t, l)
	b := mustSign(t, []byte("payload"), signer, opt)
	if out, err := swupdate(t, b, ca.Certificate, "-c"); err == nil {
		t.Errorf("swupdate takes it where emailProtection is due:\n%s", out)
	}
	if out, err := swupdate(t, b, ca.Certificate, "-c", "--cert-purpose", "codeSigning"); err != nil {
		t.Errorf("swupdate refuses it: %v\n%s", err, out)
	}
}

// Several files, in every section, out of a cpio archive made by cpio itself.
func TestSWUpdateInstallsSeveralFiles(t *testing.T) {
	t.Parallel()
	tool := cmstest.Tool(t, "cpio")
	ca := cmstest.NewCA(t, "root")
	signer := ca.Signer(t, cmstest.P256, nil)
	dir, target := t.TempDir(), t.TempDir()
	content := map[string]string{"one.bin": "first file", "two.txt": strings.Repeat("second ", 999), "hello.sh": "#!/bin/sh\nexit 0\n"}
	for name, text := range content {
		cmstest.Write(t, dir, name, []byte(text))
	}
	one, two := filepath.Join(target, "one"), filepath.Join(target, "two")
	l := Layout{Archive: true, Images: []Image{
		{Filename: "one.bin", Type: "rawfile", Path: one, Name: "one", Version: "3"},
		{Filename: "two.txt", Section: "files", Path: two},
		{Filename: "hello.sh", Section: "scripts", Type: "shellscript"},
	}}
	for _, format := range []string{"newc", "crc"} {
		cmd := exec.CommandContext(t.Context(), tool, "-o", "--quiet", "-H", format)
		cmd.Dir, cmd.Stdin = dir, strings.NewReader("two.txt\none.bin\nhello.sh\n")
		in, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		b := mustSign(t, in, signer, image.SignOptions{Version: "2.0.0", Hardware: deviceHardware, Layout: layout(t, l)})
		v, err := verifyBytes(b, signer.Public())
		if err != nil || v.Info.Version != "2.0.0" {
			t.Fatalf("got %+v, %v", v, err)
		}
		if out, err := swupdate(t, b, ca.Certificate); err != nil {
			t.Fatalf("swupdate does not install it: %v\n%s", err, out)
		}
		for path, name := range map[string]string{one: "one.bin", two: "two.txt"} {
			if got, err := os.ReadFile(path); err != nil || string(got) != content[name] {
				t.Errorf("%s has %q, %v", path, got, err)
			}
			if err := os.Remove(path); err != nil {
				t.Error(err)
			}
		}
		// cpio reads what we write.
		cmd = exec.CommandContext(t.Context(), tool, "-t", "--quiet", "--only-verify-crc")
		cmd.Stdin = bytes.NewReader(b)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("cpio refuses our archive: %v\n%s", err, out)
		}
	}
}
