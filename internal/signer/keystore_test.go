package signer

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/writ-project/writ/internal/fw"
)

func TestKeystoreKeepsKeysAcrossRestart(t *testing.T) {
	w := newWorld(t)
	before := w.ks.List()
	w.reopen(t)
	after := w.ks.List()
	if len(before) != 5 || len(after) != 5 {
		t.Fatalf("%d keys before and %d after", len(before), len(after))
	}
	for i := range before {
		if before[i] != after[i] {
			t.Errorf("%+v became %+v", before[i], after[i])
		}
		if _, err := w.ks.use(after[i].Name, after[i].Purpose); err != nil {
			t.Error(err)
		}
	}
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", e.Name(), info.Mode().Perm())
		}
		b, err := os.ReadFile(filepath.Join(w.dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte("PRIVATE KEY")) || bytes.Contains(b, []byte("AGE-SECRET-KEY")) {
			t.Errorf("%s is not encrypted", e.Name())
		}
	}
}

func TestCreateRefuses(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct {
		key     fw.KeyName
		purpose fw.Purpose
		alg     Algorithm
		kind    fw.Kind
	}{
		"a name that is taken":   {"log-1", fw.PurposeLog, "", fw.Conflict},
		"a path":                 {"../evil", fw.PurposeLog, "", fw.Invalid},
		"a hidden file":          {".evil", fw.PurposeLog, "", fw.Invalid},
		"upper case":             {"Log", fw.PurposeLog, "", fw.Invalid},
		"no name":                {"", fw.PurposeLog, "", fw.Invalid},
		"no purpose":             {"new", "", "", fw.Invalid},
		"an unknown purpose":     {"new", "everything", Ed25519, fw.Invalid},
		"an algorithm too many":  {"new", fw.PurposeLog, ECDSAP256, fw.Invalid},
		"an unknown algorithm":   {"new", fw.PurposeImage, "rsa", fw.Invalid},
		"a CA that is not P-256": {"new", fw.PurposeDeviceCA, Ed25519, fw.Invalid},
	} {
		if _, err := w.ks.Create(t.Context(), c.key, c.purpose, c.alg, t0); fw.KindOf(err) != c.kind {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(w.ks.List()); n != 5 {
		t.Errorf("%d keys after refusals", n)
	}
}

func TestRetiredKeyStaysRetired(t *testing.T) {
	w := newWorld(t)
	if err := w.ks.Retire(t.Context(), "image-1"); err != nil {
		t.Fatal(err)
	}
	if err := w.ks.Retire(t.Context(), "image-1"); fw.KindOf(err) != fw.Conflict {
		t.Errorf("retired twice: %v", err)
	}
	if err := w.ks.Retire(t.Context(), "image-9"); fw.KindOf(err) != fw.NotFound {
		t.Errorf("retired nothing: %v", err)
	}
	w.reopen(t)
	if info, err := w.ks.Public("image-1"); err != nil || info.State != KeyRetired {
		t.Errorf("Public = %+v, %v", info, err)
	}
	if _, err := w.s.Mint(Grant{Purpose: fw.PurposeImage, Key: "image-1", Subject: fw.DigestOf(nil), Verdict: VerdictAllow}); fw.KindOf(err) != fw.Conflict {
		t.Errorf("minted for a retired key: %v", err)
	}
	if _, err := w.ks.Create(t.Context(), "image-1", fw.PurposeImage, "", t0); fw.KindOf(err) != fw.Conflict {
		t.Errorf("the name of a retired key was reused: %v", err)
	}
}

func TestOpenKeystoreRefuses(t *testing.T) {
	path := func(w *world, f string) string { return filepath.Join(w.dir, f) }
	edit := func(t *testing.T, path, before, after string) {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(b, []byte(before)) {
			t.Fatalf("%s has no %q", path, before)
		}
		if err := os.WriteFile(path, bytes.Replace(b, []byte(before), []byte(after), 1), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		damage func(*testing.T, *world)
		opt    KeystoreOptions
		kind   fw.Kind
		says   string
	}{
		"a wrong passphrase": {nil, KeystoreOptions{Passphrase: []byte("wrong")}, fw.Forbidden, "wrong passphrase"},
		"no passphrase":      {nil, KeystoreOptions{}, fw.Invalid, "needs a passphrase"},
		"both":               {nil, KeystoreOptions{Passphrase: []byte("a"), Identity: []byte("b")}, fw.Invalid, "not both"},
		"no age identity":    {nil, KeystoreOptions{Identity: []byte("# nothing\n")}, fw.Invalid, "empty"},
		"a key others can read": {func(t *testing.T, w *world) {
			t.Helper()
			must(t, os.Chmod(path(w, "log-1.key.age"), 0o640))
		}, testKeys, fw.Forbidden, "chmod go-rwx"},
		"an identity others can read": {func(t *testing.T, w *world) {
			t.Helper()
			must(t, os.Chmod(path(w, identityFile), 0o604))
		}, testKeys, fw.Forbidden, "chmod go-rwx"},
		"a directory others can write": {func(t *testing.T, w *world) {
			t.Helper()
			must(t, os.Chmod(w.dir, 0o770))
		}, testKeys, fw.Forbidden, "chmod go-rwx"},
		"a missing identity": {func(t *testing.T, w *world) {
			t.Helper()
			must(t, os.Remove(path(w, identityFile)))
		}, testKeys, fw.Corrupt, "missing"},
		"a truncated identity": {func(t *testing.T, w *world) {
			t.Helper()
			must(t, os.Truncate(path(w, identityFile), 100))
		}, testKeys, fw.Corrupt, "damaged"},
		"a truncated key": {func(t *testing.T, w *world) {
			t.Helper()
			must(t, os.Truncate(path(w, "log-1.key.age"), 200))
		}, testKeys, fw.Corrupt, "damaged"},
		"an oversized key": {func(t *testing.T, w *world) {
			t.Helper()
			must(t, os.Truncate(path(w, "log-1.key.age"), maxKeyFile+1))
		}, testKeys, fw.TooLarge, "over the limit"},
		"two keys swapped": {func(t *testing.T, w *world) {
			t.Helper()
			must(t, os.Rename(path(w, "log-1.key.age"), path(w, "x")))
			must(t, os.Rename(path(w, "root-1.key.age"), path(w, "log-1.key.age")))
			must(t, os.Rename(path(w, "x"), path(w, "root-1.key.age")))
		}, testKeys, fw.Corrupt, "replaced"},
		"another purpose in the metadata": {func(t *testing.T, w *world) {
			t.Helper()
			edit(t, path(w, "log-1.pub.json"), `"log"`, `"authorization"`)
		}, testKeys, fw.Corrupt, "replaced"},
		"another public key in the metadata": {func(t *testing.T, w *world) {
			t.Helper()
			b, err := os.ReadFile(path(w, "root-1.pub.json"))
			must(t, err)
			b = bytes.Replace(b, []byte("root-1"), []byte("log-1"), 1)
			b = bytes.Replace(b, []byte("roster_root"), []byte("log"), 1)
			must(t, os.WriteFile(path(w, "log-1.pub.json"), b, 0o600))
		}, testKeys, fw.Corrupt, "replaced"},
		"a renamed key": {func(t *testing.T, w *world) {
			t.Helper()
			must(t, os.Rename(path(w, "log-1.pub.json"), path(w, "log-2.pub.json")))
		}, testKeys, fw.Corrupt, "renamed"},
		"a mangled key id": {func(t *testing.T, w *world) {
			t.Helper()
			edit(t, path(w, "log-1.pub.json"), `"key_id": "`, `"key_id": "00`)
		}, testKeys, fw.Corrupt, "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if c.damage != nil {
				c.damage(t, w)
			}
			_, err := OpenKeystore(w.dir, c.opt)
			if fw.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says) {
				t.Errorf("OpenKeystore = %v (%s), want %s with %q", err, fw.KindOf(err), c.kind, c.says)
			}
		})
	}
}

func TestOfflineKeyVerifiesAndDoesNotSign(t *testing.T) {
	w := newWorld(t)
	if err := w.s.AdoptRoster(w.roster, t0); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(w.dir, "root-1.key.age")); err != nil {
		t.Fatal(err)
	}
	w.reopen(t)
	if _, err := w.s.SignImage(t.Context(), w.imagePermit(t, 1), w.request(t, "alice", "bob")); err != nil {
		t.Errorf("approvals cannot be checked: %v", err)
	}
	_, err := w.s.Mint(Grant{Purpose: fw.PurposeRosterRoot, Key: "root-1", Subject: fw.DigestOf(nil), Verdict: VerdictAllow})
	if fw.KindOf(err) != fw.Unavailable {
		t.Errorf("Mint = %v", err)
	}
}

func TestAgeIdentityUnlocks(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	opt := KeystoreOptions{Identity: []byte("# created by age-keygen\n" + id.String() + "\n")}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		ks, err := OpenKeystore(dir, opt)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if _, err := ks.Create(t.Context(), "log-1", fw.PurposeLog, "", t0); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := ks.use("log-1", fw.PurposeLog); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, identityFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an identity file was made: %v", err)
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKeystore(dir, KeystoreOptions{Identity: []byte(other.String())}); fw.KindOf(err) != fw.Corrupt {
		t.Errorf("another identity: %v", err)
	}
}

func TestCreateSaysWhatToDoAfterACrash(t *testing.T) {
	w := newWorld(t)
	if err := os.WriteFile(filepath.Join(w.dir, "new.key.age"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := w.ks.Create(t.Context(), "new", fw.PurposeLog, "", t0)
	if fw.KindOf(err) != fw.Conflict || !strings.Contains(err.Error(), "delete it") {
		t.Errorf("Create = %v", err)
	}
	entries, err := filepath.Glob(filepath.Join(w.dir, ".tmp-*"))
	if err != nil || len(entries) > 0 {
		t.Errorf("temporary files left: %v %v", entries, err)
	}
}

// At the real work factor, opening a store with a key of every purpose takes
// one scrypt.
func TestUnlockingCostsOneScrypt(t *testing.T) {
	if testing.Short() {
		t.Skip("runs scrypt at its real work factor")
	}
	dir := filepath.Join(t.TempDir(), "keys")
	opt := KeystoreOptions{Passphrase: []byte("x")}
	ks, err := OpenKeystore(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[fw.KeyName]fw.Purpose{"a": fw.PurposeImage, "b": fw.PurposeAuthorization, "c": fw.PurposeLog, "d": fw.PurposeDeviceCA, "e": fw.PurposeRosterRoot} {
		if _, err := ks.Create(t.Context(), name, p, "", t0); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	if _, err := OpenKeystore(dir, opt); err != nil {
		t.Fatal(err)
	}
	t.Logf("unlocked 5 keys in %v", time.Since(start))
}

// A person can get a key out with age and openssl, as docs/formats/keys.md says.
func TestKeyFileOpensWithOpenSSL(t *testing.T) {
	openssl := tool(t, "openssl")
	w := newWorld(t)
	sealed, err := os.ReadFile(filepath.Join(w.dir, "ca-1.key.age"))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := decrypt(sealed, w.ks.identity)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), openssl, "pkey", "-pubout")
	cmd.Stdin = bytes.NewReader(plain)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	info, err := w.ks.Public("ca-1")
	if err != nil {
		t.Fatal(err)
	}
	if string(out) != info.PublicKey {
		t.Errorf("openssl finds %s and the metadata says %s", out, info.PublicKey)
	}
}

// tool finds an external program, or skips; with WRIT_REQUIRE_TOOLS=1 its
// absence is a failure.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("WRIT_REQUIRE_TOOLS") == "1" {
			t.Fatalf("%s is required and not installed", name)
		}
		t.Skipf("%s is not installed", name)
	}
	return path
}

func FuzzParseKeyInfo(f *testing.F) {
	w := newWorld(f)
	for _, i := range w.ks.List() {
		b, err := os.ReadFile(w.ks.path(i.Name, publicSuffix))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := ParseKeyInfo(b)
		if err != nil {
			return
		}
		if strings.ContainsAny(string(i.Name), "/\\") || i.Name[0] == '.' {
			t.Fatalf("a key named %q", i.Name)
		}
		pub, err := i.Public()
		if err != nil {
			t.Fatal(err)
		}
		if id, err := keyID(pub); err != nil || id != i.KeyID {
			t.Fatal("a key id that is not its key's")
		}
	})
}
