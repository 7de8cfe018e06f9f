package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/fw"
)

// sshSign signs doc with the key at path; empty is the agent's only key, else
// the usual key file. The signature is checked before it is returned.
func (a *app) sshSign(ctx context.Context, doc []byte, path string) ([]byte, error) {
	signed, err := a.sshSignWith(ctx, doc, path)
	if err != nil {
		return nil, err
	}
	key, err := approval.SignatureKey(signed)
	if err != nil {
		return nil, err
	}
	if err := approval.Verify(doc, signed, key); err != nil {
		return nil, err
	}
	return signed, nil
}

func (a *app) sshSignWith(ctx context.Context, doc []byte, path string) ([]byte, error) {
	if path == "" {
		s, done, err := agentSigner(ctx, nil)
		if err == nil {
			defer done()
			return approval.Sign(doc, s)
		}
		home, herr := os.UserHomeDir()
		usual := filepath.Join(home, ".ssh", "id_ed25519")
		if _, serr := os.Stat(usual); herr != nil || serr != nil || fw.KindOf(err) == fw.Conflict {
			return nil, err
		}
		path = usual
	}
	b, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	if pub, err := approval.ParsePublicKey(string(b)); err == nil {
		if pub.Hardware() && !agentHas(ctx, pub) {
			return keygenSign(ctx, doc, strings.TrimSuffix(path, ".pub"))
		}
		s, done, err := agentSigner(ctx, &pub)
		if err != nil {
			return nil, err
		}
		defer done()
		return approval.Sign(doc, s)
	}
	if hardwareKey(path) {
		return keygenSign(ctx, doc, path)
	}
	s, err := ssh.ParsePrivateKey(b)
	if _, ok := errors.AsType[*ssh.PassphraseMissingError](err); ok {
		pass, perr := a.prompt("Passphrase of " + path)
		if perr != nil {
			return nil, fw.Errorf(fw.Invalid, "%s is encrypted and there is no terminal to ask on: add it to ssh-agent and give %s.pub", path, path)
		}
		s, err = ssh.ParsePrivateKeyWithPassphrase(b, pass)
	}
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "%s cannot be used as an SSH private key", path)
	}
	return approval.Sign(doc, s)
}

// hardwareKey reports whether the key at path lives in a FIDO2 authenticator:
// the file beside it says so.
func hardwareKey(path string) bool {
	b, err := readSmall(path + ".pub")
	if err != nil {
		return false
	}
	key, err := approval.ParsePublicKey(string(b))
	return err == nil && key.Hardware()
}

// agentSigner finds a key in ssh-agent: the one given, or the only one that
// can approve. Done closes the connection.
func agentSigner(ctx context.Context, want *approval.Key) (s ssh.Signer, done func(), err error) {
	sock := os.Getenv("SSH_AUTH_SOCK")
	if sock == "" {
		return nil, nil, fw.Errorf(fw.Invalid, "no key to sign with: give --key FILE, or start ssh-agent")
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", sock)
	if err != nil {
		return nil, nil, fw.Wrap(fw.Invalid, err, "ssh-agent does not answer: give --key FILE")
	}
	hangUp := func() { conn.Close() } //nolint:errcheck,gosec // nothing is lost
	defer func() {
		if err != nil {
			hangUp()
		}
	}()
	all, err := agent.NewClient(conn).Signers()
	if err != nil {
		return nil, nil, fw.Wrap(fw.Invalid, err, "ssh-agent does not list its keys: give --key FILE")
	}
	var found []ssh.Signer
	var prints []string
	for _, s := range all {
		key, err := approval.ParsePublicKey(string(ssh.MarshalAuthorizedKey(s.PublicKey())))
		if err != nil || want != nil && key.String() != want.String() {
			continue // of a kind that cannot approve, or another
		}
		found, prints = append(found, s), append(prints, key.Fingerprint())
	}
	switch {
	case len(found) == 1:
		return found[0], hangUp, nil
	case want != nil:
		return nil, nil, fw.Errorf(fw.Invalid, "ssh-agent does not hold key %s: run ssh-add, or give the private key file", want.Fingerprint())
	case len(found) == 0:
		return nil, nil, fw.Errorf(fw.Invalid, "ssh-agent holds no key that can approve: run ssh-add, or give --key FILE")
	}
	return nil, nil, fw.Errorf(fw.Conflict, "ssh-agent holds several keys (%s): say which with --key FILE.pub", strings.Join(prints, ", "))
}

func agentHas(ctx context.Context, key approval.Key) bool {
	_, done, err := agentSigner(ctx, &key)
	if err != nil {
		return false
	}
	done()
	return true
}

// keygenSign lets ssh-keygen sign, which can talk to authenticators.
func keygenSign(ctx context.Context, doc []byte, path string) ([]byte, error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, "ssh-keygen", "-Y", "sign", "-n", approval.Namespace, "-f", path) //nolint:gosec // G204: the user's own key file
	cmd.Stdin, cmd.Stdout = bytes.NewReader(doc), &out
	cmd.Stderr = io.MultiWriter(&errs, os.Stderr) // "confirm user presence"
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, fw.Errorf(fw.Invalid, "this key needs ssh-keygen, which is not installed: install openssh-client")
		}
		return nil, fw.Wrap(fw.Invalid, err, "ssh-keygen did not sign: %s", oneLine(errs.String()))
	}
	return out.Bytes(), nil
}
