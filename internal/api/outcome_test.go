package api

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/writ-project/writ/internal/httpd"
)

// A refused request has one answer, the front's, and the cause is in the log
// and nowhere else.
func TestACauseIsLoggedAndNotTold(t *testing.T) {
	var log bytes.Buffer
	front := httpd.NewFront(slog.New(slog.NewJSONHandler(&log, nil)), time.Now)
	s := &server{mux: http.NewServeMux()}
	s.handle("/", func(w http.ResponseWriter, r *http.Request) error {
		refuse(r.Context(), errors.New("disk on fire"))
		refuse(r.Context(), errors.New("a later one"))
		http.Error(w, "what huma would write", http.StatusTeapot)
		return nil
	})
	rec := httptest.NewRecorder()
	front.Handle(httpd.Route{}, s.serve).ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/", nil))
	body := rec.Body.String()
	if rec.Code != 500 || strings.Contains(body, "fire") || strings.Contains(body, "huma") || !strings.Contains(body, `"request_id"`) {
		t.Errorf("%d %s", rec.Code, body)
	}
	if !strings.Contains(log.String(), "disk on fire") || strings.Contains(log.String(), "later") {
		t.Errorf("log: %s", &log)
	}
}
