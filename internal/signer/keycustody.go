package signer

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/writ-project/writ/internal/custody"
	"github.com/writ-project/writ/internal/fw"
)

// Attach makes a key that another place keeps a key of this store. uri names
// it there (package custody) and becomes public. The key's algorithm must be
// one of the purpose's. A name that is taken is a conflict, and so is a key
// that this store has under another name: one key, one purpose.
func (ks *Keystore) Attach(ctx context.Context, name fw.KeyName, purpose fw.Purpose, uri string, now time.Time) (KeyInfo, error) {
	if err := checkName(name); err != nil {
		return KeyInfo{}, err
	}
	b, err := ks.backend(uri)
	if err != nil {
		return KeyInfo{}, err
	}
	if b == nil {
		return KeyInfo{}, fw.Errorf(fw.Invalid, "this process has no back end for %q: see docs/signing.md for how to set one up", custody.SchemeOf(uri))
	}
	key, err := b.Open(ctx, uri)
	if err != nil {
		return KeyInfo{}, err
	}
	info, err := newInfo(name, purpose, key.Public(), now)
	if err != nil {
		return KeyInfo{}, err
	}
	info.Custody = uri
	if err := info.check(); err != nil {
		return KeyInfo{}, err
	}

	ks.mu.Lock()
	defer ks.mu.Unlock()
	if _, ok := ks.infos[name]; ok {
		return KeyInfo{}, fw.Errorf(fw.Conflict, "a key named %q exists", name)
	}
	for _, other := range ks.infos {
		if other.KeyID == info.KeyID {
			return KeyInfo{}, fw.Errorf(fw.Conflict, "%s is the key %q already", uri, other.Name)
		}
	}
	if len(ks.infos) >= maxKeys {
		return KeyInfo{}, fw.Errorf(fw.TooLarge, "%s holds %d keys, which is the most", ks.dir, maxKeys)
	}
	if _, err := os.Stat(ks.path(name, privateSuffix)); !errors.Is(err, fs.ErrNotExist) {
		return KeyInfo{}, fw.Wrap(fw.Conflict, err, "%s exists: choose another name", ks.path(name, privateSuffix))
	}
	if err := ks.writeInfo(info); err != nil {
		return KeyInfo{}, err
	}
	ks.infos[name] = info
	ks.unlocked[name] = &private{info, key}
	return info, nil
}

// backend returns the one for uri; nil if this process has none.
func (ks *Keystore) backend(uri string) (custody.Backend, error) {
	scheme := custody.SchemeOf(uri)
	if scheme == "" {
		return nil, fw.Errorf(fw.Invalid, "a key in custody is named by a URI, like pkcs11:token=fw;object=image-1")
	}
	i := slices.IndexFunc(ks.backends, func(b custody.Backend) bool { return b.Scheme() == scheme })
	if i < 0 {
		return nil, nil //nolint:nilnil // none is an answer
	}
	return ks.backends[i], nil
}

// reach opens a key that another place keeps. It must be the one on file. The
// error is fs.ErrNotExist if this process has no back end for it. Only load
// calls it.
func (ks *Keystore) reach(info KeyInfo) (*private, error) {
	b, err := ks.backend(info.Custody)
	if err != nil {
		return nil, err
	}
	if b == nil {
		return nil, fs.ErrNotExist
	}
	key, err := b.Open(context.Background(), info.Custody) // bounded by the back end
	if err != nil {
		return nil, fw.Wrap(fw.KindOf(err), err, "key %q cannot be reached at %s: %v", info.Name, info.Custody, err)
	}
	if id, err := keyID(key.Public()); err != nil || id != info.KeyID {
		return nil, fw.Wrap(fw.Corrupt, err, "%s is not the key %q any more: its public key is another", info.Custody, info.Name)
	}
	k := &private{info, key}
	ks.unlocked[info.Name] = k
	return k, nil
}

// custodyOf says where a key is, as the journal and the signing record have
// it: the scheme of its place, or what the process says of its files.
func (s *Signer) custodyOf(info KeyInfo) string {
	if info.Custody != "" {
		return custody.SchemeOf(info.Custody)
	}
	return s.opt.Custody
}
