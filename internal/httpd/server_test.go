package httpd_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/httpd"
)

// start serves h and returns its address; the returned function stops it.
func start(t *testing.T, c httpd.Config) (addr string, stop func() error) {
	t.Helper()
	c.Addr = "127.0.0.1:0"
	s, err := httpd.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		_ = s.Close() // after an orderly end there is nothing to close
	})
	return s.Addr(), func() error { cancel(); return <-done }
}

func TestServerDrainsBeforeItStops(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	addr, stop := start(t, httpd.Config{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-release
		fmt.Fprint(w, "done")
	})})
	got := make(chan string, 1)
	go func() {
		res, err := http.Get("http://" + addr)
		if err != nil {
			got <- err.Error()
			return
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		got <- string(b)
	}()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	for { // the port is released while the request still runs
		c, err := net.Dial("tcp", addr)
		if err != nil {
			break
		}
		_ = c.Close()
		time.Sleep(time.Millisecond)
	}
	close(release)
	if s := <-got; s != "done" {
		t.Errorf("the running request got %q", s)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestServerCutsWhatDoesNotDrain(t *testing.T) {
	entered := make(chan struct{})
	addr, stop := start(t, httpd.Config{DrainTimeout: time.Millisecond, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	})})
	go http.Get("http://" + addr) //nolint:errcheck // it is cut
	<-entered
	if err := stop(); fw.KindOf(err) != fw.Unavailable {
		t.Errorf("got %v, want unavailable", err)
	}
}

func TestServerOverTLS(t *testing.T) {
	ts := httptest.NewTLSServer(nil)
	defer ts.Close()
	addr, stop := start(t, httpd.Config{TLS: ts.TLS, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.TLS != nil)
	})})
	res, err := ts.Client().Get("https://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, _ := io.ReadAll(res.Body); string(b) != "true" {
		t.Errorf("got %q", b)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestATakenPortIsSaid(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, err = httpd.New(t.Context(), httpd.Config{Addr: l.Addr().String(), Handler: http.NotFoundHandler()})
	if fw.KindOf(err) != fw.Unavailable || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("got %v", err)
	}
}

// quick answers with whatever Route.Stall lets through, on a server whose own
// timeouts are far shorter than the transfer.
func quick(t *testing.T, stall time.Duration, h httpd.Handler) string {
	t.Helper()
	front := httpd.NewFront(slog.New(slog.DiscardHandler), time.Now)
	addr, _ := start(t, httpd.Config{ReadTimeout: 100 * time.Millisecond, WriteTimeout: 100 * time.Millisecond, Handler: front.Handle(httpd.Route{Stall: stall}, h)})
	return "http://" + addr
}

func TestASlowButMovingUploadOutlivesTheTimeouts(t *testing.T) {
	count := func(w http.ResponseWriter, r *http.Request) error {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return fw.Wrap(fw.Invalid, err, "cut")
		}
		_, err = fmt.Fprint(w, n)
		return err
	}
	slow := func() io.Reader {
		pr, pw := io.Pipe()
		go func() {
			for range 4 {
				time.Sleep(100 * time.Millisecond)
				_, _ = pw.Write(bytes.Repeat([]byte("x"), 10))
			}
			_ = pw.Close()
		}()
		return pr
	}
	res, err := http.Post(quick(t, 5*time.Second, count), "", slow())
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, _ := io.ReadAll(res.Body); string(b) != "40" {
		t.Errorf("got %q, want 40", b)
	}
	res, err = http.Post(quick(t, 50*time.Millisecond, count), "", slow())
	if err == nil {
		defer res.Body.Close()
		if res.StatusCode == http.StatusOK {
			t.Error("a stalled upload passed")
		}
	}
}

func TestDownloadsOfAnySizeArriveWhole(t *testing.T) {
	file := filepath.Join(t.TempDir(), "image")
	want := bytes.Repeat([]byte("0123456789abcdef"), 100_000)
	if err := os.WriteFile(file, want, 0o600); err != nil {
		t.Fatal(err)
	}
	url := quick(t, 5*time.Second, func(w http.ResponseWriter, r *http.Request) error {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		http.ServeContent(w, r, "image.bin", time.Time{}, f)
		return nil
	})
	for rng, part := range map[string][]byte{"": want, "bytes=1000000-": want[1_000_000:], "bytes=5-9": want[5:10], "bytes=0-262143": want[:262144], "bytes=0-524287": want[:524288]} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if rng != "" {
			r.Header.Set("Range", rng)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || !bytes.Equal(got, part) {
			t.Errorf("range %q: %d bytes, %v; want %d", rng, len(got), err, len(part))
		}
	}
}

func TestLimiterRefusesWithTheTimeToWait(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	l := httpd.NewLimiter(httpd.LimiterConfig{PerSecond: 0.5, Burst: 2, Callers: 2, Now: func() time.Time { return now }})
	h := l.Limit(text("ok"))
	ask := func(remote string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, "/enroll", nil)
		r.RemoteAddr = remote
		r.Header.Set("X-Forwarded-For", "9.9.9.9") // not believed
		rec, _ := serve(t, httpd.Route{}, h, r)
		return rec
	}
	steps := []struct {
		remote string
		after  time.Duration
		status int
		retry  string
	}{
		{"192.0.2.1:1", 0, 200, ""},
		{"192.0.2.1:2", 0, 200, ""},
		{"192.0.2.1:3", 0, 429, "2"},
		{"[::ffff:192.0.2.1]:4", 0, 429, "2"}, // the same caller
		{"[2001:db8:0:1::1]:1", 0, 200, ""},
		{"[2001:db8:0:1:ffff::2]:1", 0, 200, ""},
		{"[2001:db8:0:1::3]:1", 0, 429, "2"}, // the same /64
		{"192.0.2.1:3", time.Second, 429, "1"},
		{"192.0.2.1:3", time.Second, 200, ""},
		{"not an address", 0, 200, ""}, // forgets the caller idle longest, the /64
		{"[2001:db8:0:1::3]:1", 0, 200, ""},
	}
	for i, s := range steps {
		now = now.Add(s.after)
		rec := ask(s.remote)
		if rec.Code != s.status || rec.Header().Get("Retry-After") != s.retry {
			t.Errorf("step %d, %s: %d, Retry-After %q; want %d, %q", i, s.remote, rec.Code, rec.Header().Get("Retry-After"), s.status, s.retry)
		}
	}
}
