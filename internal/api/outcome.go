package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/writ-project/writ/internal/httpd"
)

// outcome is how a request ended. Whoever refuses a request puts the error
// here and the front answers: so that every refusal has the request id, the
// headers of its status and a log line with its cause, wherever it arose.
type outcome struct{ err error }

func (o *outcome) refused() bool { return o.err != nil }

type outcomeKey struct{}

// refuse ends the request of ctx with err.
func refuse(ctx context.Context, err error) {
	if out, ok := ctx.Value(outcomeKey{}).(*outcome); ok && !out.refused() {
		out.err = err
	}
}

// held is a response to which nothing is written once the request is refused:
// huma writes errors itself, and the front must be the one that does.
type held struct {
	http.ResponseWriter
	out *outcome
}

// Unwrap lets http.ResponseController and httpd reach the connection.
func (h *held) Unwrap() http.ResponseWriter { return h.ResponseWriter }

func (h *held) WriteHeader(status int) {
	if !h.out.refused() {
		h.ResponseWriter.WriteHeader(status)
	}
}

func (h *held) Write(b []byte) (int, error) {
	if h.out.refused() {
		return len(b), nil
	}
	return h.ResponseWriter.Write(b)
}

// serve answers a request with the inner mux.
func (s *server) serve(w http.ResponseWriter, r *http.Request) error {
	var out outcome
	s.mux.ServeHTTP(&held{w, &out}, r.WithContext(context.WithValue(r.Context(), outcomeKey{}, &out)))
	return out.err
}

// handle adds a handler that is not huma's to the inner mux.
func (s *server) handle(pattern string, h httpd.Handler) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			refuse(r.Context(), err)
		}
	})
}

// refuseInContext makes huma's own refusals the request's outcome.
func refuseInContext(ctx huma.Context, status int, msg string, errs ...error) huma.StatusError {
	p := newProblem(status, msg, errs...)
	r, _ := humago.Unwrap(ctx)
	refuse(r.Context(), p)
	return p
}
