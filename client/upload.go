package client

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/writ-project/writ/apitypes"
	"github.com/writ-project/writ/internal/fw"
)

// chunk is how much one request of an upload carries: small enough that a
// broken connection costs little, large enough that requests do not.
const chunk = 8 << 20

// stalled is how often in a row an upload may fail without getting further.
const stalled = 8

// Upload puts a file on the server and returns what the server makes of it.
// An upload of the same bytes that was interrupted goes on where it stopped,
// and one that is there already costs nothing. Progress may be nil.
func (s Releases) Upload(ctx context.Context, r io.ReaderAt, size int64, progress func(done, total int64)) (apitypes.Uploaded, error) {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(r, 0, size)); err != nil {
		return apitypes.Uploaded{}, fw.Wrap(fw.Invalid, err, "cannot read the file")
	}
	up, err := s.start(ctx, apitypes.NewUpload{Digest: fw.Digest(h.Sum(nil)), Size: size})
	if err != nil {
		return apitypes.Uploaded{}, err
	}
	for failures := 0; !up.Done && up.Offset < size; {
		if progress != nil {
			progress(up.Offset, size)
		}
		at := up.Offset
		n := min(chunk, size-at)
		err := s.c.do(ctx, request{
			method: http.MethodPatch, path: "uploads/" + seg(up.ID), query: url.Values{"offset": {strconv.FormatInt(at, 10)}},
			raw: io.NewSectionReader(r, at, n), size: n,
		}, &up)
		if err == nil {
			failures = 0
			continue
		}
		if e, ok := errors.AsType[*Error](err); ok && e.Status < 500 && e.Kind != fw.Conflict && e.Kind != fw.TooMany || ctx.Err() != nil {
			return apitypes.Uploaded{}, err
		}
		if failures++; failures == stalled {
			return apitypes.Uploaded{}, err
		}
		if !sleep(ctx, time.Duration(failures)*firstWait) {
			return apitypes.Uploaded{}, err
		}
		// The server knows how far it got.
		now, err := get[apitypes.Upload](ctx, s.c, "uploads/"+seg(up.ID), nil)
		if err != nil {
			return apitypes.Uploaded{}, err
		}
		if up = now; up.Offset > at {
			failures = 0
		}
	}
	if progress != nil {
		progress(size, size)
	}
	var out apitypes.Uploaded
	err = s.c.do(ctx, request{method: http.MethodPost, path: "uploads/" + seg(up.ID) + "/finish", body: struct{}{}, repeat: true}, &out)
	return out, err
}

// UploadFile uploads the file at path, like [Releases.Upload].
func (s Releases) UploadFile(ctx context.Context, path string, progress func(done, total int64)) (apitypes.Uploaded, error) {
	f, err := os.Open(path) //nolint:gosec // the file the caller wants uploaded
	if err != nil {
		return apitypes.Uploaded{}, fw.Wrap(fw.Invalid, err, "cannot open %s", path)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return apitypes.Uploaded{}, fw.Wrap(fw.Invalid, err, "%s is not a file", path)
	}
	return s.Upload(ctx, f, info.Size(), progress)
}

func (s Releases) start(ctx context.Context, u apitypes.NewUpload) (apitypes.Upload, error) {
	var out apitypes.Upload
	err := s.c.do(ctx, request{method: http.MethodPost, path: "uploads", body: u, repeat: true}, &out)
	return out, err
}
