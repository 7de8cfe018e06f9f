package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/writ-project/writ/internal/fw"
)

// writeFile replaces a file so that after a crash it has the old or the new
// content, never a part: written beside, synced, renamed, directory synced. Only
// the agent's user can read it.
func writeFile(path string, b []byte) (err error) {
	// One agent writes at a time, so a fixed name does, and a crash leaves
	// at most one such file behind.
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) //nolint:gosec // G304: within the state directory
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp) // the first error is the one that counts
		}
	}()
	if _, err = f.Write(b); err != nil {
		return errors.Join(err, f.Close())
	}
	if err = f.Sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	if err = f.Close(); err != nil {
		return err
	}
	return rename(tmp, path)
}

// rename renames within a directory, durably.
func rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // G304: within the state directory
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// remove removes a file that may not be there.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding %s: %w", filepath.Base(path), err)
	}
	return writeFile(path, append(b, '\n'))
}

// readJSON reads a file of the state directory. Its error is NotFound for a
// file that is not there.
func readJSON(path string, v any) error {
	b, err := os.ReadFile(path) //nolint:gosec // G304: within the state directory
	if errors.Is(err, fs.ErrNotExist) {
		return fw.Wrap(fw.NotFound, err, "there is no %s: enrol this device first with writ-agent enroll", path)
	}
	if err != nil {
		return fw.Wrap(fw.Internal, err, "cannot read %s", path)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fw.Wrap(fw.Corrupt, err, "%s is damaged", path)
	}
	return nil
}

// lock makes this process the agent of dir until unlock.
func lock(dir string) (unlock func() error, err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // G304: the state directory is the caller's to name
	if err != nil {
		return nil, fw.Wrap(fw.Internal, err, "cannot open the lock in %s", dir)
	}
	if err := lockFile(f); err != nil {
		return nil, errors.Join(fw.Wrap(fw.Conflict, err, "another agent is running in %s", dir), f.Close())
	}
	return f.Close, nil
}
