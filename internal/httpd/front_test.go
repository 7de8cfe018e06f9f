package httpd_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/httpd"
)

func text(s string) httpd.Handler {
	return func(w http.ResponseWriter, _ *http.Request) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

func TestRoutineDeviceRequestsAreNotLoggedAtInfo(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "/d/checkin", nil)
	if _, log := serve(t, httpd.Route{Audience: httpd.Devices}, text("ok"), r); len(log) != 0 {
		t.Errorf("log: %v", log)
	}
	if _, log := serve(t, httpd.Route{Audience: httpd.Devices}, failing(fw.Errorf(fw.Forbidden, "no")), r); len(log) != 1 {
		t.Errorf("a refused device left %d log lines, want 1", len(log))
	}
	_, log := serve(t, httpd.Route{}, func(w http.ResponseWriter, r *http.Request) error {
		httpd.Annotate(w, slog.String("person", "ada"))
		return text("ok")(w, r)
	}, r)
	if len(log) != 1 || log[0]["msg"] != "http_request" || log[0]["person"] != "ada" || log[0]["status"] != 200.0 || log[0]["bytes"] != 2.0 {
		t.Errorf("log: %v", log)
	}
}

func TestOneLineHoldsWhateverACallerSends(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.URL.Path = "/\n{\"fake\":1}" + strings.Repeat("é", 10_000)
	_, log := serve(t, httpd.Route{}, text(""), r)
	if len(log) != 1 || len(log[0]["path"].(string)) > 300 {
		t.Errorf("log: %v", log)
	}
}

func TestSecurityHeaders(t *testing.T) {
	rec, _ := serve(t, httpd.Route{}, text("ok"), httptest.NewRequest(http.MethodGet, "https://writ.test/", nil))
	for k, want := range map[string]string{
		"X-Content-Type-Options":    "nosniff",
		"Cache-Control":             "no-store",
		"Referrer-Policy":           "no-referrer",
		"Content-Security-Policy":   "default-src 'none'; frame-ancestors 'none'",
		"Strict-Transport-Security": "max-age=31536000",
	} {
		if got := rec.Header().Get(k); got != want {
			t.Errorf("%s: %q, want %q", k, got, want)
		}
	}
	// A handler that sets its own must not change the next response's.
	serve(t, httpd.Route{}, func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Cache-Control", "public")
		w.Header().Add("X-Content-Type-Options", "more")
		return nil
	}, httptest.NewRequest(http.MethodGet, "/", nil))
	rec, _ = serve(t, httpd.Route{}, text("ok"), httptest.NewRequest(http.MethodGet, "http://writ.test/", nil))
	if got := rec.Header().Get("Cache-Control"); got != "no-store" || len(rec.Header()["X-Content-Type-Options"]) != 1 {
		t.Errorf("shared headers changed: %v", rec.Header())
	}
	if got := rec.Header().Get("Strict-Transport-Security"); got != "" {
		t.Errorf("HSTS over plain HTTP: %q", got)
	}
}

func TestAFailureAfterTheFirstByteCutsTheConnection(t *testing.T) {
	front := httpd.NewFront(slog.New(slog.DiscardHandler), time.Now)
	srv := httptest.NewServer(front.Handle(httpd.Route{}, func(w http.ResponseWriter, _ *http.Request) error {
		if _, err := io.WriteString(w, "half"); err != nil {
			return err
		}
		http.NewResponseController(w).Flush() //nolint:errcheck // the test sees it
		return errors.New("disk")
	}))
	defer srv.Close()
	res, err := srv.Client().Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("half an answer (%q) passed for a whole one", b)
	}
}

func TestAProblemDropsTheHeadersOfTheAnswerItReplaces(t *testing.T) {
	rec, _ := serve(t, httpd.Route{}, func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Content-Length", "1000000")
		w.Header().Set("Etag", `"x"`)
		w.Header().Set("Cache-Control", "public, max-age=31536000")
		return fw.Errorf(fw.NotFound, "gone")
	}, httptest.NewRequest(http.MethodGet, "/", nil))
	h := rec.Header()
	if h.Get("Content-Length") != "" || h.Get("Etag") != "" || h.Get("Cache-Control") != "no-store" {
		t.Errorf("headers: %v", h)
	}
}

func TestFallbackKnowsMethods(t *testing.T) {
	mux := http.NewServeMux()
	front := httpd.NewFront(slog.New(slog.DiscardHandler), time.Now)
	mux.Handle("GET /v1/devices/{id}", front.Handle(httpd.Route{}, text("ok")))
	mux.Handle("DELETE /v1/devices/{id}", front.Handle(httpd.Route{}, text("ok")))
	mux.Handle("/", front.Handle(httpd.Route{}, httpd.Fallback(mux)))
	for _, tt := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{http.MethodGet, "/v1/devices/d1", 200, ""},
		{http.MethodPost, "/v1/devices/d1", 405, "GET, HEAD, DELETE"},
		{"BREW", "/v1/devices/d1", 405, "GET, HEAD, DELETE"},
		{http.MethodGet, "/v2", 404, ""},
	} {
		rec := httptest.NewRecorder()
		mux.ServeHTTP(rec, httptest.NewRequest(tt.method, tt.path, nil))
		if rec.Code != tt.status || rec.Header().Get("Allow") != tt.allow {
			t.Errorf("%s %s: %d, Allow %q; want %d, %q", tt.method, tt.path, rec.Code, rec.Header().Get("Allow"), tt.status, tt.allow)
		}
		if tt.status != 200 {
			problem(t, rec)
		}
	}
}

func TestBodyIsBoundedAndTyped(t *testing.T) {
	post := func(body io.Reader, set ...string) *http.Request {
		r := httptest.NewRequest(http.MethodPost, "/", body)
		for i := 0; i < len(set); i += 2 {
			r.Header.Set(set[i], set[i+1])
		}
		return r
	}
	unsized := func(s string) io.Reader { return io.MultiReader(strings.NewReader(s)) }
	short := post(strings.NewReader("abc"))
	short.ContentLength = 5
	for name, tt := range map[string]struct {
		r      *http.Request
		status int
	}{
		"exact":            {post(strings.NewReader("12345"), "Content-Type", "application/json"), 200},
		"exact, chunked":   {post(unsized("12345"), "Content-Type", "application/json; charset=utf-8"), 200},
		"empty":            {post(strings.NewReader(""), "Content-Type", "application/json"), 200},
		"one too many":     {post(strings.NewReader("123456"), "Content-Type", "application/json"), 413},
		"chunked too many": {post(unsized("123456"), "Content-Type", "application/json"), 413},
		"limited below":    {post(http.MaxBytesReader(nil, io.NopCloser(unsized("12345")), 2), "Content-Type", "application/json"), 413},
		"wrong type":       {post(strings.NewReader("1"), "Content-Type", "text/plain"), 415},
		"no type":          {post(strings.NewReader("1")), 415},
		"bad type":         {post(strings.NewReader("1"), "Content-Type", ";;"), 415},
		"compressed":       {post(strings.NewReader("1"), "Content-Type", "application/json", "Content-Encoding", "gzip"), 415},
		"cut off":          {short, 400},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "cut off" {
				tt.r.Header.Set("Content-Type", "application/json")
			}
			rec, _ := serve(t, httpd.Route{}, func(_ http.ResponseWriter, r *http.Request) error {
				_, err := httpd.Body(r, 5, "application/cbor", "application/json")
				return err
			}, tt.r)
			if rec.Code != tt.status {
				t.Errorf("status %d %s, want %d", rec.Code, rec.Body, tt.status)
			}
		})
	}
}

func TestBearer(t *testing.T) {
	for header, want := range map[string]string{"Bearer abc": "abc", "bearer abc": "abc", "": "", "Basic abc": "", "Bearer": "", "Bearer ": ""} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", header)
		got, err := httpd.Bearer(r)
		if got != want || (err == nil) != (want != "") || err != nil && fw.KindOf(err) != fw.Unauthenticated {
			t.Errorf("%q: %q, %v", header, got, err)
		}
	}
}

// nothing is a ResponseWriter that costs nothing.
type nothing struct{ h http.Header }

func (n nothing) Header() http.Header         { return n.h }
func (n nothing) Write(b []byte) (int, error) { return len(b), nil }
func (n nothing) WriteHeader(int)             {}

func BenchmarkHandle(b *testing.B) {
	log := slog.New(slog.NewJSONHandler(struct{ io.Writer }{io.Discard}, &slog.HandlerOptions{Level: slog.LevelInfo}))
	body := []byte("idle")
	h := func(w http.ResponseWriter, _ *http.Request) error {
		_, err := w.Write(body)
		return err
	}
	r := httptest.NewRequest(http.MethodPost, "/d/checkin", bytes.NewReader(nil))
	w := nothing{h: make(http.Header)}
	for name, handler := range map[string]http.Handler{
		"bare":      http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _ = h(w, r) }),
		"devices":   httpd.NewFront(log, time.Now).Handle(httpd.Route{Audience: httpd.Devices}, h),
		"operators": httpd.NewFront(log, time.Now).Handle(httpd.Route{}, h),
		"refused":   httpd.NewFront(log, time.Now).Handle(httpd.Route{Audience: httpd.Devices}, failing(fw.Errorf(fw.Forbidden, "no"))),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				clear(w.h)
				handler.ServeHTTP(w, r)
			}
		})
	}
}
