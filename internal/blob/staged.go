package blob

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"time"

	"github.com/writ-project/writ/internal/fw"
)

// copySize is the unit of copying and of noticing a cancelled context, in bytes.
const copySize = 256 << 10

// stagedPath checks an id from outside and returns where its bytes are.
func stagedPath(id string) (string, error) {
	ok := id != "" && len(id) <= maxIDLen
	for i := 0; ok && i < len(id); i++ {
		c := id[i]
		ok = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
	}
	if !ok {
		return "", fw.Errorf(fw.Invalid, "the id of an upload must be 1 to %d letters, digits, _ or -", maxIDLen)
	}
	return path.Join(stagedFolder, id), nil
}

// lock claims a staged name for one call; the returned function gives it back.
func (d *Dir) lock(name string) (unlock func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.busy[name] {
		return nil, fw.Errorf(fw.Conflict, "another request is working on this upload: wait a moment, ask for its size and resume there")
	}
	d.busy[name] = true
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.busy, name)
	}, nil
}

// Stage begins an upload of zero bytes. Staging an upload that has begun
// changes nothing.
func (d *Dir) Stage(id string) error {
	name, err := stagedPath(id)
	if err != nil {
		return err
	}
	unlock, err := d.lock(name)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := d.root.Stat(name); err == nil {
		return nil
	}
	entries, err := d.staged()
	if err != nil {
		return err
	}
	if len(entries) >= maxStaged {
		return fw.Errorf(fw.TooMany, "%d uploads are in progress, which is the most: finish or abandon some", maxStaged)
	}
	f, err := d.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return writeError(err, "making the staged file")
	}
	if err := errors.Join(f.Close(), d.syncFolder(stagedFolder)); err != nil {
		return writeError(err, "making the staged file")
	}
	return nil
}

// Size returns how many bytes of an upload have arrived: the offset to resume at.
func (d *Dir) Size(id string) (int64, error) {
	name, err := stagedPath(id)
	if err != nil {
		return 0, err
	}
	info, err := d.root.Stat(name)
	if err != nil {
		return 0, notStaged(err, id)
	}
	return info.Size(), nil
}

func notStaged(err error, id string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fw.Errorf(fw.NotFound, "upload %s is not in progress: begin it again", id)
	}
	return fw.Wrap(fw.Unavailable, err, "upload %s cannot be read: try again, and look at the server's disk if it stays so", id)
}

// WriteAt appends r to an upload whose size is now offset and returns the new
// size, which is durable. The whole upload may not pass limit bytes: if it
// would, nothing is appended. When r or ctx fails midway, what arrived is kept
// and the returned size is where to resume.
func (d *Dir) WriteAt(ctx context.Context, id string, offset int64, r io.Reader, limit int64) (int64, error) {
	name, err := stagedPath(id)
	if err != nil {
		return 0, err
	}
	unlock, err := d.lock(name)
	if err != nil {
		return 0, err
	}
	defer unlock()
	f, err := d.root.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return 0, notStaged(err, id)
	}
	n, err := d.appendTo(ctx, f, offset, r, limit)
	if cerr := f.Close(); cerr != nil && err == nil {
		err = writeError(cerr, "closing the staged file")
	}
	return n, err
}

func (d *Dir) appendTo(ctx context.Context, f *os.File, offset int64, r io.Reader, limit int64) (int64, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, writeError(err, "finding the end of the staged file")
	}
	if offset != size {
		return size, fw.Errorf(fw.Conflict, "this upload continues at byte %d, not at byte %d", size, offset)
	}
	// One byte more than allowed is asked for, to tell "exactly" from "too much".
	room := max(limit-size, 0)
	n, err := copyChunks(ctx, f, io.LimitReader(r, room+1))
	if n > room {
		if err := errors.Join(f.Truncate(size), f.Sync()); err != nil {
			return size, writeError(err, "undoing an upload that is too large")
		}
		return size, fw.Errorf(fw.TooLarge, "this upload may have at most %d bytes", limit)
	}
	// Sync also after a failure: what is reported as the size must be durable.
	if serr := f.Sync(); serr != nil && err == nil {
		err = writeError(serr, "syncing the staged file")
	}
	return size + n, err
}

// copyChunks copies until r ends or either side fails. It returns how many
// bytes were written whole, and errors fit for the caller.
func copyChunks(ctx context.Context, w io.Writer, r io.Reader) (int64, error) {
	buf := make([]byte, copySize)
	var total int64
	for {
		if err := ctx.Err(); err != nil {
			return total, fw.Wrap(fw.Unavailable, err, "the request was cancelled: ask for the size of the upload and resume there")
		}
		n, rerr := r.Read(buf)
		if n > 0 {
			m, err := w.Write(buf[:n])
			total += int64(m)
			if err != nil {
				return total, writeError(err, "writing a file")
			}
		}
		switch {
		case rerr == nil:
		case errors.Is(rerr, io.EOF):
			return total, nil
		case fw.KindOf(rerr) != fw.Internal: // it already says what happened
			return total, rerr
		default:
			return total, fw.Wrap(fw.Invalid, rerr, "the body was cut off: ask for the size of the upload and resume there")
		}
	}
}

// Commit hashes an upload and makes it the blob want. An upload with another
// digest is removed and [fw.Invalid]. Committing again what is committed
// returns its size.
func (d *Dir) Commit(id string, want fw.Digest) (int64, error) {
	name, err := stagedPath(id)
	if err != nil {
		return 0, err
	}
	if want.IsZero() {
		return 0, fw.Errorf(fw.Invalid, "an upload needs its digest: give sha256:… of the whole file")
	}
	unlock, err := d.lock(name)
	if err != nil {
		return 0, err
	}
	defer unlock()
	// Read-only, because a crash may have come between seal's chmod and rename.
	f, err := d.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		if size, err := d.Stat(want); err == nil {
			return size, nil
		}
	}
	if err != nil {
		return 0, notStaged(err, id)
	}
	h := sha256.New()
	size, err := io.Copy(h, f)
	if err != nil {
		return 0, errors.Join(fw.Wrap(fw.Unavailable, err, "upload %s cannot be read: try again, and look at the server's disk if it stays so", id), f.Close())
	}
	if got := fw.Digest(h.Sum(nil)); got != want {
		if err := errors.Join(f.Close(), d.root.Remove(name)); err != nil {
			return 0, writeError(err, "removing a wrong upload")
		}
		return 0, fw.Errorf(fw.Invalid, "the %d bytes that arrived have digest %s, not the announced %s: they were removed, upload the file again", size, got, want)
	}
	if err := d.seal(f, name, want); err != nil {
		return 0, err
	}
	return size, nil
}

// seal makes f, the file at name, durable and read-only, closes it and gives
// it its final name.
func (d *Dir) seal(f *os.File, name string, digest fw.Digest) error {
	if err := errors.Join(f.Chmod(0o400), f.Sync(), f.Close()); err != nil {
		return writeError(err, "syncing a blob")
	}
	if err := d.publish(name, digest); err != nil {
		return writeError(err, "naming a blob")
	}
	return nil
}

// Import stores bytes that the server itself makes, and returns their digest
// and size. On failure nothing is left.
func (d *Dir) Import(ctx context.Context, r io.Reader) (digest fw.Digest, size int64, err error) {
	name := path.Join(stagedFolder, rand.Text()+importSuffix)
	unlock, err := d.lock(name) // keeps the sweep away
	if err != nil {
		return fw.Digest{}, 0, err
	}
	defer unlock()
	f, err := d.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fw.Digest{}, 0, writeError(err, "making a blob")
	}
	h := sha256.New()
	size, err = copyChunks(ctx, io.MultiWriter(f, h), r)
	if err == nil {
		digest = fw.Digest(h.Sum(nil))
		err = d.seal(f, name, digest)
	}
	if err != nil {
		// seal may have closed or renamed it: these fail then, and nothing is left.
		_ = f.Close()
		_ = d.root.Remove(name)
		return fw.Digest{}, 0, err
	}
	return digest, size, nil
}

// Discard abandons an upload. Discarding what is not there is no error.
func (d *Dir) Discard(id string) error {
	name, err := stagedPath(id)
	if err != nil {
		return err
	}
	unlock, err := d.lock(name)
	if err != nil {
		return err
	}
	defer unlock()
	if err := d.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return writeError(err, "removing an upload")
	}
	return nil
}

// Sweep removes uploads that nothing was written to since before, and what
// a crash left of imports. It returns how many it removed.
func (d *Dir) Sweep(before time.Time) (int, error) {
	entries, err := d.staged()
	if err != nil {
		return 0, err
	}
	removed := 0
	for _, e := range entries {
		gone, err := d.sweepOne(path.Join(stagedFolder, e.Name()), before)
		if err != nil {
			return removed, err
		}
		if gone {
			removed++
		}
	}
	return removed, nil
}

func (d *Dir) sweepOne(name string, before time.Time) (bool, error) {
	unlock, err := d.lock(name)
	if err != nil {
		return false, nil // in use, so not abandoned
	}
	defer unlock()
	info, err := d.root.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, writeError(err, "looking at an upload")
	}
	if !info.ModTime().Before(before) {
		return false, nil
	}
	if err := d.root.Remove(name); err != nil {
		return false, writeError(err, "removing an abandoned upload")
	}
	return true, nil
}

// staged lists what is staged, at most a little more than may be.
func (d *Dir) staged() ([]fs.DirEntry, error) {
	f, err := d.root.Open(stagedFolder)
	if err != nil {
		return nil, writeError(err, "listing uploads")
	}
	defer f.Close()
	entries, err := f.ReadDir(4 * maxStaged)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, writeError(err, "listing uploads")
	}
	return entries, nil
}
