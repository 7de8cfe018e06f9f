package agent

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
	"strconv"
	"strings"
	"time"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/fw"
)

// Paths and media types of the device protocol (docs/protocol.md).
const (
	pathEnrol    = "/device/v1/enroll"
	pathRenew    = "/device/v1/renew"
	pathCheckIn  = "/device/v1/check-in"
	pathReport   = "/device/v1/report"
	pathArtifact = "/device/v1/artifacts/"

	mediaJSON = "application/json"
	mediaCBOR = "application/cbor"
	mediaCOSE = "application/cose"
)

const (
	callTimeout = 60 * time.Second // of everything but downloads
	maxAnswer   = 256 << 10        // bytes of a JSON answer
	maxProblem  = 16 << 10
)

// client talks to the server over one connection that is kept alive.
type client struct {
	server string
	http   *http.Client
}

// newClient returns a client that believes the server certificates of roots
// and shows those of id, if there is one.
func newClient(server string, roots *x509.CertPool, id *identity) *client {
	conf := &tls.Config{
		MinVersion:         tls.VersionTLS13,
		RootCAs:            roots,
		ClientSessionCache: tls.NewLRUClientSessionCache(1),
	}
	if id != nil {
		// Not Certificates: those are left out when the server's list of CAs
		// does not name their issuer, and an expired one must still be shown,
		// so that the server can say and record why it refuses.
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return id.tls(), nil }
	}
	return &client{server: strings.TrimRight(server, "/"), http: &http.Client{
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			TLSClientConfig:       conf,
			TLSHandshakeTimeout:   20 * time.Second,
			ResponseHeaderTimeout: 30 * time.Second,
			MaxConnsPerHost:       1,
			MaxIdleConnsPerHost:   1,
			DisableCompression:    true, // artifacts are bytes, exactly
		},
		// A redirect would leave the server that was authenticated.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// serverRoots returns what the server's certificate must end in: the anchors
// of the trust bundle, or the CA pinned at enrolment if it names none.
func serverRoots(trust *authz.TrustBundle, pinned string) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if trust != nil {
		if anchors := trust.TLSAnchors(); len(anchors) > 0 {
			for _, c := range anchors {
				pool.AddCert(c)
			}
			return pool, nil
		}
	}
	if !pool.AppendCertsFromPEM([]byte(pinned)) {
		return nil, fw.Errorf(fw.Invalid, "there is no CA certificate to check the server's with: give --ca FILE, PEM")
	}
	return pool, nil
}

// refusal is an answer of the server that is not a success.
type refusal struct {
	status int
	kind   fw.Kind
	detail string
	after  time.Duration // Retry-After; 0: not said
}

func (r *refusal) Error() string {
	return fmt.Sprintf("the server answered %d %s: %s", r.status, r.kind, r.detail)
}

// post sends body and returns the answer's body of at most limit bytes.
// Everything posted here may be sent twice without harm.
func (c *client) post(ctx context.Context, path, media string, body []byte, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.server+path, bytes.NewReader(body))
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "cannot address the server")
	}
	req.Header.Set("Content-Type", media)
	// Lets net/http repeat it on a new connection when the server has closed
	// the kept one; with no value it is not sent.
	req.Header["Idempotency-Key"] = nil
	res, err := c.http.Do(req)
	if err != nil {
		return nil, fw.Wrap(fw.Unavailable, err, "cannot reach the server at %s", c.server)
	}
	defer closing(res.Body)
	if res.StatusCode != http.StatusOK {
		return nil, readRefusal(res)
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	if err != nil {
		return nil, fw.Wrap(fw.Unavailable, err, "the server's answer broke off")
	}
	if int64(len(b)) > limit {
		return nil, fw.Errorf(fw.TooLarge, "the server's answer is over the limit of %d bytes", limit)
	}
	return b, nil
}

// postJSON posts in as JSON and reads the answer into out.
func (c *client) postJSON(ctx context.Context, path string, in, out any) error {
	b, err := json.Marshal(in)
	if err != nil {
		return fw.Wrap(fw.Internal, err, "cannot encode the request")
	}
	if b, err = c.post(ctx, path, mediaJSON, b, maxAnswer); err != nil {
		return err
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fw.Wrap(fw.Unavailable, err, "the server's answer is not the JSON it should be")
	}
	return nil
}

// get asks for path from offset on. The caller closes the body.
func (c *client) get(ctx context.Context, path string, offset int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.server+path, nil)
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "cannot address the server")
	}
	if offset > 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(offset, 10)+"-")
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, fw.Wrap(fw.Unavailable, err, "cannot reach the server at %s", c.server)
	}
	return res, nil
}

// readRefusal reads an RFC 9457 problem.
func readRefusal(res *http.Response) error {
	r := &refusal{status: res.StatusCode, after: retryAfter(res.Header.Get("Retry-After"))}
	var p struct {
		Kind   fw.Kind `json:"kind"`
		Detail string  `json:"detail"`
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, maxProblem))
	if err == nil && json.Unmarshal(b, &p) == nil {
		r.kind, r.detail = p.Kind, oneLine(p.Detail)
	}
	return r
}

// retryAfter reads both forms of RFC 9110, section 10.2.3.
func retryAfter(v string) time.Duration {
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, time.Until(t))
	}
	return 0
}

// closing closes what was only read: an error says nothing about what was read.
func closing(c io.Closer) { _ = c.Close() }

// turnedAway reports whether err says that the credential shown is not good.
func turnedAway(err error) bool {
	r, ok := errors.AsType[*refusal](err)
	return ok && (r.status == http.StatusUnauthorized || r.status == http.StatusForbidden)
}
