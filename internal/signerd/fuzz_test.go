package signerd

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/writ-project/writ/internal/httpd"
	"github.com/writ-project/writ/internal/signer"
)

// Whatever is sent to a signer, it does not fail, and signs nothing: no
// mutation of a good order is still approved.
func FuzzRequests(f *testing.F) {
	w := newWorld(f)
	good := w.order("1.0.0")
	statement := signer.StatementOrder{Statement: []byte(`{"_type":"x"}`), Evidence: good.Evidence, Decision: good.Decision, By: "erin"}
	trust := signer.TrustOrder{Document: good.Evidence.Document, Decision: good.Decision, By: "erin"}
	for i, v := range []any{good, statement, trust, Roster{Envelope: good.Evidence.Roster}, struct{}{}} {
		b, err := json.Marshal(v)
		w.must(err)
		f.Add(uint8(i), b)
	}
	f.Add(uint8(0), []byte(`{"component":"main","component":"main"}`))
	f.Add(uint8(0), bytes.Repeat([]byte("["), 10_000))
	f.Add(uint8(1), []byte(`{"decision":{"salt":"AA==","record":"e30=","receipt":"2EA="}}`))
	s := w.open()
	f.Cleanup(func() {
		if err := s.Close(); err != nil {
			f.Error(err)
		}
	})
	h := s.Handler(httpd.NewFront(slog.New(slog.DiscardHandler), time.Now), everybody)
	paths := []string{"/v1/orders", "/v1/statements", "/v1/trust-bundles", "/v1/rosters"}
	f.Fuzz(func(t *testing.T, path uint8, body []byte) {
		r := httptest.NewRequest(http.MethodPost, paths[int(path)%len(paths)], bytes.NewReader(body))
		r.Header.Set("Content-Type", mediaJSON)
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code >= http.StatusInternalServerError {
			t.Errorf("status %d: %s", rec.Code, rec.Body)
		}
		if len(s.answers) > 0 {
			t.Fatal("something was signed")
		}
		s.orders.mu.Lock()
		clear(s.orders.byID) // a good order waits for its image; the next one finds room
		s.orders.mu.Unlock()
	})
}
