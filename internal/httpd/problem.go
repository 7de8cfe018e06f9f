package httpd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/writ-project/writ/internal/fw"
)

// statuses is the one mapping of kinds to HTTP statuses.
var statuses = map[fw.Kind]int{
	fw.Invalid:         http.StatusBadRequest,
	fw.Unauthenticated: http.StatusUnauthorized,
	fw.Forbidden:       http.StatusForbidden,
	fw.NotFound:        http.StatusNotFound,
	fw.Conflict:        http.StatusConflict,
	fw.TooLarge:        http.StatusRequestEntityTooLarge,
	fw.TooMany:         http.StatusTooManyRequests,
	fw.Unavailable:     http.StatusServiceUnavailable,
	fw.Corrupt:         http.StatusInternalServerError,
	fw.Internal:        http.StatusInternalServerError,
}

// statusClientGone is logged, never sent: the caller closed the connection.
const statusClientGone = 499

// defaultRetryAfter is what 429 and 503 ask for when the error does not say.
const defaultRetryAfter = 5 * time.Second

// Status returns the HTTP status of a kind; an unknown kind is our fault.
func Status(k fw.Kind) int {
	if s, ok := statuses[k]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// Problem is an RFC 9457 problem. Its methods are what huma wants of an error
// model, so that the REST API answers with the same bytes.
type Problem struct {
	Type      string  `json:"type" doc:"Always about:blank: kind says what happened"`
	Title     string  `json:"title" doc:"The phrase of the status"`
	Status    int     `json:"status" doc:"The HTTP status"`
	Detail    string  `json:"detail" doc:"What happened and what to do next"`
	Kind      fw.Kind `json:"kind" doc:"Machine-readable kind of error"`
	RequestID string  `json:"request_id,omitempty" doc:"Names this request in the server's log"`

	retryAfter time.Duration
	allow      string // for 405
}

// Error implements error.
func (p *Problem) Error() string { return p.Detail }

// GetStatus returns the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType names the media type, whatever was negotiated.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// failure is an error with particulars of HTTP that no kind has.
type failure struct {
	err        error
	status     int // 0: by kind
	retryAfter time.Duration
	allow      string
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// RetryAfter returns err with the delay after which the caller should try
// again, for errors of kind [fw.TooMany] and [fw.Unavailable].
func RetryAfter(err error, delay time.Duration) error {
	return &failure{err: err, retryAfter: delay}
}

// ProblemOf returns what the caller may see of err. An error that is not an
// [fw.Error] shows nothing of itself.
func ProblemOf(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		c := *p // the caller sets the request id
		return &c
	}
	p := &Problem{Type: "about:blank", Kind: fw.KindOf(err)}
	e, known := errors.AsType[*fw.Error](err)
	switch {
	case known:
		p.Detail = e.Msg
	default:
		p.Kind, p.Detail = plain(err)
	}
	p.Status = Status(p.Kind)
	if f, ok := errors.AsType[*failure](err); ok {
		if f.status != 0 {
			p.Status = f.status
		}
		p.retryAfter, p.allow = f.retryAfter, f.allow
	}
	p.Title = http.StatusText(p.Status)
	return p
}

// plain recognizes errors of the standard library that are not our fault.
func plain(err error) (fw.Kind, string) {
	if e, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return fw.TooLarge, tooLarge(e.Limit)
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return fw.Unavailable, "the request took too long: try again"
	}
	return fw.Internal, "internal error: report it with the request_id, which names its cause in the server's log"
}

func tooLarge(limit int64) string {
	return fmt.Sprintf("the body may have at most %d bytes", limit)
}

// WriteProblem answers with p. Most code returns an error from a [Handler]
// instead; this is for middleware that cannot.
func WriteProblem(w http.ResponseWriter, p *Problem) {
	h := w.Header()
	// What the handler meant for its own answer does not describe this one.
	for _, k := range []string{"Content-Length", "Content-Encoding", "Etag", "Last-Modified", "Content-Disposition", "Accept-Ranges"} {
		h.Del(k)
	}
	h.Set("Content-Type", p.ContentType(""))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if p.RequestID != "" {
		h.Set("X-Request-Id", p.RequestID)
	}
	if p.allow != "" {
		h.Set("Allow", p.allow)
	}
	switch p.Status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="writ"`) // RFC 9110 section 11.6.1: required on a 401
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		d := p.retryAfter
		if d <= 0 {
			d = defaultRetryAfter
		}
		h.Set("Retry-After", strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)) // whole seconds, RFC 9110 section 10.2.3
	}
	b, err := json.Marshal(p)
	if err != nil { // a struct of strings and a number: cannot happen
		panic(err)
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(b, '\n')) // the caller is gone: nobody to tell
}
