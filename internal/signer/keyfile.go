package signer

import (
	"bytes"
	"crypto"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"
	mldsax509 "filippo.io/mldsa/x509"

	"github.com/writ-project/writ/internal/fw"
)

const (
	maxKeyFile        = 16 << 10 // bytes, encrypted or not
	defaultScryptLogN = 18
	maxScryptLogN     = 20 // 1 GiB; a larger one in the file is an attack on memory
)

// unlock returns the identity that the key files are encrypted to.
func (ks *Keystore) unlock(opt KeystoreOptions) (*age.X25519Identity, error) {
	switch {
	case len(opt.Passphrase) > 0 && len(opt.Identity) > 0:
		return nil, fw.Errorf(fw.Invalid, "give a passphrase or an age identity for the key store, not both")
	case len(opt.Identity) > 0:
		return parseIdentity(opt.Identity)
	case len(opt.Passphrase) == 0:
		return nil, fw.Errorf(fw.Invalid, "the key store in %s needs a passphrase or an age identity", ks.dir)
	}
	path := filepath.Join(ks.dir, identityFile)
	sealed, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return ks.newIdentity(path, opt)
	}
	if err != nil {
		return nil, err
	}
	id, err := age.NewScryptIdentity(string(opt.Passphrase))
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "the passphrase of the key store cannot be used")
	}
	id.SetMaxWorkFactor(maxScryptLogN)
	plain, err := decrypt(sealed, id)
	if err != nil {
		if _, wrong := errors.AsType[*age.NoIdentityMatchError](err); wrong {
			return nil, fw.Wrap(fw.Forbidden, errors.Join(ErrPassphrase, err), "wrong passphrase for the key store in %s: give the one it was made with", ks.dir)
		}
		return nil, fw.Wrap(fw.Corrupt, err, "%s is damaged: restore it from a backup", path)
	}
	return parseIdentity(plain)
}

func (ks *Keystore) newIdentity(path string, opt KeystoreOptions) (*age.X25519Identity, error) {
	for name := range ks.infos {
		if _, err := os.Stat(ks.path(name, privateSuffix)); err == nil {
			return nil, fw.Errorf(fw.Corrupt, "%s is missing and %s needs it: restore it from a backup, or give the age identity the keys are encrypted to", path, ks.path(name, privateSuffix))
		}
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, err
	}
	r, err := age.NewScryptRecipient(string(opt.Passphrase))
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "the passphrase of the key store cannot be used")
	}
	logN := opt.ScryptLogN
	if logN == 0 {
		logN = defaultScryptLogN
	}
	if logN < 1 || logN > maxScryptLogN {
		return nil, fw.Errorf(fw.Invalid, "scrypt work factor must be 1 to %d, not %d", maxScryptLogN, logN)
	}
	r.SetWorkFactor(logN)
	sealed, err := encrypt([]byte(id.String()+"\n"), r)
	if err != nil {
		return nil, err
	}
	if err := writeNew(path, sealed); err != nil {
		return nil, err
	}
	return id, nil
}

func parseIdentity(b []byte) (*age.X25519Identity, error) {
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		id, err := age.ParseX25519Identity(line)
		if err != nil {
			return nil, fw.Wrap(fw.Invalid, err, "not an age X25519 identity: make one with age-keygen")
		}
		return id, nil
	}
	return nil, fw.Errorf(fw.Invalid, "the age identity file is empty: make one with age-keygen")
}

// header binds a private key to its metadata: it is encrypted with the key, so
// that changing the purpose in the metadata does not change what the key is
// for. OpenSSL ignores text before a PEM block.
func header(i KeyInfo) string {
	return fmt.Sprintf("%s name=%s purpose=%s algorithm=%s key_id=%s\n", TypeKey, i.Name, i.Purpose, i.Algorithm, i.KeyID)
}

func sealKey(info KeyInfo, key crypto.Signer, to age.Recipient) ([]byte, error) {
	der, err := mldsax509.MarshalPKCS8PrivateKey(key) // of any kind
	if err != nil {
		return nil, err
	}
	plain := append([]byte(header(info)), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	defer clear(plain)
	return encrypt(plain, to)
}

// load decrypts the named key and checks it against its metadata. Only
// OpenKeystore calls it, before ks is shared.
func (ks *Keystore) load(name fw.KeyName) (*private, error) {
	info := ks.infos[name]
	if info.Custody != "" {
		return ks.reach(info)
	}
	path := ks.path(name, privateSuffix)
	sealed, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	plain, err := decrypt(sealed, ks.identity)
	if err != nil {
		return nil, fw.Wrap(fw.Corrupt, err, "%s is damaged or encrypted to another identity than this key store's", path)
	}
	defer clear(plain)
	body, ok := bytes.CutPrefix(plain, []byte(header(info)))
	if !ok {
		return nil, fw.Errorf(fw.Corrupt, "%s is not the private part of what %s describes: one of the two was replaced", path, ks.path(name, publicSuffix))
	}
	block, _ := pem.Decode(body)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fw.Errorf(fw.Corrupt, "%s holds no PKCS#8 private key", path)
	}
	parsed, err := mldsax509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fw.Wrap(fw.Corrupt, err, "%s holds no PKCS#8 private key", path)
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fw.Errorf(fw.Corrupt, "%s holds a key that cannot sign", path)
	}
	if id, err := keyID(key.Public()); err != nil || id != info.KeyID {
		return nil, fw.Wrap(fw.Corrupt, err, "%s is not the private part of what %s describes", path, ks.path(name, publicSuffix))
	}
	k := &private{info, key}
	ks.unlocked[name] = k
	return k, nil
}

func encrypt(plain []byte, to age.Recipient) ([]byte, error) {
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func decrypt(sealed []byte, id age.Identity) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), id)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, maxKeyFile))
}
