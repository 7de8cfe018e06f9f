package signer

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/writ-project/writ/internal/fw"
)

// checkMode refuses a path on which any of the permission bits deny are set.
func checkMode(path string, deny fs.FileMode) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if bad := st.Mode().Perm() & deny; bad != 0 {
		return fw.Errorf(fw.Forbidden, "%s has mode %04o and others could get at it: chmod go-rwx %s", path, st.Mode().Perm(), path)
	}
	return nil
}

// readPrivate reads a file that only its owner may read.
func readPrivate(path string) ([]byte, error) {
	if err := checkMode(path, 0o077); err != nil {
		return nil, err
	}
	return readBounded(path, maxKeyFile)
}

func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // G304: the operator names the key directory, and checkName what is in it
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // opened for reading
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fw.Errorf(fw.TooLarge, "%s is over the limit of %d bytes", path, limit)
	}
	return b, nil
}

// writeAtomic replaces path by b: a reader, also after a crash, sees the old
// file or the new one.
func writeAtomic(path string, b []byte) error {
	return write(path, b, os.Rename)
}

// writeNew is writeAtomic for a file that must not exist yet; the error is
// then fs.ErrExist.
func writeNew(path string, b []byte) error {
	return write(path, b, func(tmp, path string) error {
		if err := os.Link(tmp, path); err != nil {
			return err
		}
		return os.Remove(tmp)
	})
}

func write(path string, b []byte, place func(tmp, path string) error) (err error) {
	defer func() {
		if err != nil && !errors.Is(err, fs.ErrExist) {
			err = fw.Wrap(fw.Unavailable, err, "cannot write %s: check free space and permissions", path)
		}
	}()
	// CreateTemp makes files with mode 0600.
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // best effort; a stray temporary file is harmless
		}
	}()
	if _, err := f.Write(b); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := place(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a rename in dir survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // G304: the directory of a file just written
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
