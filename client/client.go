// Package client is the typed Go client of writ's REST API v1.
//
// # What it promises
//
//   - One method per operation, grouped by what it is about: [Client.Devices],
//     [Client.Releases] and so on. Requests and answers are package apitypes.
//   - A problem the server reports is an *[Error] with its kind, its message
//     for the caller and its request id.
//   - Requests that may be repeated are, with growing pauses, when the server
//     is busy or the connection breaks: reads, and changes that the server
//     treats as the same when they come twice.
//   - Uploads go on where they stopped.
//
// # Example
//
//	c, err := client.New(client.Config{URL: "https://localhost:8443", Token: token, CA: pem})
//	list, err := c.Devices().List(ctx, client.DeviceFilter{Product: "thermostat"})
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/writ-project/writ/apitypes"
	"github.com/writ-project/writ/internal/fw"
)

// Config says which server, and as whom.
type Config struct {
	URL       string
	Token     string
	CA        []byte // PEM of the CA that issued the server's certificate; nil: the system's
	UserAgent string // default "writ-client"
}

// Client talks to one server. It is safe for concurrent use.
type Client struct {
	base  *url.URL
	token string
	agent string
	http  *http.Client
}

// Error is a problem the server reported.
type Error struct {
	Status     int
	Kind       fw.Kind
	Detail     string
	RequestID  string
	RetryAfter time.Duration
}

// Error returns the server's message.
func (e *Error) Error() string { return e.Detail }

// New returns a client.
func New(c Config) (*Client, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fw.Errorf(fw.Invalid, "the server's address must be https://HOST:PORT, not %q", c.URL)
	}
	t := &tls.Config{MinVersion: tls.VersionTLS13}
	if c.CA != nil {
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(c.CA) {
			return nil, fw.Errorf(fw.Invalid, "the CA file holds no certificate in PEM")
		}
	}
	agent := c.UserAgent
	if agent == "" {
		agent = "writ-client"
	}
	return &Client{
		base: u, token: c.Token, agent: agent,
		http: &http.Client{CheckRedirect: stay, Transport: &http.Transport{TLSClientConfig: t, Proxy: http.ProxyFromEnvironment, IdleConnTimeout: time.Minute, ResponseHeaderTimeout: 2 * time.Minute}},
	}, nil
}

// stay makes a redirect an answer like any other, and so a problem: the API
// never redirects, and a token must not follow somebody else's pointer.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// request is one call.
type request struct {
	method string
	path   string // after /api/v1
	query  url.Values
	body   any       // JSON; nil: none
	raw    io.Reader // instead of body
	size   int64     // of raw
	repeat bool      // may be sent twice
}

// Bounds.
const (
	maxAnswer = 64 << 20 // bytes of JSON
	attempts  = 5
	firstWait = 300 * time.Millisecond
)

// do sends r and decodes the answer into out, if not nil.
func (c *Client) do(ctx context.Context, r request, out any) error {
	res, err := c.send(ctx, r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fw.Wrap(fw.Unavailable, err, "the connection to the server broke: try again")
	}
	if out == nil || len(b) == 0 {
		return nil
	}
	if raw, ok := out.(*[]byte); ok {
		*raw = b
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fw.Wrap(fw.Internal, err, "the server's answer cannot be read: is it a writ server of this version?")
	}
	return nil
}

// send sends r until it is answered, and returns a successful answer.
func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	var payload []byte
	if r.body != nil {
		var err error
		if payload, err = json.Marshal(r.body); err != nil {
			return nil, fw.Wrap(fw.Invalid, err, "the request cannot be encoded")
		}
	}
	wait := firstWait
	for n := 1; ; n++ {
		res, err := c.once(ctx, r, payload)
		if err == nil {
			return res, nil
		}
		pause, again := wait, r.repeat || r.method == http.MethodGet
		if e, ok := errors.AsType[*Error](err); ok {
			switch e.Status {
			case http.StatusTooManyRequests:
				again = true // refused before anything was done
			case http.StatusServiceUnavailable:
			default:
				return nil, err
			}
			pause = max(pause, e.RetryAfter)
		} else if fw.KindOf(err) != fw.Unavailable {
			return nil, err // not the server's certificate: trying again changes nothing
		}
		if !again || n == attempts || ctx.Err() != nil || r.raw != nil {
			return nil, err
		}
		if !sleep(ctx, pause) {
			return nil, err
		}
		wait *= 2
	}
}

// sleep waits for d and reports whether ctx still goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func (c *Client) once(ctx context.Context, r request, payload []byte) (*http.Response, error) {
	u := c.base.JoinPath("/api/v1", r.path)
	u.RawQuery = r.query.Encode()
	var body io.Reader
	media := "application/json"
	switch {
	case r.raw != nil:
		body, media = r.raw, "application/octet-stream"
	case payload != nil:
		body = bytes.NewReader(payload)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), body)
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "the request cannot be made")
	}
	if r.raw != nil {
		req.ContentLength = r.size
	}
	if body != nil {
		req.Header.Set("Content-Type", media)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	req.Header.Set("User-Agent", c.agent)
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if res.StatusCode/100 == 2 {
		return res, nil
	}
	defer res.Body.Close()
	return nil, problem(res)
}

// unreachable says why there was no answer, and what to do.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fw.Wrap(fw.Unavailable, ctx.Err(), "interrupted")
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fw.Wrap(fw.Unauthenticated, err, "the server at %s is not the one with the given CA: check the address, or log in again with its CA fingerprint", c.base.Host)
	}
	return fw.Wrap(fw.Unavailable, err, "no answer from %s: is the server running and the address right?", c.base.Host)
}

func problem(res *http.Response) error {
	e := &Error{Status: res.StatusCode, Kind: fw.Internal}
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<16))
	var p apitypes.Problem
	if err == nil && json.Unmarshal(b, &p) == nil && p.Detail != "" {
		e.Kind, e.Detail, e.RequestID = p.Kind, p.Detail, p.RequestID
	} else {
		e.Detail = fmt.Sprintf("the server answered %s: is it a writ server?", res.Status)
	}
	if s, err := strconv.Atoi(strings.TrimSpace(res.Header.Get("Retry-After"))); err == nil && s >= 0 && s < 3600 {
		e.RetryAfter = time.Duration(s) * time.Second
	}
	return e
}

// Unwrap returns the problem as the error that the rest of writ knows.
func (e *Error) Unwrap() error { return &fw.Error{Kind: e.Kind, Msg: e.Detail} }

// get reads path into a value.
func get[T any](ctx context.Context, c *Client, path string, query url.Values) (T, error) {
	var out T
	err := c.do(ctx, request{method: http.MethodGet, path: path, query: query}, &out)
	return out, err
}

// post sends body to path and reads the answer. It is not sent again when the
// connection breaks, because it may have been done; calls whose repetition the
// server takes for the same say repeat.
func post[T any](ctx context.Context, c *Client, path string, body any) (T, error) {
	var out T
	if body == nil {
		body = struct{}{}
	}
	err := c.do(ctx, request{method: http.MethodPost, path: path, body: body}, &out)
	return out, err
}

// page is the query of a list.
func page(after string, limit int) url.Values {
	q := url.Values{}
	if after != "" {
		q.Set("after", after)
	}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	return q
}

// seg escapes an id for a path.
func seg[S ~string](s S) string { return url.PathEscape(string(s)) }
