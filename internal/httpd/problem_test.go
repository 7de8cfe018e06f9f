package httpd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/httpd"
)

// kinds reads the constants of type fw.Kind from their source, so that a new
// one cannot be forgotten here.
func kinds(t *testing.T) []fw.Kind {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "../fw/error.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ks []fw.Kind
	ast.Inspect(f, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, ok := v.Type.(*ast.Ident); ok && id.Name == "Kind" {
			s, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			ks = append(ks, fw.Kind(s))
		}
		return true
	})
	return ks
}

func TestEveryKindHasAStatus(t *testing.T) {
	want := map[fw.Kind]int{
		fw.Invalid: 400, fw.Unauthenticated: 401, fw.Forbidden: 403, fw.NotFound: 404, fw.Conflict: 409,
		fw.TooLarge: 413, fw.TooMany: 429, fw.Unavailable: 503, fw.Corrupt: 500, fw.Internal: 500,
	}
	ks := kinds(t)
	if len(ks) != len(want) {
		t.Errorf("fw has the kinds %v; the table must cover exactly them", ks)
	}
	for _, k := range ks {
		if got := httpd.Status(k); got != want[k] {
			t.Errorf("Status(%q) = %d, want %d", k, got, want[k])
		}
	}
	if got := httpd.Status("new"); got != 500 {
		t.Errorf("an unknown kind has status %d, want 500", got)
	}
}

// serve runs one request through a Front and returns the answer and the log.
func serve(t *testing.T, route httpd.Route, h httpd.Handler, r *http.Request) (*httptest.ResponseRecorder, []map[string]any) {
	t.Helper()
	var log bytes.Buffer
	front := httpd.NewFront(slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelInfo})), time.Now)
	rec := httptest.NewRecorder()
	front.Handle(route, h).ServeHTTP(rec, r)
	var lines []map[string]any
	for line := range strings.Lines(log.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("log line %q: %v", line, err)
		}
		lines = append(lines, m)
	}
	return rec, lines
}

func failing(err error) httpd.Handler {
	return func(http.ResponseWriter, *http.Request) error { return err }
}

func problem(t *testing.T, rec *httptest.ResponseRecorder) map[string]any {
	t.Helper()
	if got := rec.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type %q", got)
	}
	var p map[string]any
	if err := json.Unmarshal(rec.Body.Bytes(), &p); err != nil {
		t.Fatalf("%q: %v", rec.Body, err)
	}
	return p
}

func TestAnErrorBecomesAProblemAndItsCauseStaysInTheLog(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "/v1/releases?token=hunter2", nil)
	r.Header.Set("Accept", "application/cbor")
	err := fmt.Errorf("publishing: %w", fw.Wrap(fw.Conflict, errors.New("row 7 of /var/lib/writ"), "release r1 is not approved"))
	rec, log := serve(t, httpd.Route{}, failing(err), r)
	if rec.Code != 409 {
		t.Errorf("status %d, want 409", rec.Code)
	}
	id := rec.Header().Get("X-Request-Id")
	want := map[string]any{"type": "about:blank", "title": "Conflict", "status": 409.0, "detail": "release r1 is not approved", "kind": "conflict", "request_id": id}
	if diff := cmp.Diff(want, problem(t, rec)); diff != "" || id == "" {
		t.Errorf("problem (-want +got), id %q:\n%s", id, diff)
	}
	if len(log) != 1 || log[0]["request_id"] != id || log[0]["kind"] != "conflict" || !strings.Contains(log[0]["error"].(string), "row 7") {
		t.Errorf("log: %v", log)
	}
	if s := fmt.Sprint(log); strings.Contains(s, "hunter2") {
		t.Errorf("the query is in the log: %s", s)
	}
}

func TestUnknownErrorsAndPanicsShowNothing(t *testing.T) {
	for name, h := range map[string]httpd.Handler{
		"error": failing(errors.New("secret cause")),
		"panic": func(http.ResponseWriter, *http.Request) error { panic("secret cause") },
	} {
		t.Run(name, func(t *testing.T) {
			rec, log := serve(t, httpd.Route{Audience: httpd.Devices}, h, httptest.NewRequest(http.MethodGet, "/", nil))
			p := problem(t, rec)
			if rec.Code != 500 || p["kind"] != "internal" || strings.Contains(rec.Body.String(), "secret") {
				t.Errorf("%d %v", rec.Code, p)
			}
			if len(log) != 1 || log[0]["level"] != "ERROR" || !strings.Contains(log[0]["error"].(string), "secret cause") {
				t.Errorf("log: %v", log)
			}
		})
	}
}

func TestHeadersThatAStatusNeeds(t *testing.T) {
	tests := []struct {
		err         error
		status      int
		header, val string
	}{
		{fw.Errorf(fw.Unauthenticated, "x"), 401, "WWW-Authenticate", `Bearer realm="writ"`},
		{fw.Errorf(fw.Unavailable, "x"), 503, "Retry-After", "5"},
		{fw.Errorf(fw.TooMany, "x"), 429, "Retry-After", "5"},
		{fmt.Errorf("y: %w", httpd.RetryAfter(fw.Errorf(fw.TooMany, "x"), 1100*time.Millisecond)), 429, "Retry-After", "2"},
		{&http.MaxBytesError{Limit: 3}, 413, "Retry-After", ""},
		{context.DeadlineExceeded, 503, "Retry-After", "5"},
		{httpd.ProblemOf(fw.Errorf(fw.Forbidden, "x")), 403, "Cache-Control", "no-store"},
	}
	for _, tt := range tests {
		rec, _ := serve(t, httpd.Route{}, failing(tt.err), httptest.NewRequest(http.MethodGet, "/", nil))
		if got := rec.Header().Get(tt.header); rec.Code != tt.status || got != tt.val {
			t.Errorf("%v: status %d, %s %q; want %d, %q", tt.err, rec.Code, tt.header, got, tt.status, tt.val)
		}
	}
}
