package agent

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/fw"
)

const stall = 30 * time.Second

// errAgain says that the download is to be tried again.
var errAgain = errors.New("the download starts anew")

// errWithdrawn says that the server took the authorization back, because its
// campaign was paused or has ended.
var errWithdrawn = errors.New("the authorization is withdrawn")

// partFile is the name of an image that is not complete or not verified yet.
// It holds the digest, so that what is left of another image is not resumed.
func partFile(p authz.Component) string { return p.Digest.Hex() + ".part" }

// clear removes everything from slot s but what a download of p goes on with.
func (a *Agent) clear(s slot, p authz.Component) error {
	dir := a.in(s, "")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// First: what the slot said of itself is over.
	if err := remove(a.in(s, metaFile)); err != nil {
		return err
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		if e.Name() == partFile(p) || e.Name() == envelopeFile && !p.Envelope.IsZero() {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return syncDir(dir)
}

// download checks the release statement and gets the envelope and the image
// of p into slot s.
func (a *Agent) download(ctx context.Context, s slot, auth *authz.Authorization, p authz.Component) error {
	if err := a.clear(s, p); err != nil {
		return fw.Wrap(fw.Internal, err, "cannot clear slot %s", s)
	}
	err := a.checkStatement(ctx, auth)
	at := int64(0)
	if err == nil {
		err = a.fetchEnvelope(ctx, s, p)
	}
	if err == nil {
		at, err = a.fetchImage(ctx, s, p)
	}
	switch f, ok := errors.AsType[*fault](err); {
	case err == nil, ok && f.event == fw.EventRejected, ctx.Err() != nil:
		return err
	case noSpace(err):
		// What was downloaded takes the space the report needs.
		return errors.Join(failed(fw.FailNoSpace, err), os.RemoveAll(a.in(s, partFile(p))))
	case withdrawn(err):
		return errors.Join(errWithdrawn, err)
	case !counts(err):
		return err
	}
	if err := a.save(func(st *state) error {
		if u := st.Update; at > u.Mark {
			u.Mark, u.Attempts = at, 0
		} else {
			u.Attempts++
		}
		return nil
	}); err != nil {
		return err
	}
	if a.state.Update.Attempts >= a.cfg.Downloads {
		return failed(fw.FailDownload, err)
	}
	return err
}

// withdrawn reports whether err is a download that the server refuses for this
// authorization, and not for a while.
func withdrawn(err error) bool {
	r, ok := errors.AsType[*refusal](err)
	return ok && r.status == http.StatusConflict
}

// counts reports whether a failed download is one that could go on for ever: a
// server that cannot be reached or asks for patience is waited for, until the
// authorization expires.
func counts(err error) bool {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.status != http.StatusTooManyRequests && r.status != http.StatusServiceUnavailable
	}
	_, broke := errors.AsType[*brokenOffError](err)
	return broke || errors.Is(err, errAgain)
}

// brokenOffError is a body that ended too early.
type brokenOffError struct {
	at, size int64
	err      error
}

func (b *brokenOffError) Error() string {
	return fmt.Sprintf("the download broke off after %d of %d bytes: %v", b.at, b.size, b.err)
}
func (b *brokenOffError) Unwrap() error { return b.err }

// path returns where to get an artifact. The reply it comes from is not
// trusted; it stays on the authenticated server, and the bytes have a digest.
func (a *Agent) path(d fw.Digest) string {
	list := a.state.Update.Artifacts
	if i := slices.IndexFunc(list, func(x authz.Artifact) bool { return x.Digest == d }); i >= 0 {
		return list[i].Path
	}
	return pathArtifact + d.String()
}

// fetchEnvelope gets the detached signature, if the format has one.
func (a *Agent) fetchEnvelope(ctx context.Context, s slot, p authz.Component) error {
	if p.Envelope.IsZero() {
		return nil
	}
	if b, err := os.ReadFile(a.in(s, envelopeFile)); err == nil && fw.DigestOf(b) == p.Envelope {
		return nil
	}
	b, err := a.fetch(ctx, a.path(p.Envelope), maxEnvelope)
	if err != nil {
		return err
	}
	if fw.DigestOf(b) != p.Envelope {
		return &fault{event: fw.EventRejected, reason: fw.RejectImageSignature, detail: "the detached signature is not the authorized " + p.Envelope.String()}
	}
	return writeFile(a.in(s, envelopeFile), b)
}

// fetch gets a small file, and at most one byte more than the limit.
func (a *Agent) fetch(ctx context.Context, path string, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := a.client().get(ctx, path, 0)
	if err != nil {
		return nil, err
	}
	defer closing(res.Body)
	if res.StatusCode != http.StatusOK {
		return nil, readRefusal(res)
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	if err != nil {
		return nil, &brokenOffError{int64(len(b)), res.ContentLength, err}
	}
	return b, nil
}

// transfer is one image on its way to the disk.
type transfer struct {
	f    *os.File
	hash hash.Hash
	at   int64 // bytes in f and hash
	size int64 // authorized
}

// openTransfer opens the partial file and hashes what is there.
func openTransfer(path string, size int64) (*transfer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // G304: within the state directory
	if err != nil {
		return nil, err
	}
	t := &transfer{f: f, hash: sha256.New(), size: size}
	if t.at, err = io.Copy(t.hash, f); err == nil && t.at > size {
		err = t.restart()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return t, nil
}

func (t *transfer) restart() error {
	t.hash.Reset()
	t.at = 0
	if err := t.f.Truncate(0); err != nil {
		return err
	}
	_, err := t.f.Seek(0, io.SeekStart)
	return err
}

// wrongSize rejects an image by the size the server says it has.
func (t *transfer) wrongSize(offered string) *fault {
	return &fault{event: fw.EventRejected, reason: fw.RejectImageSize, detail: fmt.Sprintf("the server offers %s bytes, authorized are %d", offered, t.size)}
}

// fetchImage downloads what is missing of the image and checks size and
// digest. It returns how many bytes are there.
func (a *Agent) fetchImage(ctx context.Context, s slot, p authz.Component) (int64, error) {
	path := a.in(s, partFile(p))
	t, err := openTransfer(path, p.Size)
	if err != nil {
		return 0, err
	}
	if t.at < t.size {
		err = a.receive(ctx, t, a.path(p.Digest))
	}
	err = errors.Join(err, t.f.Sync(), t.f.Close())
	if f, ok := errors.AsType[*fault](err); ok {
		return t.at, errors.Join(f, remove(path))
	}
	if err != nil {
		return t.at, err
	}
	if got := fw.Digest(t.hash.Sum(nil)); got != p.Digest {
		if err := remove(path); err != nil {
			return 0, err
		}
		// A partial file that survived a loss of power may have lost what
		// was not synced. That is no attack, so it gets a second chance.
		if u := a.state.Update; u.Resumed && !u.Again {
			return 0, errors.Join(errAgain, a.save(func(st *state) error {
				st.Update.Again, st.Update.Resumed, st.Update.Mark = true, false, 0
				return nil
			}))
		}
		return t.at, &fault{event: fw.EventRejected, reason: fw.RejectImageDigest, detail: fmt.Sprintf("digest is %s, authorized is %s", got, p.Digest)}
	}
	return t.at, nil
}

// receive asks for what is missing and writes it.
func (a *Agent) receive(ctx context.Context, t *transfer, path string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	wait := a.cfg.Stall.or(stall)
	timer := time.AfterFunc(wait, func() { cancel(fmt.Errorf("no byte came for %s", wait)) })
	defer timer.Stop()
	res, err := a.client().get(ctx, path, t.at)
	if err != nil {
		return err
	}
	defer closing(res.Body)
	switch res.StatusCode {
	case http.StatusPartialContent:
		from, total, err := contentRange(res.Header.Get("Content-Range"))
		if err != nil || from != t.at {
			return errors.Join(&brokenOffError{t.at, t.size, errors.New("the server sent another range than was asked for")}, t.restart())
		}
		if total != t.size {
			return t.wrongSize(strconv.FormatInt(total, 10))
		}
		if !a.state.Update.Resumed {
			if err := a.save(func(s *state) error { s.Update.Resumed = true; return nil }); err != nil {
				return err
			}
		}
	case http.StatusOK:
		if err := t.restart(); err != nil {
			return err
		}
		if res.ContentLength >= 0 && res.ContentLength != t.size {
			return t.wrongSize(strconv.FormatInt(res.ContentLength, 10))
		}
	case http.StatusRequestedRangeNotSatisfiable:
		return errors.Join(readRefusal(res), t.restart())
	default:
		return readRefusal(res)
	}
	return t.copy(ctx, res.Body, func() { timer.Reset(wait) })
}

// copy writes the body, at most the authorized size.
func (t *transfer) copy(ctx context.Context, body io.Reader, alive func()) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			alive()
			if t.at+int64(n) > t.size {
				return t.wrongSize("more")
			}
			if _, err := t.f.Write(buf[:n]); err != nil {
				return err
			}
			t.hash.Write(buf[:n])
			t.at += int64(n)
		}
		switch {
		case err == io.EOF && t.at == t.size: //nolint:errorlint // io.Reader: EOF is not wrapped
			return nil
		case err != nil:
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return &brokenOffError{t.at, t.size, err}
		}
	}
}

// contentRange reads "bytes 5-9/10" (RFC 9110, section 14.4).
func contentRange(v string) (from, total int64, err error) {
	span, size, ok := strings.Cut(strings.TrimPrefix(v, "bytes "), "/")
	first, _, dash := strings.Cut(span, "-")
	if !ok || !dash {
		return 0, 0, fmt.Errorf("malformed Content-Range %q", v)
	}
	if from, err = strconv.ParseInt(first, 10, 64); err != nil {
		return 0, 0, err
	}
	total, err = strconv.ParseInt(size, 10, 64)
	return from, total, err
}
