package approval

import (
	"bytes"
	_ "crypto/sha512" // for sshsig.HashSHA512
	"encoding/pem"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/writ-project/writ/internal/fw"
)

// Namespace is the SSHSIG namespace of every approval. A signature made in
// another namespace never counts.
const Namespace = "writ-approval"

// hash is what ssh-keygen -Y sign uses by default. The only other one
// PROTOCOL.sshsig knows, sha256, is refused so that there is one form.
const hash = sshsig.HashSHA512

// Verify checks that armored is an approval of exactly doc by key.
func Verify(doc, armored []byte, key Key) error {
	if key.pub == nil {
		return fw.Errorf(fw.Invalid, "no key to verify the approval with")
	}
	sig, signedBy, err := unarmor(armored)
	if err != nil {
		return err
	}
	if !bytes.Equal(sig.PublicKey.Marshal(), key.pub.Marshal()) {
		return fw.Errorf(fw.Forbidden, "signed with key %s, not %s", signedBy.Fingerprint(), key.Fingerprint())
	}
	// With our key, not the one inside the signature.
	if err := sshsig.Verify(bytes.NewReader(doc), sig, key.pub, hash, Namespace); err != nil {
		return fw.Wrap(fw.Forbidden, err, "the signature by key %s is not over these bytes", key.Fingerprint())
	}
	return nil
}

// SignatureKey returns the key that armored says it was made with. It verifies
// nothing: use it to find whose approval this claims to be.
func SignatureKey(armored []byte) (Key, error) {
	_, key, err := unarmor(armored)
	return key, err
}

// unarmor parses armored and checks everything that needs neither the document
// nor the key.
func unarmor(armored []byte) (*sshsig.Signature, Key, error) {
	if len(armored) > maxArmored {
		return nil, Key{}, fw.Errorf(fw.TooLarge, "approval is %d bytes, over the limit of %d", len(armored), maxArmored)
	}
	// pem.Decode skips what is around the block; an approval has nothing there.
	block, rest := pem.Decode(armored)
	if block == nil || !bytes.HasPrefix(bytes.TrimLeft(armored, " \t\r\n"), []byte("-----BEGIN "+sshsig.PEMType+"-----")) ||
		block.Type != sshsig.PEMType || len(block.Headers) > 0 || len(bytes.TrimSpace(rest)) > 0 {
		return nil, Key{}, fw.Errorf(fw.Invalid, "not an SSH signature: make one with ssh-keygen -Y sign -n %s", Namespace)
	}
	sig, err := sshsig.ParseSignature(block.Bytes)
	if err != nil {
		return nil, Key{}, fw.Wrap(fw.Invalid, err, "malformed SSH signature: make one with ssh-keygen -Y sign -n %s", Namespace)
	}
	if sig.Namespace != Namespace {
		return nil, Key{}, fw.Errorf(fw.Forbidden, "signed for namespace %q: sign with -n %s", sig.Namespace, Namespace)
	}
	if sig.HashAlgorithm != hash {
		return nil, Key{}, fw.Errorf(fw.Forbidden, "signed with hash %s: sign with -O hashalg=%s", sig.HashAlgorithm, hash)
	}
	key, err := NewKey(sig.PublicKey)
	if err != nil {
		return nil, Key{}, err
	}
	// Else a key of one kind could lend its bytes to an algorithm of another;
	// RSA is the only kind whose signature format is not its key type.
	want := key.Type()
	if want == ssh.KeyAlgoRSA {
		want = ssh.KeyAlgoRSASHA512
	}
	if sig.Signature.Format != want {
		return nil, Key{}, fw.Errorf(fw.Forbidden, "signature algorithm %s does not belong to a %s key: %s is needed", sig.Signature.Format, key.Type(), want)
	}
	return sig, key, nil
}

// Sign approves doc with signer: a parsed key file or an agent's key. It is
// what ssh-keygen -Y sign -n writ-approval does.
func Sign(doc []byte, signer ssh.Signer) ([]byte, error) {
	if _, err := NewKey(signer.PublicKey()); err != nil {
		return nil, err
	}
	sig, err := sshsig.Sign(bytes.NewReader(doc), signer, hash, Namespace)
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "the key could not sign: is the agent unlocked and the key present?")
	}
	return sshsig.Armor(sig), nil
}
