package mcuboot

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
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

func writeFile(t *testing.T, path string, b []byte) string {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// everything fills the protected area, for imgtool and for us.
var everything = struct {
	args []string
	opt  string
}{
	[]string{
		"-s", "7", "--vid", "example.com", "--cid", "board-a", "--boot-record", "APP", "-d", "(1,2.0.0+5)(3,0.1.0)",
		"--custom-tlv", "0xa0", "0xdeadbeef", "--custom-tlv", "0xfffe", "hello",
	},
	`"vendor": "example.com", "class": "board-a", "boot_record": "APP",
	 "dependencies": [{"image": 1, "version": "2.0.0+5"}, {"image": 3, "version": "0.1.0"}],
	 "tlvs": [{"type": "0x00a0", "data": "deadbeef"}, {"type": "0xfffe", "data": "68656c6c6f"}]`,
}

// For every algorithm, and with the key's hash or the key: what we make is what
// imgtool makes, byte for byte when its signature is replayed; we verify
// imgtool's image; imgtool verifies ours, created and re-signed, and neither
// takes a tampered one.
func TestImgtoolAgreesOnEveryMode(t *testing.T) {
	for _, m := range modes() {
		for _, named := range []string{"hash", "full"} {
			t.Run(m.name+" "+named, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				key := m.key(t)
				priv := writeFile(t, filepath.Join(dir, "key.pem"), privatePEM(t, key))
				in := writeFile(t, filepath.Join(dir, "in.bin"), sample(t, "payload.bin"))
				opt := image.SignOptions{
					Version: "1.2.3+4", SecurityCounter: new(uint64(7)),
					Layout: fmt.Appendf(nil, `{"key": %q, %s, %s}`, named, m.opt, everything.opt),
				}
				theirs := imgtoolSigns(t, dir, slices.Concat([]string{"-k", priv, "-v", "1.2.3+4", "--public-key-format", named}, m.imgtool, everything.args), in)
				v, err := verifyBytes(theirs, key.Public())
				if err != nil || v.Algorithm != m.alg {
					t.Errorf("imgtool's image: algorithm %q, error %v", v.Algorithm, err)
				}
				replayed := mustSign(t, sample(t, "payload.bin"), replay{key.Public(), lastTLV(t, theirs)}, opt)
				if d := cmp.Diff(theirs, replayed); d != "" {
					t.Errorf("output differs (-imgtool +writ):\n%s", d)
				}
				ours := mustSign(t, sample(t, "payload.bin"), key, opt)
				for what, b := range map[string][]byte{
					"created":   ours,
					"re-signed": mustSign(t, theirs, key, image.SignOptions{}),
				} {
					imgtoolVerifies(t, dir, what, key.Public(), b)
					if _, err := verifyBytes(b, key.Public()); err != nil {
						t.Errorf("%s: we refuse our own image: %v", what, err)
					}
				}
			})
		}
	}
}

// imgtoolVerifies checks that imgtool takes an image, and refuses a created one
// with a byte changed in header, payload, protected area or signature.
func imgtoolVerifies(t *testing.T, dir, what string, pub crypto.PublicKey, b []byte) {
	t.Helper()
	file := writeFile(t, filepath.Join(dir, "pub.pem"), publicPEM(t, pub))
	path := filepath.Join(dir, "verify.bin")
	writeFile(t, path, b)
	if out, err := imgtool(t, "verify", "-k", file, path); err != nil {
		t.Errorf("%s: imgtool refuses our image: %v\n%s", what, err, out)
	}
	if what == "re-signed" {
		return // the same tampering again would only take time
	}
	l, err := parse(t.Context(), bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]int64{"version": 20, "payload": l.hdrSize + 1}
	if len(l.protected) > 0 {
		at["protected area"] = l.hdrSize + l.imgSize + tlvInfoSize + tlvHeadSize
	}
	if last := l.tlvs[len(l.tlvs)-1]; len(l.tlvs) <= 4 && isSignature(last.typ) {
		at["signature"] = l.end - 1
	}
	for where, off := range at {
		tampered := bytes.Clone(b)
		tampered[off] ^= 1
		writeFile(t, path, tampered)
		if out, err := imgtool(t, "verify", "-k", file, path); err == nil {
			t.Errorf("%s: imgtool accepts a tampered %s:\n%s", what, where, out)
		}
	}
}

// imgtoolSigns runs imgtool sign and returns the image.
func imgtoolSigns(t *testing.T, dir string, args []string, in string) []byte {
	t.Helper()
	path := filepath.Join(dir, "imgtool.bin")
	args = slices.Concat([]string{"sign", "--align", "8", "-S", "0x40000", "-H", "0x200", "--pad-header"}, args, []string{in, path})
	if out, err := imgtool(t, args...); err != nil {
		t.Fatalf("imgtool: %v\n%s", err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// dumpinfo returns the types of an image's TLVs as imgtool reads them.
func dumpinfo(t *testing.T, path string) (protected, rest []string) {
	t.Helper()
	out, err := imgtool(t, "dumpinfo", "-f", "json", path)
	if err != nil {
		t.Fatalf("imgtool: %v\n%s", err, out)
	}
	type tlv struct {
		Name string `json:"type_name"`
	}
	var info struct {
		Area struct {
			Protected []tlv `json:"tlvs_prot"`
			Rest      []tlv `json:"tlvs"`
		} `json:"tlv_area"`
	}
	if err := json.Unmarshal(out, &info); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	for _, e := range info.Area.Protected {
		protected = append(protected, e.Name)
	}
	for _, e := range info.Area.Rest {
		rest = append(rest, e.Name)
	}
	return protected, rest
}

// Four keys of different kinds sign one image after the other. Each of them
// verifies it, with imgtool and with us, and one changes its mind.
func TestImgtoolFindsEverySignature(t *testing.T) {
	dir := t.TempDir()
	keys := []crypto.Signer{newP256(t), newEd25519(t), theRSA(t, rsa2048), theRSA(t, rsa3072), newP256(t)}
	opt := image.SignOptions{Version: "1.2.3", Layout: fmt.Appendf(nil, "{%s}", everything.opt)}
	b := mustSign(t, sample(t, "payload.bin"), keys[0], opt)
	for _, k := range append(keys[1:], keys[1]) {
		b = mustSign(t, b, k, withLayout("", `{"signatures": "add"}`))
	}
	protected, rest := dumpinfo(t, writeFile(t, filepath.Join(dir, "all.bin"), b))
	wantProtected := []string{"BOOT_RECORD", "DEPENDENCY", "DEPENDENCY", "UUID_VID", "UUID_CID", "UNKNOWN", "UNKNOWN"}
	// The key that signed twice has one signature, the last.
	wantRest := []string{"SHA256", "KEYHASH", "ECDSASIG", "KEYHASH", "RSA2048", "KEYHASH", "RSA3072", "KEYHASH", "ECDSASIG", "KEYHASH", "ED25519"}
	if d := cmp.Diff([][]string{wantProtected, wantRest}, [][]string{protected, rest}); d != "" {
		t.Errorf("dumpinfo (-want +got):\n%s", d)
	}
	for i, k := range keys {
		imgtoolVerifies(t, dir, fmt.Sprintf("key %d", i), k.Public(), b)
		v, err := verifyBytes(b, newP256(t).Public(), k.Public())
		if err != nil || !k.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(v.Key) || len(v.Info.Signatures) != len(keys) {
			t.Errorf("key %d: %+v, %v", i, v, err)
		}
	}
}

// ciphers are the ways to encrypt that imgtool and bootloaders have.
var ciphers = []struct {
	name  string
	curve ecdh.Curve
	aes   int
	hmac  string
	tlv   string
}{
	{"p256 aes128", ecdh.P256(), 128, "", "ENCEC256"},
	{"p256 aes256", ecdh.P256(), 256, "sha256", "ENCEC256"},
	{"x25519 aes128", ecdh.X25519(), 128, "", "ENCX25519"},
	{"x25519 aes256", ecdh.X25519(), 256, "", "ENCX25519"},
	{"x25519 sha512 aes128", ecdh.X25519(), 128, "sha512", "ENCX25519_SHA512"},
	{"x25519 sha512 aes256", ecdh.X25519(), 256, "sha512", "ENCX25519_SHA512"},
}

// Both ways: we decrypt and verify what imgtool encrypts, and a decryptor on
// imgtool's own keys opens what we encrypt, created and re-signed, to an image
// that imgtool verifies.
func TestImgtoolAgreesOnEncryption(t *testing.T) {
	for _, tc := range ciphers {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			var key crypto.Signer = newEd25519(t)
			if tc.curve == ecdh.P256() {
				key = newP256(t)
			}
			recipient := newRecipient(t, tc.curve)
			secret, public := recipientFiles(t, dir, recipient)
			priv := writeFile(t, filepath.Join(dir, "key.pem"), privatePEM(t, key))
			in := writeFile(t, filepath.Join(dir, "in.bin"), sample(t, "payload.bin"))

			args := []string{"-k", priv, "-v", "1.2.3+4", "-s", "7", "-E", public, "--encrypt-keylen", strconv.Itoa(tc.aes)}
			if tc.hmac == "sha512" {
				args = append(args, "--hmac-sha", "512")
			}
			theirs := imgtoolSigns(t, dir, args, in)
			if v, err := verifyBytes(theirs, key.Public(), image.Recipient{PrivateKey: recipient}); err != nil || !v.Info.Encrypted {
				t.Errorf("imgtool's image: %+v, %v", v, err)
			}

			opt := withLayout("1.2.3+4", encryptTo(t, recipient, tc.aes, tc.hmac))
			opt.SecurityCounter = new(uint64(7))
			ours := mustSign(t, sample(t, "payload.bin"), key, opt)
			again := mustSign(t, mustSign(t, sample(t, "payload.bin"), newP256(t), image.SignOptions{Version: "1.2.3+4", SecurityCounter: new(uint64(7))}), key, opt)
			for what, b := range map[string][]byte{"created": ours, "re-signed": again} {
				if bytes.Contains(b, sample(t, "payload.bin")[:64]) {
					t.Fatalf("%s: the payload is clear", what)
				}
				path, decrypted := writeFile(t, filepath.Join(dir, "enc.bin"), b), filepath.Join(dir, "clear.bin")
				if _, rest := dumpinfo(t, path); rest[len(rest)-1] != tc.tlv {
					t.Errorf("%s: imgtool sees %v, want %s last", what, rest, tc.tlv)
				}
				if out, err := imgtoolPython(t, "testdata/decrypt.py", secret, path, decrypted); err != nil {
					t.Fatalf("%s: cannot decrypt with imgtool's keys: %v\n%s", what, err, out)
				}
				plain, err := os.ReadFile(decrypted)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(plain[0x200:0x200+4099], sample(t, "payload.bin")) {
					t.Errorf("%s: decrypts to something else", what)
				}
				imgtoolVerifies(t, dir, what, key.Public(), plain)
			}
		})
	}
}

// recipientFiles writes a recipient's keys as imgtool reads them.
func recipientFiles(t *testing.T, dir string, k *ecdh.PrivateKey) (secret, public string) {
	t.Helper()
	return writeFile(t, filepath.Join(dir, "enc.pem"), privatePEM(t, k)),
		writeFile(t, filepath.Join(dir, "encpub.pem"), publicPEM(t, k.PublicKey()))
}

// imgtoolPython runs a script with the Python that imgtool is installed in.
func imgtoolPython(t *testing.T, args ...string) ([]byte, error) {
	t.Helper()
	path, err := exec.LookPath("imgtool")
	if err != nil {
		t.Skip("skipped: imgtool is not on PATH")
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		t.Fatal(err)
	}
	return exec.CommandContext(t.Context(), filepath.Join(filepath.Dir(path), "python3"), args...).CombinedOutput()
}

// The header has other sizes and forms, and ids are given as UUIDs.
func TestImgtoolSignsTheSameBytes(t *testing.T) {
	dir := t.TempDir()
	key := newEd25519(t)
	priv := writeFile(t, filepath.Join(dir, "key.pem"), privatePEM(t, key))
	in := writeFile(t, filepath.Join(dir, "payload.bin"), sample(t, "payload.bin"))
	zeros := writeFile(t, filepath.Join(dir, "zeros.bin"), append(make([]byte, 0x400), sample(t, "payload.bin")...))
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
			"hardware by uuid", in,
			[]string{"-v", "1.0.0", "-H", "0x200", "--pad-header", "--vid", "cfbff0d1-9375-5685-968c-48ce8b15ae17", "--cid", "5f36311295cf534fa3d1fc8ef6f4962a"},
			image.SignOptions{Version: "1.0.0", Vendor: "cfbff0d1-9375-5685-968c-48ce8b15ae17", Hardware: []string{"5f36311295cf534fa3d1fc8ef6f4962a"}},
		},
		{"header in place", zeros, []string{"-v", "1.0.0", "-H", "0x400"}, withLayout("1.0.0", `{"header_size": 1024, "header_in_place": true}`)},
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
			if _, err := verifyBytes(want, key.Public()); err != nil {
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
	priv := writeFile(t, filepath.Join(dir, "key.pem"), privatePEM(t, key))
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
