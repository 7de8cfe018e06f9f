package cli

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/fw"
)

// leaves calls f for every visible command that does something.
func leaves(c *cobra.Command, f func(*cobra.Command)) {
	for _, sub := range c.Commands() {
		if sub.Hidden || !sub.Runnable() {
			continue
		}
		if sub.HasSubCommands() {
			leaves(sub, f)
			continue
		}
		f(sub)
	}
}

func TestEveryCommandSaysWhatItDoesHereAndInTheDocs(t *testing.T) {
	doc, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	leaves(newApp().root(), func(c *cobra.Command) {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: the short help %q is missing or ends with a period", c.CommandPath(), c.Short)
		}
		ok := false
		for line := range strings.Lines(string(doc)) {
			cell, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " |")
			group := strings.TrimSuffix(strings.TrimPrefix(c.CommandPath(), "writ "), c.Name())
			ok = ok || strings.Contains(cell, "`writ "+group) && (strings.Contains(cell, "`"+c.Name()+"`") || strings.Contains(cell, " "+c.Name()+"`"))
		}
		if !ok {
			t.Errorf("%s is not in docs/cli.md", c.CommandPath())
		}
	})
}

func TestExitCodesInTheDocsAreThoseOfTheHelp(t *testing.T) {
	doc, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(exitCodes) {
		code, text, ok := strings.Cut(strings.TrimSpace(line), "  ")
		if !ok || len(code) != 1 {
			continue
		}
		first, _, _ := strings.Cut(text, ":")
		first, _, _ = strings.Cut(first, " (")
		if !strings.Contains(string(doc), "| "+code+" | "+first) {
			t.Errorf("docs/cli.md does not say %s %q", code, first)
		}
	}
}

func newApp() *app {
	return &app{in: strings.NewReader(""), out: new(bytes.Buffer), err: new(bytes.Buffer), format: formatText, profile: defaultProfile}
}

// newKey writes an SSH key pair, the private part encrypted unless pass is "".
func newKey(t *testing.T, pass string) (path string, private ed25519.PrivateKey) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "test")
	if pass != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "test", []byte(pass))
	}
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	pub, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".pub", ssh.MarshalAuthorizedKey(pub), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, private
}

// startAgent serves keys as ssh-agent does.
func startAgent(t *testing.T, keys ...ed25519.PrivateKey) {
	t.Helper()
	ring := agent.NewKeyring()
	for _, k := range keys {
		if err := ring.Add(agent.AddedKey{PrivateKey: k}); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := os.MkdirTemp("", "a") //nolint:usetesting // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_ = agent.ServeAgent(ring, c) // ends when the client hangs up
				_ = c.Close()
			}()
		}
	}()
	t.Setenv("SSH_AUTH_SOCK", l.Addr().String())
}

func TestApprovalsAreSignedByKeyFileOrAgent(t *testing.T) {
	doc := []byte(`{"type":"x"}`)
	path, key := newKey(t, "")
	locked, lockedKey := newKey(t, "secret")
	_, other := newKey(t, "")
	t.Setenv("HOME", t.TempDir())
	sign := func(t *testing.T, path string) (approval.Key, error) {
		t.Helper()
		armored, err := newApp().sshSign(t.Context(), doc, path)
		if err != nil {
			return approval.Key{}, err
		}
		k, err := approval.SignatureKey(armored)
		if err != nil {
			t.Fatal(err)
		}
		return k, approval.Verify(doc, armored, k)
	}
	fingerprint := func(k ed25519.PrivateKey) string {
		pub, err := ssh.NewPublicKey(k.Public())
		if err != nil {
			t.Fatal(err)
		}
		return ssh.FingerprintSHA256(pub)
	}
	t.Setenv("SSH_AUTH_SOCK", "")
	t.Run("key file", func(t *testing.T) {
		if k, err := sign(t, path); err != nil || k.Fingerprint() != fingerprint(key) {
			t.Errorf("got %s, %v", k.Fingerprint(), err)
		}
	})
	t.Run("nothing to sign with", func(t *testing.T) {
		if _, err := sign(t, ""); fw.KindOf(err) != fw.Invalid {
			t.Errorf("got %v", err)
		}
	})
	t.Run("encrypted key without a terminal", func(t *testing.T) {
		if _, err := sign(t, locked); fw.KindOf(err) != fw.Invalid || !strings.Contains(err.Error(), "ssh-agent") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("the agent's only key", func(t *testing.T) {
		startAgent(t, lockedKey)
		if k, err := sign(t, ""); err != nil || k.Fingerprint() != fingerprint(lockedKey) {
			t.Errorf("got %s, %v", k.Fingerprint(), err)
		}
	})
	t.Run("one of several", func(t *testing.T) {
		startAgent(t, lockedKey, other)
		if _, err := sign(t, ""); fw.KindOf(err) != fw.Conflict {
			t.Errorf("got %v, want to be asked which", err)
		}
		if k, err := sign(t, locked+".pub"); err != nil || k.Fingerprint() != fingerprint(lockedKey) {
			t.Errorf("got %s, %v", k.Fingerprint(), err)
		}
		if _, err := sign(t, path+".pub"); fw.KindOf(err) != fw.Invalid {
			t.Errorf("got %v for a key that is not in the agent", err)
		}
	})
}
