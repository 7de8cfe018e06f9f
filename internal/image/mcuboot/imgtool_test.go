package mcuboot

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-project/writ/internal/image"
)

// imgtool finds the reference tool. Install it with
//
//	python3 -m venv /tmp/imgtool && /tmp/imgtool/bin/pip install imgtool
//
// and put /tmp/imgtool/bin on PATH. WRIT_REQUIRE_TOOLS=1 makes its absence a
// failure.
func imgtool(t *testing.T, args ...string) ([]byte, error) {
	t.Helper()
	path, err := exec.LookPath("imgtool")
	if err != nil {
		if os.Getenv("WRIT_REQUIRE_TOOLS") == "1" {
			t.Fatal("WRIT_REQUIRE_TOOLS=1, and imgtool is not on PATH")
		}
		t.Skip("skipped: cross-check against imgtool, which is not on PATH (pip install imgtool)")
	}
	return exec.CommandContext(t.Context(), path, args...).CombinedOutput()
}

func writePEM(t *testing.T, path, kind string, der []byte) string {
	t.Helper()
	return writeFile(t, path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func writeFile(t *testing.T, path string, b []byte) string {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestImgtoolAcceptsWhatWeSign(t *testing.T) {
	dir := t.TempDir()
	for name, key := range map[string]crypto.Signer{"p256": newP256(t), "ed25519": newEd25519(t)} {
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		pub := writePEM(t, filepath.Join(dir, name+".pem"), "PUBLIC KEY", der)
		opt := image.SignOptions{Version: "1.2.3+4", SecurityCounter: new(uint64(7)), Vendor: "example.com", Hardware: []string{"board-a"}}
		b := mustSign(t, sample(t, "payload.bin"), key, opt)
		for file, in := range map[string][]byte{
			"created":   b,
			"re-signed": mustSign(t, sample(t, "p256-full.bin"), key, image.SignOptions{}),
		} {
			path := writeFile(t, filepath.Join(dir, name+file+".bin"), in)
			if out, err := imgtool(t, "verify", "-k", pub, path); err != nil {
				t.Errorf("%s %s: imgtool refuses our image: %v\n%s", name, file, err, out)
			}
			in[0x300] ^= 1
			writeFile(t, path, in)
			if out, err := imgtool(t, "verify", "-k", pub, path); err == nil {
				t.Errorf("%s %s: imgtool accepts a tampered image:\n%s", name, file, out)
			}
		}
	}
}

// Ed25519 is deterministic, so the whole file is compared.
func TestImgtoolSignsTheSameBytes(t *testing.T) {
	dir := t.TempDir()
	key := newEd25519(t)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	priv := writePEM(t, filepath.Join(dir, "key.pem"), "PRIVATE KEY", der)
	in := filepath.Join(dir, "payload.bin")
	writeFile(t, in, sample(t, "payload.bin"))
	zeros := filepath.Join(dir, "zeros.bin")
	writeFile(t, zeros, append(make([]byte, 0x400), sample(t, "payload.bin")...))

	for _, tc := range []struct {
		name, in string
		args     []string
		opt      image.SignOptions
	}{
		{"plain", in, []string{"-v", "1.2.3+4", "-H", "0x200", "--pad-header"}, image.SignOptions{Version: "1.2.3+4"}},
		{"large header", in, []string{"-v", "9.8.7", "-H", "0x1000", "--pad-header"}, image.SignOptions{Version: "9.8.7", HeaderSize: 0x1000}},
		{
			"counter", in,
			[]string{"-v", "1.0.0", "-H", "0x20", "--pad-header", "-s", "4294967295"},
			image.SignOptions{Version: "1.0.0", HeaderSize: 0x20, SecurityCounter: new(uint64(1<<32 - 1))},
		},
		{
			"hardware", in,
			[]string{"-v", "1.0.0", "-H", "0x200", "--pad-header", "-s", "7", "--vid", "example.com", "--cid", "board-a"},
			image.SignOptions{Version: "1.0.0", SecurityCounter: new(uint64(7)), Vendor: "example.com", Hardware: []string{"board-a"}},
		},
		{
			"hardware by uuid", in,
			[]string{"-v", "1.0.0", "-H", "0x200", "--pad-header", "--vid", "cfbff0d1-9375-5685-968c-48ce8b15ae17", "--cid", "5f36311295cf534fa3d1fc8ef6f4962a"},
			image.SignOptions{Version: "1.0.0", Vendor: "cfbff0d1-9375-5685-968c-48ce8b15ae17", Hardware: []string{"5f36311295cf534fa3d1fc8ef6f4962a"}},
		},
		{"header in place", zeros, []string{"-v", "1.0.0", "-H", "0x400"}, image.SignOptions{Version: "1.0.0", HeaderSize: 0x400, HeaderInPlace: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "out.bin")
			args := append([]string{"sign", "-k", priv, "--align", "8", "-S", "0x40000"}, tc.args...)
			if out, err := imgtool(t, append(args, tc.in, path)...); err != nil {
				t.Fatalf("imgtool: %v\n%s", err, out)
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			input, err := os.ReadFile(tc.in)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, mustSign(t, input, key, tc.opt)); d != "" {
				t.Errorf("output differs (-imgtool +writ):\n%s", d)
			}
			if _, err := verifyBytes(bytes.Clone(want), key.Public()); err != nil {
				t.Errorf("imgtool's image: %v", err)
			}
		})
	}
}

// imgtool --confirm makes an image for the factory's programmer; see the package
// comment for why it is not an update.
func TestConfirmedImageOfImgtoolIsRefused(t *testing.T) {
	dir := t.TempDir()
	key := newEd25519(t)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	priv := writePEM(t, filepath.Join(dir, "key.pem"), "PRIVATE KEY", der)
	in := writeFile(t, filepath.Join(dir, "in.bin"), sample(t, "payload.bin"))
	path := filepath.Join(dir, "out.bin")
	if out, err := imgtool(t, "sign", "-k", priv, "--align", "8", "-S", "0x40000", "-v", "1.0.0", "-H", "0x200", "--pad-header", "--confirm", in, path); err != nil {
		t.Fatalf("imgtool: %v\n%s", err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = verifyBytes(b, key.Public())
	wantReason(t, err, image.ErrMalformed)
}
