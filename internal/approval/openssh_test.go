package approval

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// tool finds an external program, or skips; with WRIT_REQUIRE_TOOLS=1 its
// absence is a failure.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("WRIT_REQUIRE_TOOLS") == "1" {
			t.Fatalf("%s is required and not installed", name)
		}
		t.Skipf("%s is not installed (Debian: openssh-client)", name)
	}
	return path
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// What ssh-keygen -Y sign makes is an approval, and what Sign makes satisfies
// ssh-keygen -Y verify.
func TestApprovalsInterworkWithOpenSSH(t *testing.T) {
	keygen := tool(t, "ssh-keygen")
	for _, kind := range [][]string{{"ed25519"}, {"ecdsa", "-b", "256"}, {"rsa", "-b", "3072"}} {
		t.Run(kind[0], func(t *testing.T) {
			dir := t.TempDir()
			id, doc := filepath.Join(dir, "id"), filepath.Join(dir, "doc.json")
			run(t, keygen, append([]string{"-q", "-N", "", "-C", "alice@example.org", "-f", id, "-t"}, kind...)...)
			body := []byte(`{"type":"writ-release/v1","nonce":"q3J5"}`)
			if err := os.WriteFile(doc, body, 0o600); err != nil {
				t.Fatal(err)
			}
			run(t, keygen, "-q", "-Y", "sign", "-f", id, "-n", Namespace, doc)
			pub, err := os.ReadFile(id + ".pub")
			if err != nil {
				t.Fatal(err)
			}
			armored, err := os.ReadFile(doc + ".sig")
			if err != nil {
				t.Fatal(err)
			}
			key := mustKey(t, string(pub))
			if err := Verify(body, armored, key); err != nil {
				t.Fatal(err)
			}
			if err := Verify(append(body, ' '), armored, key); err == nil {
				t.Error("changed bytes accepted")
			}
			if err := os.Remove(doc + ".sig"); err != nil {
				t.Fatal(err)
			}
			run(t, keygen, "-q", "-Y", "sign", "-f", id, "-n", "git", doc)
			if armored, err = os.ReadFile(doc + ".sig"); err != nil {
				t.Fatal(err)
			}
			if err := Verify(body, armored, key); err == nil {
				t.Error("a signature for git counts as an approval")
			}
		})
	}
}

func TestOpenSSHVerifiesOurApprovals(t *testing.T) {
	keygen := tool(t, "ssh-keygen")
	dir := t.TempDir()
	s := newEd25519(t)
	doc, sig, allowed := filepath.Join(dir, "doc"), filepath.Join(dir, "sig"), filepath.Join(dir, "allowed")
	body := []byte("the plan")
	for path, b := range map[string][]byte{
		doc: body, sig: mustSign(t, body, s),
		allowed: []byte("alice namespaces=\"" + Namespace + "\" " + line(s) + "\n"),
	} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), keygen, "-Y", "verify", "-f", allowed, "-I", "alice", "-n", Namespace, "-s", sig)
	in, err := os.Open(doc)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	cmd.Stdin = in
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
