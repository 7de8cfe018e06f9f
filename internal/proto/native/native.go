// Package native serves writ's own device protocol over HTTPS: enrolment with
// a one-time token, then mutual TLS for renewal, check-in, reports and
// artifacts. docs/protocol.md is its specification for device makers.
//
// # What it promises
//
//   - Handlers hold no rules. They bound and decode a body, name the peer, and
//     hand over to the services.
//   - Every route but enrolment needs a device certificate. The TLS layer has
//     checked its chain and that the peer holds its key ([VerifyPeer]);
//     whether it may still be used is decided per request, so that a
//     revocation counts on an open connection.
//   - An expired certificate is let through to the services, which refuse it
//     with its reason and keep a record, where a failed handshake would tell
//     nobody anything.
//   - Artifacts are served from files with ranges, by digest.
package native

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"os"
	"time"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/httpd"
	"github.com/writ-project/writ/internal/pki"
	"github.com/writ-project/writ/internal/update"
)

// Enroller issues certificates.
type Enroller interface {
	// Enrol redeems a one-time token for a certificate chain, leaf first.
	Enrol(ctx context.Context, token string, csr []byte) ([][]byte, error)
	// Renew issues the next certificate to the holder of the current one.
	Renew(ctx context.Context, fingerprint fw.Digest, csr []byte) ([][]byte, error)
}

// Artifacts opens stored bytes.
type Artifacts interface {
	Open(d fw.Digest) (*os.File, int64, error)
}

// Options configure the protocol.
type Options struct {
	Front     *httpd.Front
	Limiter   *httpd.Limiter // for callers without a certificate
	Updates   *update.Service
	Enroller  Enroller
	Artifacts Artifacts
	Trust     func(ctx context.Context) ([]byte, error) // newest trust bundle
	Now       func() time.Time
}

// Media types of the protocol.
const (
	mediaCBOR = "application/cbor"
	mediaCOSE = "application/cose"
	mediaJSON = "application/json"
)

// Bounds of bodies in bytes. The others are authz's.
const maxEnrol = 32 << 10

// stall ends a download that makes no progress.
const stall = time.Minute

// Register adds the protocol's routes to mux.
func Register(mux *http.ServeMux, o Options) {
	p := &protocol{o}
	route := func(pattern string, r httpd.Route, h httpd.Handler) { mux.Handle(pattern, o.Front.Handle(r, h)) }
	device := httpd.Route{Audience: httpd.Devices}
	route("POST /device/v1/enroll", device, o.Limiter.Limit(p.enrol))
	route("POST /device/v1/renew", device, p.renew)
	route("POST /device/v1/check-in", device, p.checkIn)
	route("POST /device/v1/report", device, p.report)
	route("GET /device/v1/artifacts/{digest}", httpd.Route{Audience: httpd.Devices, Stall: stall}, p.artifact)
}

type protocol struct{ o Options }

// VerifyPeer returns a tls.Config.VerifyConnection that accepts connections
// without a client certificate and those whose certificate chains to roots,
// expired or not. Unlike VerifyPeerCertificate it also runs on resumption.
func VerifyPeer(roots *x509.CertPool, profile pki.DeviceProfile, now func() time.Time) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			return nil
		}
		_, err := pki.VerifyDevice(cs.PeerCertificates, roots, profile, now())
		return err
	}
}

func peer(r *http.Request) (update.Peer, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return update.Peer{}, fw.Errorf(fw.Unauthenticated, "this needs the device's certificate: enrol first at /device/v1/enroll")
	}
	return update.NewPeer(r.TLS.PeerCertificates[0]), nil
}

func (p *protocol) checkIn(w http.ResponseWriter, r *http.Request) error {
	who, err := peer(r)
	if err != nil {
		return err
	}
	body, err := httpd.Body(r, authz.MaxCheckIn, mediaCBOR)
	if err != nil {
		return err
	}
	reply, err := p.o.Updates.CheckIn(r.Context(), who, body)
	if err != nil {
		return err
	}
	w.Header()["Content-Type"] = cborType
	_, err = w.Write(reply) //nolint:gosec // G705: CBOR, and says so
	return err
}

var cborType = []string{mediaCBOR}

func (p *protocol) report(w http.ResponseWriter, r *http.Request) error {
	who, err := peer(r)
	if err != nil {
		return err
	}
	body, err := httpd.Body(r, authz.MaxReport, mediaCOSE)
	if err != nil {
		return err
	}
	receipt, err := p.o.Updates.Report(r.Context(), who, body)
	if err != nil {
		return err
	}
	return writeJSON(w, receipt)
}

func (p *protocol) artifact(w http.ResponseWriter, r *http.Request) error {
	who, err := peer(r)
	if err != nil {
		return err
	}
	d, err := fw.ParseDigest(r.PathValue("digest"))
	if err != nil {
		return err
	}
	if err := p.o.Updates.MayDownload(r.Context(), who, d); err != nil {
		return err
	}
	f, _, err := p.o.Artifacts.Open(d)
	if err != nil {
		return err
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Etag", `"`+d.Hex()+`"`)
	http.ServeContent(w, r, "", time.Time{}, f)
	return nil
}

// EnrolRequest asks for a device's first certificate.
type EnrolRequest struct {
	Token string `json:"token"`
	CSR   []byte `json:"csr"` // PKCS #10, DER
}

// RenewRequest asks for a device's next certificate.
type RenewRequest struct {
	CSR []byte `json:"csr"`
}

// CertificateReply is the answer to both. Certificates are DER, the device's
// own first.
type CertificateReply struct {
	Certificates [][]byte `json:"certificates"`
	TrustBundle  []byte   `json:"trust_bundle,omitempty"`
	ServerTime   int64    `json:"server_time"`
}

func (p *protocol) enrol(w http.ResponseWriter, r *http.Request) error {
	var req EnrolRequest
	if err := readJSON(r, &req); err != nil {
		return err
	}
	chain, err := p.o.Enroller.Enrol(r.Context(), req.Token, req.CSR)
	if err != nil {
		return err
	}
	return p.certificates(w, r, chain)
}

func (p *protocol) renew(w http.ResponseWriter, r *http.Request) error {
	who, err := peer(r)
	if err != nil {
		return err
	}
	var req RenewRequest
	if err := readJSON(r, &req); err != nil {
		return err
	}
	chain, err := p.o.Enroller.Renew(r.Context(), who.Fingerprint, req.CSR)
	if err != nil {
		return err
	}
	return p.certificates(w, r, chain)
}

func (p *protocol) certificates(w http.ResponseWriter, r *http.Request, chain [][]byte) error {
	bundle, err := p.o.Trust(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, CertificateReply{Certificates: chain, TrustBundle: bundle, ServerTime: p.o.Now().Unix()})
}

func readJSON(r *http.Request, v any) error {
	body, err := httpd.Body(r, maxEnrol, mediaJSON)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fw.Wrap(fw.Invalid, err, "the body is not the JSON it should be: see docs/protocol.md")
	}
	return nil
}

func writeJSON(w http.ResponseWriter, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fw.Wrap(fw.Internal, err, "cannot encode the answer")
	}
	w.Header().Set("Content-Type", mediaJSON)
	_, err = w.Write(b)
	return err
}
