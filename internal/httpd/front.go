package httpd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/writ-project/writ/internal/fw"
)

// Handler answers a request, or returns an error and writes nothing.
type Handler func(w http.ResponseWriter, r *http.Request) error

// Audience is who calls a route: it decides the headers and the log level.
type Audience int

// Audiences. The zero value is the careful one.
const (
	Operators Audience = iota // people, browsers and their scripts: every security header, logged at info
	Devices                   // machines in great number: few headers, success logged at debug
)

// Route is what the front needs to know of a route.
type Route struct {
	Audience Audience
	// Stall, when not zero, replaces the server's timeouts for bodies of any
	// size: the request ends when no progress was made for that long.
	Stall time.Duration
}

// Front turns [Handler]s into [http.Handler]s. The zero Front is not usable;
// see [NewFront].
type Front struct {
	log    *slog.Logger
	now    func() time.Time
	prefix string // of request ids, random per process
	next   atomic.Uint64
}

// NewFront returns a Front that logs to log and reads the clock now.
func NewFront(log *slog.Logger, now func() time.Time) *Front {
	return &Front{log: log, now: now, prefix: rand.Text()[:8] + "-"}
}

// Shared header values: setting them allocates nothing, and a handler that
// sets its own replaces the slice and not its content.
var (
	nosniff  = []string{"nosniff"}
	noStore  = []string{"no-store"}
	noRefer  = []string{"no-referrer"}
	denyCSP  = []string{"default-src 'none'; frame-ancestors 'none'"}
	sameSite = []string{"same-origin"}
	hsts     = []string{"max-age=31536000"}
)

// Handle returns h as an [http.Handler] that maps errors, recovers panics,
// sets security headers and logs.
func (f *Front) Handle(route Route, h Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		res := &response{w: w, front: f, id: f.next.Add(1), start: f.now(), stall: route.Stall}
		f.secure(res, r, route.Audience)
		if route.Stall > 0 {
			r.Body = &stallBody{ReadCloser: r.Body, res: res}
		}
		err := call(h, res, r)
		if err == nil && route.Audience == Devices && res.status < http.StatusBadRequest && !f.log.Enabled(r.Context(), slog.LevelDebug) {
			return // the hot path
		}
		f.finish(route, res, r, err)
	})
}

// secure sets what protects a browser that opens the route. The console
// replaces the policy with its own.
func (f *Front) secure(res *response, r *http.Request, a Audience) {
	if a == Devices {
		return
	}
	h := res.w.Header()
	h["X-Content-Type-Options"] = nosniff
	h["Cache-Control"] = noStore
	h["Referrer-Policy"] = noRefer
	h["Content-Security-Policy"] = denyCSP
	h["Cross-Origin-Resource-Policy"] = sameSite
	h["X-Request-Id"] = []string{res.requestID()}
	if r.TLS != nil {
		h["Strict-Transport-Security"] = hsts
	}
}

// errPanic marks an error that was a panic.
var errPanic = errors.New("panic")

// call runs h and turns a panic into an error.
func call(h Handler, w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			panic(p) // somebody asked for the connection to be cut
		default:
			err = fmt.Errorf("%w: %v\n%s", errPanic, p, debug.Stack())
		}
	}()
	return h(w, r)
}

// finish answers with err, if any, and logs the request.
func (f *Front) finish(route Route, res *response, r *http.Request, err error) {
	began := res.status != 0
	var p *Problem
	if err != nil {
		p = ProblemOf(err)
		p.RequestID = res.requestID()
		if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
			p.Status = statusClientGone
		} else if !began {
			WriteProblem(res, p)
		}
	}
	f.logRequest(route, res, r, p, err)
	if err != nil && began {
		// The status said that all was well: cut the connection so that the
		// caller sees that it was not.
		panic(http.ErrAbortHandler)
	}
}

func (f *Front) logRequest(route Route, res *response, r *http.Request, p *Problem, err error) {
	status := res.status
	switch {
	case p != nil:
		status = p.Status
	case status == 0:
		status = http.StatusOK // net/http writes it for a handler that wrote nothing
	}
	level := slog.LevelInfo
	switch {
	case status >= http.StatusInternalServerError:
		level = slog.LevelError
	case status < http.StatusBadRequest && route.Audience == Devices:
		level = slog.LevelDebug
	}
	if !f.log.Enabled(r.Context(), level) {
		return
	}
	attrs := make([]slog.Attr, 0, 10+len(res.notes))
	attrs = append(attrs,
		slog.String("request_id", res.requestID()),
		slog.String("method", clip(r.Method)),
		slog.String("path", clip(r.URL.Path)),
		slog.String("route", r.Pattern),
		slog.Int("status", status),
		slog.Int64("bytes", res.bytes),
		slog.Int64("duration_us", f.now().Sub(res.start).Microseconds()),
		slog.String("remote", r.RemoteAddr),
	)
	attrs = append(attrs, res.notes...)
	if p != nil {
		attrs = append(attrs, slog.String("kind", string(p.Kind)), slog.String("error", err.Error()))
	}
	f.log.LogAttrs(r.Context(), level, "http_request", attrs...)
}

// clip bounds what a caller can put into one log line.
func clip(s string) string {
	const most = 256
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// requestID returns the id of the request as text.
func (res *response) requestID() string {
	return res.front.prefix + strconv.FormatUint(res.id, 36)
}

// Annotate adds an attribute to the log line of the request that w answers,
// such as the device or person once it is known.
func Annotate(w http.ResponseWriter, attr slog.Attr) {
	if res := responseOf(w); res != nil {
		res.notes = append(res.notes, attr)
	}
}

// RequestID returns the id of the request that w answers, or "".
func RequestID(w http.ResponseWriter) string {
	if res := responseOf(w); res != nil {
		return res.requestID()
	}
	return ""
}

// responseOf finds the front's writer below those that wrap it.
func responseOf(w http.ResponseWriter) *response {
	for {
		switch v := w.(type) {
		case *response:
			return v
		case interface{ Unwrap() http.ResponseWriter }:
			w = v.Unwrap()
		default:
			return nil
		}
	}
}

// Fallback answers what no pattern of mux matches: 405 with Allow when the
// path exists under another method, else 404. Register it as "/".
func Fallback(mux *http.ServeMux) Handler {
	methods := []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}
	return func(_ http.ResponseWriter, r *http.Request) error {
		var allow []string
		for _, m := range methods {
			probe := &http.Request{Method: m, URL: r.URL, Host: r.Host}
			if _, pattern := mux.Handler(probe); pattern != "" && pattern != "/" {
				allow = append(allow, m)
			}
		}
		if len(allow) == 0 {
			return fw.Errorf(fw.NotFound, "there is nothing at this path: look at the API description for what there is")
		}
		list := strings.Join(allow, ", ")
		return &failure{
			err:    fw.Errorf(fw.Invalid, "this path takes %s, not this method", list),
			status: http.StatusMethodNotAllowed,
			allow:  list,
		}
	}
}
