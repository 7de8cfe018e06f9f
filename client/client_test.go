package client_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/writ-project/writ/apitypes"
	"github.com/writ-project/writ/client"
	"github.com/writ-project/writ/internal/fw"
)

// dial returns a client of a server that answers with h.
func dial(t *testing.T, h http.HandlerFunc) *client.Client {
	t.Helper()
	srv := httptest.NewTLSServer(h)
	t.Cleanup(srv.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	c, err := client.New(client.Config{URL: srv.URL, Token: "writ_secret", CA: ca})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func answer(t *testing.T, w http.ResponseWriter, status int, v any) {
	t.Helper()
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		t.Error(err)
	}
}

// cut ends the connection without an answer.
func cut() { panic(http.ErrAbortHandler) }

func TestReadsAreRepeatedWhileTheServerIsBusy(t *testing.T) {
	var n atomic.Int32
	c := dial(t, func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); got != "Bearer writ_secret" {
			t.Errorf("Authorization: %q", got)
		}
		switch n.Add(1) {
		case 1:
			cut()
		case 2:
			answer(t, w, http.StatusServiceUnavailable, apitypes.Problem{Detail: "starting", Kind: fw.Unavailable})
		default:
			answer(t, w, http.StatusOK, apitypes.Identity{Person: "ann"})
		}
	})
	who, err := c.Server().WhoAmI(t.Context())
	if err != nil || who.Person != "ann" || n.Load() != 3 {
		t.Errorf("%+v, %v after %d requests", who, err, n.Load())
	}
}

func TestAChangeThatMayHaveHappenedIsNotRepeated(t *testing.T) {
	var n atomic.Int32
	c := dial(t, func(http.ResponseWriter, *http.Request) {
		n.Add(1)
		cut()
	})
	_, err := c.Operators().CreateToken(t.Context(), apitypes.NewToken{Person: "ann"})
	if fw.KindOf(err) != fw.Unavailable || n.Load() != 1 {
		t.Errorf("%v after %d requests", err, n.Load())
	}
	if e, ok := errors.AsType[*fw.Error](err); !ok || strings.Contains(e.Msg, "EOF") {
		t.Errorf("the message for people has the cause in it: %v", err)
	}
}

func TestAChangeRefusedForItsRateIsRepeated(t *testing.T) {
	var n atomic.Int32
	c := dial(t, func(w http.ResponseWriter, r *http.Request) {
		var p apitypes.Person
		if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
			t.Errorf("body of request %d: %v", n.Load()+1, err)
		}
		if n.Add(1) == 1 {
			answer(t, w, http.StatusTooManyRequests, apitypes.Problem{Detail: "wait", Kind: fw.TooMany})
			return
		}
		answer(t, w, http.StatusOK, p)
	})
	if p, err := c.Operators().AddPerson(t.Context(), apitypes.Person{ID: "eve"}); err != nil || p.ID != "eve" || n.Load() != 2 {
		t.Errorf("%+v, %v after %d requests", p, err, n.Load())
	}
}

func TestAProblemKeepsWhatTheServerSaid(t *testing.T) {
	c := dial(t, func(w http.ResponseWriter, _ *http.Request) {
		answer(t, w, http.StatusConflict, apitypes.Problem{Title: "Conflict", Status: 409, Detail: "it is published", Kind: fw.Conflict, RequestID: "r-1"})
	})
	_, err := c.Releases().Publish(t.Context(), "x")
	e, ok := errors.AsType[*client.Error](err)
	if !ok || e.Status != 409 || e.Kind != fw.Conflict || e.RequestID != "r-1" || err.Error() != "it is published" || fw.KindOf(err) != fw.Conflict {
		t.Errorf("%#v", err)
	}
}

func TestAStrangeServerIsNamed(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"html":     func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", http.StatusBadGateway) },
		"not json": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") },
		// A token must not follow a redirect to somebody else.
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/api/v1/whoami" {
				t.Error("followed")
			}
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := dial(t, h).Server().WhoAmI(t.Context()); err == nil || !strings.Contains(err.Error(), "writ server") {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestAnImpostorGetsNoToken(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request arrived") }))
	defer srv.Close()
	srv.Config.ErrorLog = nil
	c, err := client.New(client.Config{URL: srv.URL, Token: "writ_secret"}) // the system's CAs
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Server().WhoAmI(t.Context()); fw.KindOf(err) != fw.Unauthenticated {
		t.Errorf("%v", err)
	}
}

func TestAConfigIsChecked(t *testing.T) {
	for _, c := range []client.Config{{URL: "http://writ.test"}, {URL: "writ.test:8443"}, {URL: "https://writ.test", CA: []byte("no pem")}} {
		if _, err := client.New(c); fw.KindOf(err) != fw.Invalid {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestAnUploadGoesOnWhereItStopped(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // 16 MiB
	var got []byte
	var breaks int
	status := func() apitypes.Upload {
		return apitypes.Upload{ID: "u", Size: int64(len(content)), Offset: int64(len(got))}
	}
	c := dial(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Method + " " + strings.TrimPrefix(r.URL.Path, "/api/v1") {
		case "POST /uploads", "GET /uploads/u":
			answer(t, w, http.StatusOK, status())
		case "PATCH /uploads/u":
			if at := r.URL.Query().Get("offset"); at != strconv.Itoa(len(got)) {
				t.Errorf("offset %s, want %d", at, len(got))
			}
			if breaks < 2 { // 3 MiB arrive, then the line breaks
				breaks++
				b := make([]byte, 3<<20)
				n, _ := io.ReadFull(r.Body, b)
				got = append(got, b[:n]...)
				cut()
			}
			b, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			got = append(got, b...)
			answer(t, w, http.StatusOK, status())
		case "POST /uploads/u/finish":
			answer(t, w, http.StatusOK, apitypes.Uploaded{Digest: fw.Digest(sha256.Sum256(got)), Size: int64(len(got))})
		default:
			t.Errorf("%s %s", r.Method, r.URL)
		}
	})
	path := filepath.Join(t.TempDir(), "firmware")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	var last int64
	up, err := c.Releases().UploadFile(t.Context(), path, func(done, total int64) {
		if done < last || total != int64(len(content)) {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
	})
	if err != nil || up.Digest != fw.DigestOf(content) || breaks != 2 || last != int64(len(content)) {
		t.Errorf("%+v, %v after %d breaks, progress %d", up, err, breaks, last)
	}
	if _, err := c.Releases().UploadFile(t.Context(), t.TempDir(), nil); fw.KindOf(err) != fw.Invalid {
		t.Errorf("a directory: %v", err)
	}
}

func TestHalfABundleIsAnError(t *testing.T) {
	c := dial(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, 1<<20))
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		cut()
	})
	var out bytes.Buffer
	if err := c.Evidence().Bundle(t.Context(), apitypes.BundleQuery{Device: "d"}, &out, nil); fw.KindOf(err) != fw.Unavailable {
		t.Errorf("%d bytes, %v", out.Len(), err)
	}
}

func TestACallEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := dial(t, func(w http.ResponseWriter, _ *http.Request) {
		cancel() // while the client is about to wait and try again
		answer(t, w, http.StatusServiceUnavailable, apitypes.Problem{Detail: "busy", Kind: fw.Unavailable})
	})
	if _, err := c.Server().WhoAmI(ctx); err == nil {
		t.Error("no error")
	}
}
