package signer

import (
	"errors"
	"io/fs"
	"os"

	"github.com/writ-project/writ/internal/fw"
)

// Holds reports whether the private part of the named key is in this store.
func (ks *Keystore) Holds(name fw.KeyName) bool {
	ks.mu.RLock()
	defer ks.mu.RUnlock()
	return ks.unlocked[name] != nil
}

// Mirror puts the public halves of keys that are kept elsewhere on file, as
// their custodian describes them now. A name that is a key of this store, or
// was another key, is a conflict: evidence names keys by their names.
func (ks *Keystore) Mirror(infos []KeyInfo) error {
	ks.mu.Lock()
	defer ks.mu.Unlock()
	for _, i := range infos {
		if err := i.check(); err != nil {
			return err
		}
		old, known := ks.infos[i.Name]
		if known && old == i {
			continue
		}
		if known && old.KeyID != i.KeyID {
			return fw.Errorf(fw.Conflict, "the signer's key %q is not the key %q that is on file in %s: give it another name", i.Name, i.Name, ks.dir)
		}
		if _, err := os.Stat(ks.path(i.Name, privateSuffix)); !errors.Is(err, fs.ErrNotExist) {
			return fw.Wrap(fw.Conflict, err, "the private part of key %q is in %s as well: it belongs to the signer alone, delete %s here", i.Name, ks.dir, ks.path(i.Name, privateSuffix))
		}
		if len(ks.infos) >= maxKeys {
			return fw.Errorf(fw.TooLarge, "%s holds %d keys, which is the most", ks.dir, maxKeys)
		}
		if err := ks.writeInfo(i); err != nil {
			return err
		}
		ks.infos[i.Name] = i
	}
	return nil
}
