package minisign

import (
	"crypto/ed25519"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/writ-project/writ/internal/image"
)

// tool runs one of the reference programs, Debian packages minisign and
// signify-openbsd. WRIT_REQUIRE_TOOLS=1 makes their absence a failure.
func tool(t *testing.T, name string, args ...string) ([]byte, error) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("WRIT_REQUIRE_TOOLS") == "1" {
			t.Fatalf("WRIT_REQUIRE_TOOLS=1, and %s is not on PATH: apt-get install %s", name, name)
		}
		t.Skipf("skipped: cross-check against %s, which is not on PATH (apt-get install %s)", name, name)
	}
	return exec.CommandContext(t.Context(), path, args...).CombinedOutput()
}

func write(t *testing.T, path string, b []byte) string {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// check lets the reference program of a format verify.
func check(t *testing.T, f image.Format, pub, sig, msg string) ([]byte, error) {
	t.Helper()
	if f == both[0] {
		return tool(t, "minisign", "-V", "-p", pub, "-x", sig, "-m", msg)
	}
	return tool(t, "signify-openbsd", "-V", "-p", pub, "-x", sig, "-m", msg)
}

func TestReferenceToolsAcceptWhatWeSign(t *testing.T) {
	for _, f := range both {
		t.Run(f.Name(), func(t *testing.T) {
			dir, key, b := t.TempDir(), newKey(t), sample(t, "payload.bin")
			n, err := NumberOf(key.Public().(ed25519.PublicKey))
			if err != nil {
				t.Fatal(err)
			}
			pub := write(t, filepath.Join(dir, "key.pub"), PublicKey{n, key.Public().(ed25519.PublicKey)}.File())
			opt := image.SignOptions{Product: "thermostat", Version: "1.2.3", SecurityCounter: new(uint64(7)), Hardware: []string{"board-a", "Плата b"}}
			for range 60 { // as much as the comment takes
				opt.Hardware = append(opt.Hardware, "0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz")
			}
			env := mustSign(t, f, b, key, opt).Envelope
			msg, sig := write(t, filepath.Join(dir, "app.bin"), b), write(t, filepath.Join(dir, "app.sig"), env)
			if out, err := check(t, f, pub, sig, msg); err != nil {
				t.Errorf("refuses what we sign: %v\n%s", err, out)
			}

			b[100] ^= 1
			write(t, msg, b)
			if out, err := check(t, f, pub, sig, msg); err == nil {
				t.Errorf("accepts a tampered image:\n%s", out)
			}
			b[100] ^= 1
			write(t, msg, b)
			env[len(env)-20] ^= 1 // the comment's signature, or the only one
			write(t, sig, env)
			if out, err := check(t, f, pub, sig, msg); err == nil {
				t.Errorf("accepts a tampered signature:\n%s", out)
			}
			env[len(env)-20] ^= 1
			write(t, sig, env)
			write(t, pub, PublicKey{n, newKey(t).Public().(ed25519.PublicKey)}.File())
			if out, err := check(t, f, pub, sig, msg); err == nil {
				t.Errorf("accepts another key:\n%s", out)
			}
		})
	}
}

func TestReferenceToolsAcceptTheSamplesAsWeDo(t *testing.T) {
	for _, f := range both {
		pub := write(t, filepath.Join(t.TempDir(), "key.pub"), sampleKey(t).File())
		sig := write(t, filepath.Join(t.TempDir(), "sig"), sampleEnvelope(t, f))
		if out, err := check(t, f, pub, sig, "testdata/payload.bin"); err != nil {
			t.Errorf("%s: %v\n%s", f.Name(), err, out)
		}
	}
}

// What the programs themselves make with a new key of theirs.
func TestVerifyAcceptsWhatReferenceToolsSign(t *testing.T) {
	dir, b := t.TempDir(), sample(t, "payload.bin")
	msg := write(t, filepath.Join(dir, "app.bin"), b)
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, tc := range []struct {
		f              image.Format
		name           string
		generate, sign []string
	}{
		{
			Format{},
			"minisign",
			[]string{"-G", "-W", "-p", path("m.pub"), "-s", path("m.key")},
			[]string{"-S", "-W", "-s", path("m.key"), "-m", msg, "-x", path("m.sig"), "-t", "version:2.0.0\thw:board-b"},
		},
		{
			Signify{},
			"signify-openbsd",
			[]string{"-G", "-n", "-p", path("s.pub"), "-s", path("s.sec")},
			[]string{"-S", "-s", path("s.sec"), "-m", msg, "-x", path("s.sig")},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, args := range [][]string{tc.generate, tc.sign} {
				if out, err := tool(t, tc.name, args...); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
			}
			short := tc.name[:1]
			pub, err := os.ReadFile(path(short + ".pub"))
			if err != nil {
				t.Fatal(err)
			}
			key, err := ParsePublicKey(pub)
			if err != nil {
				t.Fatal(err)
			}
			env, err := os.ReadFile(path(short + ".sig"))
			if err != nil {
				t.Fatal(err)
			}
			v, err := verifyBytes(tc.f, b, env, key)
			if err != nil {
				t.Fatal(err)
			}
			if short == "m" && (v.Info.Version != "2.0.0" || len(v.Info.Hardware) != 1) {
				t.Errorf("got %+v", v.Info)
			}
			_, err = verifyBytes(tc.f, b[1:], env, key)
			wantReason(t, err, image.ErrBadSignature)
		})
	}
}
