package httpd

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"
)

// stallChunk is how much must get through within one stall time, in bytes:
// with a stall time of a minute, at least 4 KiB/s.
const stallChunk = 256 << 10

// response counts what is written and keeps what the log line needs. It
// forwards ReadFrom, so that net/http can still use sendfile.
type response struct {
	w      http.ResponseWriter
	front  *Front
	id     uint64
	start  time.Time
	stall  time.Duration
	status int // 0: nothing written yet
	bytes  int64
	notes  []slog.Attr
}

// Unwrap lets http.ResponseController reach the connection.
func (res *response) Unwrap() http.ResponseWriter { return res.w }

func (res *response) Header() http.Header { return res.w.Header() }

func (res *response) WriteHeader(status int) {
	// 1xx is not yet the answer (RFC 9110 section 15.2).
	if res.status == 0 && (status >= http.StatusOK || status == http.StatusSwitchingProtocols) {
		res.status = status
	}
	res.w.WriteHeader(status)
}

func (res *response) Write(b []byte) (int, error) {
	res.begin()
	n, err := res.w.Write(b)
	res.bytes += int64(n)
	return n, err
}

// ReadFrom copies r to the connection in pieces small enough for a stalled
// peer to be noticed.
func (res *response) ReadFrom(r io.Reader) (int64, error) {
	res.begin()
	if res.stall <= 0 {
		n, err := io.Copy(res.w, r)
		res.bytes += n
		return n, err
	}
	// http.ServeContent hands over an *io.LimitedReader around the file. Only
	// that shape, not a second wrapping, is recognized for sendfile, so it is
	// taken apart and put together again for each piece.
	src, remaining := r, int64(-1)
	whole, limited := r.(*io.LimitedReader)
	if limited {
		src, remaining = whole.R, whole.N
	}
	var total int64
	for remaining != 0 {
		piece := int64(stallChunk)
		if limited {
			piece = min(piece, remaining)
		}
		res.extendWrite()
		n, err := io.Copy(res.w, &io.LimitedReader{R: src, N: piece})
		total += n
		res.bytes += n
		if limited {
			remaining -= n
			whole.N = remaining
		}
		if err != nil || n < piece {
			return total, err
		}
	}
	return total, nil
}

// Flush implements http.Flusher.
func (res *response) Flush() {
	res.begin()
	_ = http.NewResponseController(res.w).Flush() // best effort: a writer without it has no buffer
}

func (res *response) begin() {
	if res.status == 0 {
		res.status = http.StatusOK
	}
	if res.stall > 0 {
		res.extendWrite()
	}
}

func (res *response) extendWrite() {
	// A connection without deadlines (a test recorder) has nothing to extend.
	_ = http.NewResponseController(res.w).SetWriteDeadline(res.front.now().Add(res.stall))
}

// stallBody is a request body that may take any time as long as it moves.
type stallBody struct {
	io.ReadCloser
	res   *response
	moved int // bytes since the deadline was last extended
	armed bool
}

func (b *stallBody) Read(p []byte) (int, error) {
	// The deadline moves only after a whole chunk came through, so that one
	// byte a minute does not hold a connection for ever.
	if !b.armed || b.moved >= stallChunk {
		b.armed, b.moved = true, 0
		rc := http.NewResponseController(b.res.w)
		deadline := b.res.front.now().Add(b.res.stall)
		err := errors.Join(rc.SetReadDeadline(deadline), rc.SetWriteDeadline(deadline.Add(b.res.stall)))
		if err != nil && !errors.Is(err, http.ErrNotSupported) {
			return 0, err
		}
	}
	n, err := b.ReadCloser.Read(p)
	b.moved += n
	return n, err
}
