package mender

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/writ-project/writ/internal/image"
)

// tool runs Debian's mender-artifact, the reference tool. WRIT_REQUIRE_TOOLS=1
// makes its absence a failure.
func tool(t *testing.T, args ...string) ([]byte, error) {
	t.Helper()
	path, err := exec.LookPath("mender-artifact")
	if err != nil {
		if os.Getenv("WRIT_REQUIRE_TOOLS") == "1" {
			t.Fatal("WRIT_REQUIRE_TOOLS=1, and mender-artifact is not on PATH: run scripts/test-deps")
		}
		t.Skip("skipped: cross-check against mender-artifact, which is not on PATH (apt-get install mender-artifact)")
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

// wrote makes an unsigned artifact with the reference tool.
func wrote(t *testing.T, args ...string) []byte {
	t.Helper()
	firmware := make([]byte, 100000)
	_, _ = rand.Read(firmware)
	payload := writeFile(t, "fw.bin", firmware)
	path := filepath.Join(t.TempDir(), "out.mender")
	args = append([]string{
		"write", "module-image", "-T", "single-file", "-n", "release-1.2.3", "-t", "board-a", "-t", "board-b",
		"--provides", counterKey + ":7", "-f", payload, "-o", path,
	}, args...)
	if out, err := tool(t, args...); err != nil {
		t.Fatalf("mender-artifact: %v\n%s", err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMenderArtifactAcceptsWhatWeSign(t *testing.T) {
	ec, ec2 := newEC(t, elliptic.P256()), newEC(t, elliptic.P256())
	for in, args := range map[string][]string{"plain": {"--compression", "none"}, "gzip": {"--compression", "gzip"}, "depends": {"--depends", "a.version:1", "-N", "release-1.2.2"}} {
		unsigned := wrote(t, args...)
		for name, key := range map[string]crypto.Signer{"rsa": rsaKey(), "p256": ec} {
			opt := image.SignOptions{Version: "1.2.3", SecurityCounter: new(uint64(7)), Hardware: []string{"board-a", "board-b"}}
			// Once inserted, once replaced.
			for how, b := range map[string][]byte{
				"inserted": mustSign(t, unsigned, key, opt),
				"replaced": mustSign(t, mustSign(t, unsigned, ec2, opt), key, opt),
			} {
				if _, err := verifyBytes(b, key.Public()); err != nil {
					t.Error(err)
				}
				pub := publicPEM(t, key)
				if out, err := tool(t, "validate", "-k", pub, writeFile(t, "a.mender", b)); err != nil {
					t.Errorf("%s, %s, %s: mender-artifact refuses our artifact: %v\n%s", in, name, how, err, out)
				}
				if out, err := tool(t, "validate", "-k", publicPEM(t, ec2), writeFile(t, "a.mender", b)); err == nil {
					t.Errorf("%s, %s, %s: mender-artifact accepts another key:\n%s", in, name, how, out)
				}
				for what, at := range map[string]int{
					"manifest":  bytes.Index(b, []byte("  version\n")) - 3,
					"signature": bytes.Index(b, []byte(nameSignature)) + blockSize + 20,
					"payload":   bytes.Index(b, []byte("data/0000.tar")) + 2*blockSize + 1000,
				} {
					c := bytes.Clone(b)
					c[at] ^= 1
					_, verr := verifyBytes(c, key.Public())
					out, err := tool(t, "validate", "-k", pub, writeFile(t, "a.mender", c))
					if err == nil || verr == nil {
						t.Errorf("%s, %s, %s: tampered %s: mender-artifact says %v, Verify %v\n%s", in, name, how, what, err, verr, out)
					}
				}
			}
		}
	}
}

func TestVerifyAcceptsWhatMenderArtifactSignsNow(t *testing.T) {
	// It takes keys in the older encodings only: PKCS #1 and SEC 1.
	for name, key := range map[string]crypto.Signer{"rsa3072-pkcs1-sha256": rsaKey(), image.AlgECDSAP256: newEC(t, elliptic.P256())} {
		var block pem.Block
		switch k := key.(type) {
		case *rsa.PrivateKey:
			block = pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k)}
		case *ecdsa.PrivateKey:
			der, err := x509.MarshalECPrivateKey(k)
			if err != nil {
				t.Fatal(err)
			}
			block = pem.Block{Type: "EC PRIVATE KEY", Bytes: der}
		}
		b := wrote(t, "-k", writeFile(t, "key.pem", pem.EncodeToMemory(&block)))
		v, err := verifyBytes(b, key.Public())
		if err != nil || v.Algorithm != name || *v.Info.SecurityCounter != 7 || v.Info.Version != "1.2.3" {
			t.Fatalf("%s: got %+v, %v", name, v, err)
		}
		var d Details
		if err := json.Unmarshal(v.Info.Details, &d); err != nil || len(d.Payloads) != 1 || d.Payloads[0].Type != "single-file" {
			t.Errorf("got %s", v.Info.Details)
		}
	}
}
