package pkcs11_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-project/writ/internal/custody/custodytest"
	"github.com/writ-project/writ/internal/custody/pkcs11"
	"github.com/writ-project/writ/internal/custody/pkcs11/token"
	"github.com/writ-project/writ/internal/fw"
)

const (
	module = "/usr/lib/softhsm/libsofthsm2.so"
	pin    = "5678"
)

// TestMain lets the test binary be the helper, so that the tests run the same
// code in a process of its own without building it first.
func TestMain(m *testing.M) {
	if os.Getenv("PKCS11_TEST_HELPER") == "1" {
		if err := token.Serve(os.Stdin, os.Stdout); err != nil {
			fmt.Fprint(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// newToken makes a SoftHSM token. Debian: softhsm2 opensc. WRIT_REQUIRE_TOOLS=1
// makes their absence a failure.
func newToken(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"softhsm2-util", "pkcs11-tool"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("WRIT_REQUIRE_TOOLS") == "1" {
				t.Fatalf("WRIT_REQUIRE_TOOLS=1, and %s is not on PATH", tool)
			}
			t.Skipf("skipped: needs a token, and %s is not on PATH (apt-get install softhsm2 opensc)", tool)
		}
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "tokens"), 0o700); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+dir+"/tokens\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	t.Setenv("PKCS11_TEST_HELPER", "1")
	run(t, "softhsm2-util", "--init-token", "--free", "--label", "fw", "--so-pin", "1234", "--pin", pin)
}

func run(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func tool(t *testing.T, args ...string) {
	t.Helper()
	run(t, "pkcs11-tool", append([]string{"--module", module, "--token-label", "fw", "--login", "--pin", pin}, args...)...)
}

func newKey(t *testing.T, kind, label, id string) {
	t.Helper()
	tool(t, "--keypairgen", "--key-type", kind, "--label", label, "--id", id)
}

func newBackend(t *testing.T, change func(*pkcs11.Options)) *pkcs11.Backend {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	opt := pkcs11.Options{Module: module, PIN: []byte(pin), Helper: self}
	if change != nil {
		change(&opt)
	}
	b, err := pkcs11.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestKeysOnATokenKeepTheContract(t *testing.T) {
	newToken(t)
	b := newBackend(t, nil)
	for i, kind := range []string{"EC:prime256v1", "EC:secp384r1", "rsa:2048", "rsa:3072", "EC:edwards25519"} {
		t.Run(kind, func(t *testing.T) {
			id := string(rune('1' + i))
			newKey(t, kind, "key "+kind, "0"+id)
			open := func(t *testing.T) crypto.Signer {
				t.Helper()
				key, err := b.Open(t.Context(), "pkcs11:token=fw;object=key%20"+kind+";id=%0"+id+";type=private")
				if err != nil {
					t.Fatal(err)
				}
				return key
			}
			custodytest.Contract(t, open, reference(t, kind, "0"+id))
		})
	}
}

// reference is the public key as OpenSC, the other opinion, reads it. OpenSC
// 0.23 cannot write a P-384 key to a file, so points come from its listing.
func reference(t *testing.T, kind, id string) crypto.PublicKey {
	t.Helper()
	if strings.HasPrefix(kind, "rsa") {
		path := filepath.Join(t.TempDir(), "pub.der")
		tool(t, "--read-object", "--type", "pubkey", "--id", id, "-o", path)
		der, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		pub, err := x509.ParsePKIXPublicKey(der)
		if err != nil {
			t.Fatal(err)
		}
		return pub
	}
	list := string(run(t, "pkcs11-tool", "--module", module, "--token-label", "fw", "--list-objects", "--type", "pubkey"))
	// It lists all of them, whatever the id.
	blocks := strings.Split(list, "Public Key Object")
	i := slices.IndexFunc(blocks, func(b string) bool { return strings.Contains(b, "ID:         "+id+"\n") })
	_, rest, _ := strings.Cut(blocks[max(0, i)], "EC_POINT:")
	text, _, _ := strings.Cut(strings.TrimSpace(rest), "\n")
	wrapped, err := hex.DecodeString(strings.TrimSpace(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, list)
	}
	var point []byte
	if _, err := asn1.Unmarshal(wrapped, &point); err != nil {
		t.Fatal(err)
	}
	var pub crypto.PublicKey = ed25519.PublicKey(point)
	switch kind {
	case "EC:prime256v1":
		pub, err = ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	case "EC:secp384r1":
		pub, err = ecdsa.ParseUncompressedPublicKey(elliptic.P384(), point)
	}
	if err != nil {
		t.Fatal(err)
	}
	return pub
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	newToken(t)
	newKey(t, "EC:prime256v1", "one", "01")
	newKey(t, "EC:prime256v1", "twice", "02")
	newKey(t, "EC:prime256v1", "twice", "03")
	newKey(t, "EC:secp521r1", "p521", "04")
	tool(t, "--keypairgen", "--key-type", "EC:prime256v1", "--label", "loose", "--id", "05", "--extractable")
	tool(t, "--delete-object", "--type", "pubkey", "--id", "03")
	b := newBackend(t, nil)
	for _, c := range []struct {
		uri  string
		kind fw.Kind
		says string
	}{
		{"pkcs11:token=other;object=one", fw.NotFound, "none of the"},
		{"pkcs11:token=fw;object=none", fw.NotFound, "no private key"},
		{"pkcs11:token=fw;object=twice", fw.Conflict, "more than one"},
		{"pkcs11:token=fw;id=%03", fw.NotFound, "no public key"},
		{"pkcs11:token=fw;id=%04", fw.Invalid, "P-256 or P-384"},
		{"pkcs11:token=fw;object=loose", fw.Forbidden, "CKA_EXTRACTABLE"},
		{"pkcs11:token=fw;object=one?module-path=/tmp/evil.so", fw.Forbidden, "configured"},
		{"pkcs11:token=fw;object=one?pin-source=file:/nonexistent/pin", fw.Unavailable, "/nonexistent/pin"},
	} {
		_, err := b.Open(t.Context(), c.uri)
		if fw.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v (%s), want %s with %q", c.uri, err, fw.KindOf(err), c.kind, c.says)
		}
	}
	if _, err := b.Open(t.Context(), "pkcs11:token=fw;object=one"); err != nil {
		t.Errorf("after the refusals: %v", err)
	}
}

func TestAWrongPINIsTriedOnce(t *testing.T) {
	newToken(t)
	newKey(t, "EC:prime256v1", "one", "01")
	b := newBackend(t, func(o *pkcs11.Options) { o.PIN = []byte("0000") })
	// SoftHSM locks nothing, so the second answer must be ours.
	for i, says := range []string{"does not take the PIN", "not tried again"} {
		_, err := b.Open(t.Context(), "pkcs11:token=fw;object=one")
		if fw.KindOf(err) != fw.Forbidden || !strings.Contains(err.Error(), says) {
			t.Errorf("try %d: %v, want %q", i+1, err, says)
		}
	}
	// Another PIN for the same token works, from a file too.
	path := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(path, []byte(pin+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Open(t.Context(), "pkcs11:token=fw;object=one?pin-source=file:"+path); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Open(t.Context(), "pkcs11:token=fw;object=one?pin-source=file:"+path); fw.KindOf(err) != fw.Forbidden {
		t.Errorf("a PIN file that others can read: %v", err)
	}
}

func TestAHelperThatDiesIsReplaced(t *testing.T) {
	newToken(t)
	newKey(t, "EC:prime256v1", "one", "01")
	b := newBackend(t, nil)
	key, err := b.Open(t.Context(), "pkcs11:token=fw;object=one")
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("image"))
	for i := range 3 {
		if _, err := key.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
			t.Fatalf("signature %d: %v", i, err)
		}
		b.KillHelper()
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := key.Sign(rand.Reader, digest[:], crypto.SHA256); fw.KindOf(err) != fw.Unavailable {
		t.Errorf("after Close: %v", err)
	}
}

func TestTheHelperSaysWhyItCannotStart(t *testing.T) {
	t.Setenv("PKCS11_TEST_HELPER", "1")
	text := filepath.Join(t.TempDir(), "no.so")
	if err := os.WriteFile(text, []byte("not a library"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, says := range map[string]string{
		"/nonexistent/module.so": "/nonexistent/module.so",
		text:                     "cannot load",
	} {
		b := newBackend(t, func(o *pkcs11.Options) { o.Module = path })
		if _, err := b.Open(t.Context(), "pkcs11:object=x"); fw.KindOf(err) != fw.Unavailable || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", path, err)
		}
	}
	b := newBackend(t, func(o *pkcs11.Options) { o.Helper = "/nonexistent/writ-pkcs11" })
	if _, err := b.Open(t.Context(), "pkcs11:object=x"); fw.KindOf(err) != fw.Unavailable || !strings.Contains(err.Error(), "writ-pkcs11") {
		t.Errorf("without a helper: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newBackend(t, nil).Open(ctx, "pkcs11:object=x"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestParseURI(t *testing.T) {
	got, err := pkcs11.ParseURI("pkcs11:token=My%20token;manufacturer=ACME;model=X;serial=12;slot-id=3;object=a%3Bb;id=%01%ff;type=private?pin-source=file:/run/pin&module-path=/usr/lib/x.so")
	want := pkcs11.URI{
		Object:  pkcs11.Object{Token: "My token", Manufacturer: "ACME", Model: "X", Serial: "12", Slot: new(int64(3)), Label: "a;b", ID: []byte{1, 255}},
		PINFile: "/run/pin", Module: "/usr/lib/x.so",
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	for uri, says := range map[string]string{
		"token=fw;object=x":                          "RFC 7512",
		"file:/tmp/key":                              "RFC 7512",
		"pkcs11:token=fw":                            "names no key",
		"pkcs11:object=x?pin-value=1234":             "does not belong into a URI",
		"pkcs11:object=x;object=y":                   "twice",
		"pkcs11:object=%zz":                          "percent",
		"pkcs11:object":                              "without =",
		"pkcs11:object=x;type=public":                "type=private",
		"pkcs11:object=x;slot-id=-1":                 "slot-id",
		"pkcs11:object=x;colour=red":                 "not supported",
		"pkcs11:object=a%00b":                        "zero byte",
		"pkcs11:object=x?pin-source=pin":             "whole path",
		"pkcs11:object=x?pin-source=|/bin/x":         "whole path",
		"pkcs11:object=x?module-path=x.so":           "whole path",
		"pkcs11:object=" + strings.Repeat("x", 3000): "limit",
	} {
		if _, err := pkcs11.ParseURI(uri); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", uri, err, says)
		}
		if _, err := pkcs11.ParseURI(uri); err != nil && strings.Contains(err.Error(), "1234") {
			t.Errorf("%s: the error shows the PIN: %v", uri, err)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	f.Add("pkcs11:token=fw;object=x;id=%01?pin-source=file:/run/pin")
	f.Add("pkcs11:object=%")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := pkcs11.ParseURI(s)
		if err == nil && u.Object.Label == "" && len(u.Object.ID) == 0 {
			t.Errorf("%q names no key and was taken", s)
		}
	})
}

func FuzzReadFrame(f *testing.F) {
	var ok bytes.Buffer
	if err := pkcs11.WriteFrame(&ok, pkcs11.Response{ID: 1, Signature: []byte{1}}); err != nil {
		f.Fatal(err)
	}
	f.Add(ok.Bytes())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		var resp pkcs11.Response
		_ = pkcs11.ReadFrame(bytes.NewReader(b), &resp)
	})
}

// What ships must stay static: see docs/adr/0007-pkcs11-in-a-helper.md.
func TestNoOtherProgramLoadsLibraries(t *testing.T) {
	for _, cmd := range []string{"writ", "writ-agent", "writ-verify"} {
		out := run(t, "go", "list", "-deps", "github.com/writ-project/writ/cmd/"+cmd)
		if strings.Contains(string(out), "purego") {
			t.Errorf("%s links purego and is no static program any more", cmd)
		}
	}
}
