package release

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/writ-project/writ/internal/blob"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/image"
	"github.com/writ-project/writ/internal/image/formats"
	"github.com/writ-project/writ/internal/store"
)

// DefaultMaxUpload is the largest file taken unless configured otherwise, in
// bytes.
const DefaultMaxUpload = 4 << 30

// Uploads takes images and SBOM files in pieces. An upload belongs to the
// person who started it.
type Uploads struct {
	db    *store.DB
	blobs *blob.Dir
	max   int64
}

func newUploads(db *store.DB, blobs *blob.Dir, limit int64) *Uploads {
	if limit <= 0 {
		limit = DefaultMaxUpload
	}
	return &Uploads{db: db, blobs: blobs, max: limit}
}

// Upload says how far an upload is.
type Upload struct {
	ID     string
	Digest fw.Digest
	Size   int64
	Offset int64 // where to go on
	Done   bool  // the file is here, nothing is left to send
}

// Uploaded is a finished upload.
type Uploaded struct {
	Digest fw.Digest
	Size   int64
	Info   image.Info // what the file claims to be
	Unfit  string     // why no release could have it as an image; empty: none seen
}

// uploadID is the same for the same person, digest and size, so that starting
// again finds what has arrived.
func uploadID(person fw.PersonID, d fw.Digest, size int64) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "writ-upload/v1\x00%s\x00%s\x00%d", person, d, size))
	return fmt.Sprintf("upl_%x", sum[:10])
}

// Start begins the upload of a file with the given digest and size, or finds
// the one that was begun. A file that is already here, undamaged, is done.
func (u *Uploads) Start(ctx context.Context, person fw.PersonID, d fw.Digest, size int64) (Upload, error) {
	switch {
	case d.IsZero():
		return Upload{}, fw.Errorf(fw.Invalid, "an upload needs the SHA-256 digest of the whole file")
	case size <= 0:
		return Upload{}, fw.Errorf(fw.Invalid, "an upload needs the size of the file, at least 1 byte")
	case size > u.max:
		return Upload{}, fw.Errorf(fw.TooLarge, "the file has %d bytes and this server takes at most %d", size, u.max)
	}
	up := Upload{ID: uploadID(person, d, size), Digest: d, Size: size}
	err := u.db.Tx(ctx, func(tx *store.Tx) error {
		_, err := store.UploadByID(tx, up.ID)
		if fw.KindOf(err) == fw.NotFound {
			err = store.InsertUpload(tx, store.Upload{ID: up.ID, Person: person, Digest: d, Size: size, CreatedAt: tx.Now().Unix()})
		}
		return err
	})
	if err != nil {
		return Upload{}, err
	}
	if got, err := measure(ctx, u.blobs, d); err == nil {
		if got != size {
			return Upload{}, fw.Errorf(fw.Invalid, "the file with digest %s has %d bytes, not %d: measure it again", d, got, size)
		}
		up.Offset, up.Done = size, true
		return up, nil
	} else if ctx.Err() != nil {
		return Upload{}, err
	}
	if err := u.blobs.Stage(up.ID); err != nil {
		return Upload{}, err
	}
	up.Offset, err = u.blobs.Size(up.ID)
	return up, err
}

// Status says how far an upload is, to resume it.
func (u *Uploads) Status(ctx context.Context, person fw.PersonID, id string) (Upload, error) {
	row, err := u.own(ctx, person, id)
	if err != nil {
		return Upload{}, err
	}
	up := Upload{ID: id, Digest: row.Digest, Size: row.Size}
	if up.Offset, err = u.blobs.Size(id); err == nil {
		return up, nil
	}
	if size, serr := u.blobs.Stat(row.Digest); serr == nil && size == row.Size {
		up.Offset, up.Done = size, true
		return up, nil
	}
	return Upload{}, err
}

// Write appends r at offset and returns the new offset, which is safe. An
// offset that is not the end of what arrived is a Conflict that names the end.
func (u *Uploads) Write(ctx context.Context, person fw.PersonID, id string, offset int64, r io.Reader) (int64, error) {
	row, err := u.own(ctx, person, id)
	if err != nil {
		return 0, err
	}
	return u.blobs.WriteAt(ctx, id, offset, r, row.Size)
}

// Finish checks the digest of what arrived, keeps the file, and says what it
// is. Finishing again gives the same answer.
func (u *Uploads) Finish(ctx context.Context, person fw.PersonID, id string) (Uploaded, error) {
	row, err := u.own(ctx, person, id)
	if err != nil {
		return Uploaded{}, err
	}
	if n, err := u.blobs.Size(id); err == nil && n < row.Size {
		return Uploaded{}, fw.Errorf(fw.Conflict, "%d of %d bytes have arrived: go on at byte %d", n, row.Size, n)
	}
	size, err := u.blobs.Commit(id, row.Digest)
	if err != nil {
		return Uploaded{}, err
	}
	if err := u.db.Tx(ctx, func(tx *store.Tx) error { return store.FinishUpload(tx, id) }); err != nil {
		return Uploaded{}, err
	}
	out := Uploaded{Digest: row.Digest, Size: size}
	f, _, err := u.blobs.Open(row.Digest)
	if err != nil {
		return out, err
	}
	defer func() { _ = f.Close() }() // only read
	format, err := formats.Detect(f, size)
	if err != nil {
		return out, fw.Wrap(fw.Unavailable, err, "the uploaded file cannot be read back: try again")
	}
	if out.Info, err = format.Inspect(ctx, f, size); err != nil {
		if _, ok := image.ReasonOf(err); !ok {
			return out, fw.Wrap(fw.Unavailable, err, "the uploaded file cannot be read back: try again")
		}
		out.Info, out.Unfit = image.Info{Format: format.Name(), Size: size}, err.Error()
	} else if out.Info.Encrypted {
		out.Unfit = "it is encrypted: upload the plain image"
	}
	return out, nil
}

// own returns upload id if it is person's.
func (u *Uploads) own(ctx context.Context, person fw.PersonID, id string) (store.Upload, error) {
	row, err := store.UploadByID(u.db.Snapshot(ctx), id)
	if err == nil && row.Person != person {
		return store.Upload{}, fw.Errorf(fw.Forbidden, "upload %s was started by somebody else: start your own", id)
	}
	return row, err
}

// measure reads a stored file and returns its size if it has its digest.
func measure(ctx context.Context, blobs *blob.Dir, d fw.Digest) (int64, error) {
	f, size, err := blobs.Open(d)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }() // only read
	h := sha256.New()
	if _, err := io.Copy(h, image.Section(ctx, f, 0, size)); err != nil {
		return 0, fw.Wrap(fw.Unavailable, err, "the stored file %s cannot be read: try again, and look at the server's disk if it stays so", d)
	}
	if fw.Digest(h.Sum(nil)) != d {
		return 0, fw.Errorf(fw.Corrupt, "the stored file %s is damaged: upload it again, and find out what changed it", d)
	}
	return size, nil
}
