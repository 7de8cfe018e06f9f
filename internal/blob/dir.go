package blob

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"sync"
	"syscall"

	"github.com/writ-project/writ/internal/fw"
)

const (
	blobFolder   = "sha256"
	stagedFolder = "staged"
	importSuffix = ".import" // a dot, so that no id of an upload can collide

	// maxStaged bounds the uploads in progress, and with them the folder.
	maxStaged = 1024
	// maxIDLen is the longest id of a staged upload, in bytes.
	maxIDLen = 64
)

// Dir is an open blob directory. It is safe for concurrent use.
type Dir struct {
	root *os.Root

	mu   sync.Mutex
	busy map[string]bool // staged names with a call at work
}

// Open opens dir, making it if needed, and checks that it can be written.
func Open(dir string) (*Dir, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, openError(err, dir)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, openError(err, dir)
	}
	d := &Dir{root: root, busy: make(map[string]bool)}
	if err := d.prepare(); err != nil {
		return nil, errors.Join(openError(err, dir), root.Close())
	}
	return d, nil
}

// prepare makes the folders and writes a probe, so that a server whose disk
// is read-only says so when it starts and not at the first upload.
func (d *Dir) prepare() error {
	for _, f := range []string{blobFolder, stagedFolder} {
		if err := d.root.Mkdir(f, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	probe := path.Join(stagedFolder, rand.Text()+importSuffix)
	f, err := d.root.OpenFile(probe, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Close(), d.root.Remove(probe)); err != nil {
		return err
	}
	return d.syncFolder(".")
}

// openError says what to do about a directory that cannot be used. The
// reader is the operator who starts the server, so it names the path.
func openError(err error, dir string) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fw.Wrap(fw.Unavailable, err, "the disk of the blob folder %s is full: free some space, then start again", dir)
	}
	return fw.Wrap(fw.Unavailable, err, "the blob folder %s cannot be written: check the path, its permissions and that its disk is not read-only", dir)
}

// Close releases the directory. Files already opened stay open.
func (d *Dir) Close() error { return d.root.Close() }

// Open opens a blob for reading. The caller closes it. The result is a plain
// file so that net/http can hand it to the kernel (sendfile).
func (d *Dir) Open(digest fw.Digest) (*os.File, int64, error) {
	f, err := d.root.Open(blobPath(digest))
	if err != nil {
		return nil, 0, notStored(err, digest)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("reading the size of blob %s: %w", digest, err), f.Close())
	}
	if !info.Mode().IsRegular() {
		return nil, 0, errors.Join(fw.Errorf(fw.Corrupt, "the stored file %s is not a file: restore it from a backup or upload it again", digest), f.Close())
	}
	return f, info.Size(), nil
}

// Stat returns the size of a blob, or [fw.NotFound].
func (d *Dir) Stat(digest fw.Digest) (int64, error) {
	info, err := d.root.Stat(blobPath(digest))
	if err != nil {
		return 0, notStored(err, digest)
	}
	return info.Size(), nil
}

func notStored(err error, digest fw.Digest) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fw.Errorf(fw.NotFound, "no file with digest %s is stored: upload it first", digest)
	}
	return fw.Wrap(fw.Unavailable, err, "the stored file %s cannot be read: try again, and look at the server's disk if it stays so", digest)
}

func blobPath(digest fw.Digest) string {
	h := digest.Hex()
	return path.Join(blobFolder, h[:2], h[2:])
}

// publish renames the closed, synced file staged to the name of its digest
// and makes the new name durable. It is where a blob comes into being.
func (d *Dir) publish(staged string, digest fw.Digest) error {
	to := blobPath(digest)
	folder := path.Dir(to)
	if err := d.root.Mkdir(folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := d.root.Rename(staged, to); err != nil {
		return err
	}
	// The folder may be new, made by us or a moment ago by someone who has
	// not synced it yet, so its parent is synced every time.
	if err := d.syncFolder(folder); err != nil {
		return err
	}
	return d.syncFolder(blobFolder)
}

// syncFolder makes the entries of a folder durable.
func (d *Dir) syncFolder(folder string) error {
	f, err := d.root.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// writeError gives a failed write a message for the caller.
func writeError(err error, what string) error {
	cause := fmt.Errorf("%s: %w", what, err)
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fw.Wrap(fw.Unavailable, cause, "the server's disk for firmware files is full: its operator must free some space; then resume")
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return fw.Wrap(fw.Unavailable, cause, "the server's folder for firmware files is read-only: its operator must make it writable; then resume")
	}
	return fw.Wrap(fw.Unavailable, cause, "the server cannot write its firmware files: its operator must look at the disk; then resume")
}
