package signerd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/httpd"
	"github.com/writ-project/writ/internal/signer"
)

// ClientConfig says where a signer is.
type ClientConfig struct {
	// Address is unix:PATH or https://HOST:PORT.
	Address string

	// For https, PEM files: CA issued the signer's certificate; Certificate
	// and Key are the server's own.
	CA, Certificate, Key string
}

// Client asks a signer. It is the [signer.Custody] of a server that holds no
// image keys. It is safe for concurrent use.
type Client struct {
	base string
	http *http.Client
}

var _ signer.Custody = (*Client)(nil)

// NewClient returns a client. It does not connect.
func NewClient(c ClientConfig) (*Client, error) {
	t := &http.Transport{
		ResponseHeaderTimeout: 2 * time.Minute, // a checked order or a statement; images are polled for
		IdleConnTimeout:       time.Minute,
		MaxIdleConns:          4,
		DisableCompression:    true,
	}
	if path, ok := strings.CutPrefix(c.Address, "unix:"); ok && path != "" {
		var d net.Dialer
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", path) }
		return &Client{base: "http://writ-signer", http: &http.Client{Transport: t, CheckRedirect: noRedirect}}, nil
	}
	u, err := url.Parse(c.Address)
	if err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return nil, fw.Wrap(fw.Invalid, err, "the signer's address %q is not unix:PATH or https://HOST:PORT", c.Address)
	}
	if c.CA == "" || c.Certificate == "" || c.Key == "" {
		return nil, fw.Errorf(fw.Invalid, "a signer at %s needs --signer-ca, --signer-cert and --signer-key", c.Address)
	}
	cert, pool, err := loadTLS(c.Certificate, c.Key, c.CA)
	if err != nil {
		return nil, err
	}
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, RootCAs: pool}
	return &Client{base: "https://" + u.Host, http: &http.Client{Transport: t, CheckRedirect: noRedirect}}, nil
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Info asks who the signer is.
func (c *Client) Info(ctx context.Context) (Info, error) {
	return call[Info](ctx, c, http.MethodGet, "/v1/signer", nil)
}

// Rosters returns signed rosters after a version, oldest first: some of them,
// and none when there are no more.
func (c *Client) Rosters(ctx context.Context, after int64) ([][]byte, error) {
	r, err := call[Rosters](ctx, c, http.MethodGet, "/v1/rosters?after="+strconv.FormatInt(after, 10), nil)
	return r.Envelopes, err
}

// AdoptRoster implements [signer.Custody].
func (c *Client) AdoptRoster(ctx context.Context, envelope []byte) error {
	_, err := call[struct{}](ctx, c, http.MethodPost, "/v1/rosters", Roster{Envelope: envelope})
	return err
}

// SignStatement implements [signer.Custody].
func (c *Client) SignStatement(ctx context.Context, o signer.StatementOrder) (signer.Record, error) {
	return c.document(ctx, "/v1/statements", o)
}

// SignTrustBundle has the next trust bundle signed by the signer's root key.
func (c *Client) SignTrustBundle(ctx context.Context, o signer.TrustOrder) (signer.Record, error) {
	return c.document(ctx, "/v1/trust-bundles", o)
}

// document orders a signature whose whole output is in the record.
func (c *Client) document(ctx context.Context, path string, o any) (signer.Record, error) {
	var r signer.Record
	err := again(ctx, func() (err error) {
		r, err = call[signer.Record](ctx, c, http.MethodPost, path, o)
		return err
	})
	if err == nil && r.Output != fw.DigestOf(r.Envelope) {
		return r, fw.Errorf(fw.Corrupt, "the signer's answer is not what its record says")
	}
	return r, err
}

// SignImage implements [signer.Custody].
func (c *Client) SignImage(ctx context.Context, o signer.ImageOrder, input io.ReaderAt, output io.Writer) (signer.Record, error) {
	var st Status
	err := again(ctx, func() (err error) {
		st, err = c.carry(ctx, o, input)
		return err
	})
	if err != nil {
		if ctx.Err() != nil && st.Permit != "" {
			c.drop(ctx, st.Permit)
		}
		return signer.Record{}, err
	}
	r := *st.Record
	if err := c.fetch(ctx, st.Permit, r, output); err != nil {
		return r, err
	}
	c.drop(ctx, st.Permit)
	return r, nil
}

// carry brings an order to its end, from wherever an earlier attempt left it.
func (c *Client) carry(ctx context.Context, o signer.ImageOrder, input io.ReaderAt) (Status, error) {
	st, err := call[Status](ctx, c, http.MethodPost, "/v1/orders", o)
	if err != nil {
		return st, err
	}
	if st.State == StateWaiting {
		if st, err = c.send(ctx, st, input); err != nil {
			return st, err
		}
	}
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 500*time.Millisecond) {
		switch st.State {
		case StateSigned:
			if st.Record == nil {
				return st, fw.Errorf(fw.Corrupt, "the signer says that it signed and not what")
			}
			return st, nil
		case StateFailed:
			return st, st.Error.err()
		case StateWaiting:
			return st, fw.Errorf(fw.Unavailable, "the signer lost the image on the way: try again")
		case StateReceiving, StateSigning:
		default:
			return st, fw.Errorf(fw.Corrupt, "the signer is in a state %q that this server does not know: update the server", st.State)
		}
		if err := pause(ctx, wait); err != nil {
			return st, err
		}
		permit := st.Permit
		if st, err = call[Status](ctx, c, http.MethodGet, orderPath(permit), nil); err != nil {
			return Status{Permit: permit}, err
		}
	}
}

func orderPath(p fw.PermitID) string { return "/v1/orders/" + url.PathEscape(string(p)) }

func (c *Client) send(ctx context.Context, st Status, input io.ReaderAt) (Status, error) {
	body := io.NewSectionReader(input, 0, st.Total)
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, c.base+orderPath(st.Permit)+"/input", body)
	if err != nil {
		return st, fw.Wrap(fw.Internal, err, "cannot ask the signer")
	}
	req.ContentLength = st.Total
	req.Header.Set("Content-Type", mediaImage)
	got, err := do[Status](c, req)
	if err != nil {
		return st, err
	}
	return got, nil
}

// fetch copies a signed image and checks that it is what the record says.
func (c *Client) fetch(ctx context.Context, permit fw.PermitID, r signer.Record, w io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+orderPath(permit)+"/output", http.NoBody)
	if err != nil {
		return fw.Wrap(fw.Internal, err, "cannot ask the signer")
	}
	res, err := c.http.Do(req)
	if err != nil {
		return unreachable(err)
	}
	defer func() { _ = res.Body.Close() }() // only read
	if res.StatusCode != http.StatusOK {
		return problem(res)
	}
	h := sha256.New()
	src := &source{r: io.LimitReader(res.Body, r.Size+1)}
	n, err := io.Copy(io.MultiWriter(h, w), src)
	switch {
	case src.err != nil:
		return unreachable(src.err)
	case err != nil:
		return err // of the caller's own writer
	case n != r.Size || fw.Digest(h.Sum(nil)) != r.Output:
		return fw.Errorf(fw.Unavailable, "the signed image came damaged from the signer: try again")
	}
	return nil
}

// drop tells the signer that an order is done with. If it does not hear, it
// forgets the order by itself after a while.
func (c *Client) drop(ctx context.Context, p fw.PermitID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	_, _ = call[struct{}](ctx, c, http.MethodDelete, orderPath(p), nil) // see above
}

// again repeats f while the signer cannot be reached, for as long as a restart
// of it takes.
func again(ctx context.Context, f func() error) error {
	const attempts = 6
	wait := 250 * time.Millisecond
	for n := 1; ; n++ {
		err := f()
		if k := fw.KindOf(err); err == nil || n == attempts || k != fw.Unavailable && k != fw.TooMany || ctx.Err() != nil {
			return err
		}
		if perr := pause(ctx, wait); perr != nil {
			return perr
		}
		wait *= 2
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fw.Wrap(fw.Unavailable, ctx.Err(), "it was cancelled while the signer worked")
	}
}

// call sends a document, or none, and reads one.
func call[T any](ctx context.Context, c *Client, method, path string, in any) (T, error) {
	var none T
	var body io.Reader = http.NoBody
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return none, fw.Wrap(fw.Internal, err, "cannot encode the order")
		}
		if len(b) > maxBody {
			return none, fw.Errorf(fw.TooLarge, "the order for the signer is %d bytes and the limit is %d: shorten the manifest's notes", len(b), maxBody)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return none, fw.Wrap(fw.Internal, err, "cannot ask the signer")
	}
	if in != nil {
		req.Header.Set("Content-Type", mediaJSON)
	}
	return do[T](c, req)
}

// maxReply bounds a signer's answer, in bytes: a page of rosters.
const maxReply = 64 << 20

func do[T any](c *Client, req *http.Request) (T, error) {
	var out T
	res, err := c.http.Do(req)
	if err != nil {
		return out, unreachable(err)
	}
	defer func() { _ = res.Body.Close() }() // only read
	if res.StatusCode >= http.StatusMultipleChoices {
		return out, problem(res)
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, maxReply+1))
	switch {
	case err != nil:
		return out, unreachable(err)
	case len(b) > maxReply:
		return out, fw.Errorf(fw.TooLarge, "the signer's answer is over %d bytes", maxReply)
	case res.StatusCode == http.StatusNoContent:
		return out, nil
	}
	if err := json.Unmarshal(b, &out); err != nil {
		return out, fw.Wrap(fw.Corrupt, err, "the signer's answer cannot be read: is it writ-signer, of this version?")
	}
	return out, nil
}

func unreachable(err error) error {
	return fw.Wrap(fw.Unavailable, err, "the signer cannot be reached: is writ-signer running?")
}

// maxProblem bounds an error body, in bytes.
const maxProblem = 16 << 10

// problem is the signer's refusal, as it said it.
func problem(res *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(res.Body, maxProblem))
	var p httpd.Problem
	if err != nil || json.Unmarshal(b, &p) != nil || p.Kind == "" {
		return fw.Wrap(fw.Unavailable, errors.Join(err, fmt.Errorf("status %s", res.Status)), "the signer answered with %s and no reason: is it writ-signer, of this version?", res.Status)
	}
	return &fw.Error{Kind: p.Kind, Msg: "the signer says: " + p.Detail}
}
