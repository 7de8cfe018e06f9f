package bench

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/fw"
)

// Device speaks the native protocol with a key of its own. It decides
// nothing and installs nothing: it is the other end of a load test and of the
// server's own tests, not a device (internal/agent is).
type Device struct {
	ID       fw.DeviceID
	Hardware fw.HardwareID
	Key      crypto.Signer
	Leaf     *x509.Certificate

	url    string
	client *http.Client
	roots  *x509.CertPool
	seq    uint64
	facts  authz.Facts
}

// StatusError is an answer that is not a success.
type StatusError struct {
	Status     int
	Kind       string `json:"kind"`
	Detail     string `json:"detail"`
	RetryAfter string
}

// Error implements error.
func (e *StatusError) Error() string {
	return fmt.Sprintf("status %d (%s): %s", e.Status, e.Kind, e.Detail)
}

// NewDevice makes a device with a fresh P-256 key.
func NewDevice(id fw.DeviceID, hardware fw.HardwareID, url string, roots *x509.CertPool) (*Device, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a device key: %w", err)
	}
	d := &Device{ID: id, Hardware: hardware, Key: key, url: url, roots: roots}
	d.Run("1.0.0", fw.DigestOf([]byte("factory")), 0)
	d.connect(nil)
	return d, nil
}

// connect gives the device a connection of its own, with its certificate when
// it has one.
func (d *Device) connect(chain [][]byte) {
	cfg := &tls.Config{RootCAs: d.roots, MinVersion: tls.VersionTLS13}
	if chain != nil {
		cfg.Certificates = []tls.Certificate{{Certificate: chain, PrivateKey: d.Key, Leaf: d.Leaf}}
	}
	d.client = &http.Client{
		Transport: &http.Transport{TLSClientConfig: cfg, MaxIdleConnsPerHost: 1, IdleConnTimeout: 10 * time.Minute},
		Timeout:   2 * time.Minute,
	}
}

// Close drops the device's connection.
func (d *Device) Close() { d.client.CloseIdleConnections() }

// CSR returns a certificate request for the device's key.
func (d *Device) CSR() ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: string(d.ID)}}, d.Key)
}

// Enrol redeems a one-time token.
func (d *Device) Enrol(ctx context.Context, token string) error {
	csr, err := d.CSR()
	if err != nil {
		return fmt.Errorf("making a certificate request: %w", err)
	}
	var reply struct {
		Certificates [][]byte `json:"certificates"`
	}
	body, err := json.Marshal(map[string]any{"token": token, "csr": csr})
	if err != nil {
		return err
	}
	b, err := d.post(ctx, "/device/v1/enroll", "application/json", body)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &reply); err != nil || len(reply.Certificates) == 0 {
		return fmt.Errorf("reading the enrolment reply: %w", err)
	}
	if d.Leaf, err = x509.ParseCertificate(reply.Certificates[0]); err != nil {
		return fmt.Errorf("reading the certificate: %w", err)
	}
	d.client.CloseIdleConnections()
	d.connect(reply.Certificates)
	return nil
}

// Run sets what the device says it runs.
func (d *Device) Run(version string, digest fw.Digest, counter uint64) {
	d.facts = authz.Facts{Hardware: d.Hardware, Components: []authz.ReportedComponent{{Name: fw.MainComponent, Version: version, Digest: digest, SecurityCounter: counter}}, TrustVersion: 1}
}

// Nonce returns a fresh nonce.
func Nonce() authz.Nonce {
	var n authz.Nonce
	rand.Read(n[:]) // never fails
	return n
}

// CheckIn checks in with a nonce.
func (d *Device) CheckIn(ctx context.Context, nonce authz.Nonce) (authz.CheckInReply, error) {
	body, err := authz.EncodeCheckIn(authz.CheckIn{Nonce: nonce, Facts: d.facts})
	if err != nil {
		return authz.CheckInReply{}, err
	}
	b, err := d.post(ctx, "/device/v1/check-in", "application/cbor", body)
	if err != nil {
		return authz.CheckInReply{}, err
	}
	return authz.DecodeCheckInReply(b)
}

// Report says that event happened in the update of authorization a, with what
// the device runs now.
func (d *Device) Report(ctx context.Context, a *authz.Authorization, event fw.ReportEvent, reason fw.Reason) error {
	signed, err := d.SignedReport(a, event, reason)
	if err != nil {
		return err
	}
	return d.SendReport(ctx, signed)
}

// SignedReport signs the next report.
func (d *Device) SignedReport(a *authz.Authorization, event fw.ReportEvent, reason fw.Reason) ([]byte, error) {
	d.seq++
	r := authz.Report{Device: d.ID, Sequence: d.seq, Boot: authz.BootID{1}, Event: event, Reason: reason, Components: d.facts.Components}
	if a != nil {
		r.Authorization, r.Update = a.Claims.ID, a.Claims.Update
	}
	return authz.SignReport(r, d.Key)
}

// SendReport posts a signed report.
func (d *Device) SendReport(ctx context.Context, signed []byte) error {
	_, err := d.post(ctx, "/device/v1/report", "application/cose", signed)
	return err
}

// Download gets an artifact of at most 1 MiB.
func (d *Device) Download(ctx context.Context, a fw.Digest) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url+"/device/v1/artifacts/"+a.String(), nil)
	if err != nil {
		return nil, err
	}
	return d.do(req)
}

// maxAnswer bounds an answer in bytes.
const maxAnswer = 1 << 20

func (d *Device) post(ctx context.Context, path, media string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", media)
	return d.do(req)
}

func (d *Device) do(req *http.Request) ([]byte, error) {
	res, err := d.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if res.StatusCode/100 != 2 {
		e := &StatusError{Status: res.StatusCode, RetryAfter: res.Header.Get("Retry-After")}
		if json.Unmarshal(b, e) != nil {
			e.Detail = string(b[:min(len(b), 200)])
		}
		return nil, e
	}
	return b, nil
}
