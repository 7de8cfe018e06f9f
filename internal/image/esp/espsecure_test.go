package esp

import (
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-project/writ/internal/image"
)

// espsecure finds the reference tool. Install it with scripts/test-deps, which
// puts it into .cache/bin, and put that on PATH. WRIT_REQUIRE_TOOLS=1 makes its
// absence a failure.
func espsecure(t *testing.T, args ...string) ([]byte, error) {
	t.Helper()
	path, err := exec.LookPath("espsecure")
	if err != nil {
		if os.Getenv("WRIT_REQUIRE_TOOLS") == "1" {
			t.Fatal("WRIT_REQUIRE_TOOLS=1, and espsecure is not on PATH: run scripts/test-deps")
		}
		t.Skip("skipped: cross-check against espsecure, which is not on PATH (scripts/test-deps)")
	}
	return exec.CommandContext(t.Context(), path, args...).CombinedOutput()
}

func writeFile(t *testing.T, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func publicPEM(t *testing.T, key crypto.Signer) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, "pub.pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func TestEspsecureAcceptsWhatWeSign(t *testing.T) {
	add := image.SignOptions{Layout: json.RawMessage(`{"append": true}`)}
	for name, keys := range map[string][3]crypto.Signer{
		"rsa3072": {rsaKeys()[0], rsaKeys()[1], rsaKeys()[2]},
		"p256":    {newEC(t, elliptic.P256()), newEC(t, elliptic.P256()), newEC(t, elliptic.P256())},
		"p384":    {newEC(t, elliptic.P384()), newEC(t, elliptic.P384()), newEC(t, elliptic.P384())},
	} {
		t.Run(name, func(t *testing.T) {
			one := mustSign(t, sample(t, "app-unsigned.bin"), keys[0], image.SignOptions{})
			three := mustSign(t, mustSign(t, one, keys[1], add), keys[2], add)
			for i, key := range keys {
				pub := publicPEM(t, key)
				for what, tc := range map[string]struct {
					img  []byte
					good bool
				}{
					"one signature": {one, i == 0}, "three": {three, true},
				} {
					path := writeFile(t, "image.bin", tc.img)
					out, err := espsecure(t, "verify_signature", "-v", "2", "-k", pub, path)
					if (err == nil) != tc.good {
						t.Errorf("%s, key %d: espsecure says %v\n%s", what, i, err, out)
					}
				}
				tampered := []byte(string(three))
				tampered[0x130] ^= 1
				if out, err := espsecure(t, "verify_signature", "-v", "2", "-k", pub, writeFile(t, "image.bin", tampered)); err == nil {
					t.Errorf("key %d: espsecure accepts a tampered image:\n%s", i, out)
				}
			}
			// The digests to burn into the eFuses are those we report.
			info, err := inspectBytes(three)
			if err != nil {
				t.Fatal(err)
			}
			out, err := espsecure(t, "signature_info_v2", writeFile(t, "image.bin", three))
			if err != nil {
				t.Fatalf("espsecure: %v\n%s", err, out)
			}
			packed := strings.ReplaceAll(string(out), " ", "")
			for _, s := range info.Signatures {
				if !strings.Contains(packed, s.KeyID) {
					t.Errorf("espsecure does not report the key digest %s:\n%s", s.KeyID, out)
				}
			}
		})
	}
}

func TestVerifyAcceptsWhatEspsecureSignsNow(t *testing.T) {
	for name, key := range map[string]crypto.Signer{
		image.AlgRSA3072: rsaKeys()[0], image.AlgECDSAP256: newEC(t, elliptic.P256()), image.AlgECDSAP384: newEC(t, elliptic.P384()),
	} {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		priv := writeFile(t, "key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
		in := writeFile(t, "in.bin", sample(t, "app-unsigned.bin"))
		path := in + ".signed"
		if out, err := espsecure(t, "sign_data", "-v", "2", "-k", priv, "-o", path, in); err != nil {
			t.Fatalf("espsecure: %v\n%s", err, out)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		v, err := verifyBytes(b, key.Public())
		if err != nil || v.Algorithm != name {
			t.Errorf("%s: got %s, %v", name, v.Algorithm, err)
		}
	}
}
