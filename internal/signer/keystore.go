package signer

import (
	"context"
	"crypto"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"filippo.io/age"

	"github.com/writ-project/writ/internal/custody"
	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/fw"
)

// Files of a key store (docs/formats/keys.md).
const (
	identityFile  = "identity.age"
	journalFile   = "journal.jsonl"
	privateSuffix = ".key.age"
	publicSuffix  = ".pub.json"
)

// maxKeys bounds a key store directory.
const maxKeys = 1000

// ErrPassphrase is in the error of [OpenKeystore] when the passphrase is not the
// store's, for a caller that knows where it came from.
var ErrPassphrase = errors.New("wrong passphrase")

// KeystoreOptions says how the key store is unlocked. Exactly one of
// Passphrase and Identity is needed.
type KeystoreOptions struct {
	// Passphrase unlocks the store's own identity, which is made on first use.
	Passphrase []byte

	// Identity is the content of an age identity file ("AGE-SECRET-KEY-1…"),
	// e.g. from a systemd credential. The store then keeps no identity itself.
	Identity []byte

	// ScryptLogN is the scrypt work factor, log2 of N, for a new identity;
	// 0 means 18, about a second and 256 MiB. Lower it only in tests.
	ScryptLogN int

	// Backends are the places that keys are kept in beside the files. A key in
	// a place that has none here is offline: it verifies. The key store does
	// not close them.
	Backends []custody.Backend
}

// Keystore is a directory of keys. It is safe for concurrent use by one
// process.
type Keystore struct {
	dir      string
	backends []custody.Backend
	identity *age.X25519Identity

	mu       sync.RWMutex
	infos    map[fw.KeyName]KeyInfo
	unlocked map[fw.KeyName]*private
}

// OpenKeystore unlocks the key store in dir, making the directory and its
// identity if there are none. It costs one scrypt, whatever the number of keys.
//
// A key on a token or in a service is asked for, too: one that cannot be
// reached is an error here, not at the first signature.
func OpenKeystore(dir string, opt KeystoreOptions) (*Keystore, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fw.Wrap(fw.Unavailable, err, "cannot make the key directory %s: check its owner and permissions", dir)
	}
	if err := checkMode(dir, 0o022); err != nil {
		return nil, err
	}
	ks := &Keystore{dir: dir, backends: opt.Backends, infos: map[fw.KeyName]KeyInfo{}, unlocked: map[fw.KeyName]*private{}}
	if err := ks.readInfos(); err != nil {
		return nil, err
	}
	var err error
	if ks.identity, err = ks.unlock(opt); err != nil {
		return nil, err
	}
	// A key that cannot be read is found now, not at the first signature.
	for name, info := range ks.infos {
		if info.State != KeyActive {
			continue
		}
		if _, err := ks.load(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return ks, nil
}

func (ks *Keystore) readInfos() error {
	entries, err := os.ReadDir(ks.dir)
	if err != nil {
		return fw.Wrap(fw.Unavailable, err, "cannot read the key directory %s", ks.dir)
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), publicSuffix)
		if !ok || strings.HasPrefix(name, ".") {
			continue
		}
		if len(ks.infos) >= maxKeys {
			return fw.Errorf(fw.TooLarge, "%s holds more than %d keys", ks.dir, maxKeys)
		}
		info, err := ks.readInfo(fw.KeyName(name))
		if err != nil {
			return err
		}
		ks.infos[info.Name] = info
	}
	return nil
}

func (ks *Keystore) readInfo(name fw.KeyName) (KeyInfo, error) {
	path := filepath.Join(ks.dir, string(name)+publicSuffix)
	b, err := readBounded(path, maxKeyInfo)
	if err != nil {
		return KeyInfo{}, err
	}
	info, err := ParseKeyInfo(b)
	if err != nil {
		return KeyInfo{}, fw.Wrap(fw.Corrupt, err, "%s is damaged: restore it from a backup", path)
	}
	if info.Name != name {
		return KeyInfo{}, fw.Errorf(fw.Corrupt, "%s is about key %q: files of keys must not be renamed", path, info.Name)
	}
	return info, nil
}

// Create makes a key. alg may be empty for the purpose's default. A name that
// is taken, also by a retired key, is a conflict.
func (ks *Keystore) Create(ctx context.Context, name fw.KeyName, purpose fw.Purpose, alg Algorithm, now time.Time) (KeyInfo, error) {
	if alg == "" {
		alg = DefaultAlgorithm(purpose)
	}
	if err := checkName(name); err != nil {
		return KeyInfo{}, err
	}
	if !slices.Contains(purposes[purpose], alg) {
		return KeyInfo{}, fw.Errorf(fw.Invalid, "a key for %q cannot be %q: use one of %v", purpose, alg, purposes[purpose])
	}
	if err := ctx.Err(); err != nil {
		return KeyInfo{}, err
	}
	key, err := generate(alg)
	if err != nil {
		return KeyInfo{}, err
	}
	info, err := newInfo(name, purpose, key.Public(), now)
	if err != nil {
		return KeyInfo{}, err
	}
	sealed, err := sealKey(info, key, ks.identity.Recipient())
	if err != nil {
		return KeyInfo{}, err
	}

	ks.mu.Lock()
	defer ks.mu.Unlock()
	if _, ok := ks.infos[name]; ok {
		return KeyInfo{}, fw.Errorf(fw.Conflict, "a key named %q exists", name)
	}
	// The private file first: without its metadata it is not a key yet, and a
	// crash between the two leaves a name that cannot be taken, not a key
	// that cannot sign.
	if err := writeNew(ks.path(name, privateSuffix), sealed); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return KeyInfo{}, fw.Errorf(fw.Conflict, "%s exists without metadata, from a creation that was cut short: delete it and try again", ks.path(name, privateSuffix))
		}
		return KeyInfo{}, err
	}
	if err := ks.writeInfo(info); err != nil {
		return KeyInfo{}, errors.Join(err, os.Remove(ks.path(name, privateSuffix)))
	}
	ks.infos[name] = info
	ks.unlocked[name] = &private{info, key}
	return info, nil
}

func newInfo(name fw.KeyName, purpose fw.Purpose, pub crypto.PublicKey, now time.Time) (KeyInfo, error) {
	alg, err := algorithmOf(pub)
	if err != nil {
		return KeyInfo{}, err
	}
	spki, err := dsse.MarshalPublicKey(pub)
	if err != nil {
		return KeyInfo{}, err
	}
	return KeyInfo{
		Type: TypeKey, Name: name, Purpose: purpose, Algorithm: alg,
		PublicKey: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})),
		KeyID:     fw.DigestOf(spki).Hex(), CreatedAt: now.Unix(), State: KeyActive,
	}, nil
}

// List returns every key, retired ones too, by name.
func (ks *Keystore) List() []KeyInfo {
	ks.mu.RLock()
	defer ks.mu.RUnlock()
	out := make([]KeyInfo, 0, len(ks.infos))
	for _, i := range ks.infos {
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b KeyInfo) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return out
}

// Public returns what is public about the named key.
func (ks *Keystore) Public(name fw.KeyName) (KeyInfo, error) {
	ks.mu.RLock()
	defer ks.mu.RUnlock()
	info, ok := ks.infos[name]
	if !ok {
		return KeyInfo{}, fw.Errorf(fw.NotFound, "there is no key named %q", name)
	}
	return info, nil
}

// Retire ends the use of a key. Permits for it that are out stop working. Its
// files stay, because what it signed must still be verified.
func (ks *Keystore) Retire(ctx context.Context, name fw.KeyName) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ks.mu.Lock()
	defer ks.mu.Unlock()
	info, ok := ks.infos[name]
	if !ok {
		return fw.Errorf(fw.NotFound, "there is no key named %q", name)
	}
	if info.State == KeyRetired {
		return fw.Errorf(fw.Conflict, "key %q is retired", name)
	}
	info.State = KeyRetired
	if err := ks.writeInfo(info); err != nil {
		return err
	}
	ks.infos[name] = info
	delete(ks.unlocked, name)
	return nil
}

// use returns the unlocked key if it is active and of the given purpose.
func (ks *Keystore) use(name fw.KeyName, purpose fw.Purpose) (*private, error) {
	ks.mu.RLock()
	info, ok := ks.infos[name]
	k := ks.unlocked[name]
	ks.mu.RUnlock()
	switch {
	case !ok:
		return nil, fw.Errorf(fw.NotFound, "there is no key named %q", name)
	case info.Purpose != purpose:
		return nil, fw.Errorf(fw.Forbidden, "key %q is for %s and cannot be used for %s", name, info.Purpose, purpose)
	case info.State != KeyActive:
		return nil, fw.Errorf(fw.Conflict, "key %q is %s", name, info.State)
	case k == nil && info.Custody != "":
		return nil, fw.Errorf(fw.Unavailable, "key %q is kept at %s and this process is not set up for that: see docs/signing.md", name, info.Custody)
	case k == nil:
		return nil, fw.Errorf(fw.Unavailable, "the private part of key %q is not on this host (%s is missing)", name, ks.path(name, privateSuffix))
	}
	return k, nil
}

// roots returns the public parts of the active roster root keys, which may be
// offline.
func (ks *Keystore) roots() []KeyInfo {
	return slices.DeleteFunc(ks.List(), func(i KeyInfo) bool {
		return i.Purpose != fw.PurposeRosterRoot || i.State != KeyActive
	})
}

func (ks *Keystore) path(name fw.KeyName, suffix string) string {
	return filepath.Join(ks.dir, string(name)+suffix)
}

func (ks *Keystore) writeInfo(info KeyInfo) error {
	b, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return err
	}
	return writeAtomic(ks.path(info.Name, publicSuffix), append(b, '\n'))
}
