package agent

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/image"
	"github.com/writ-project/writ/internal/image/raw"
	"github.com/writ-project/writ/internal/pki"
	"github.com/writ-project/writ/internal/tlog"
)

// peer is the other end of the protocol, for attacks and faults no honest
// server makes. It signs with the real code and keys of its own.
type peer struct {
	t   *testing.T
	srv *httptest.Server

	root, authz, log, image ed25519.PrivateKey
	caKey                   *ecdsa.PrivateKey
	ca                      *x509.Certificate
	trust                   *authz.TrustBundle

	mu        sync.Mutex
	edge      tlog.Edge
	artifacts map[fw.Digest][]byte
	target    *firmware // nil: nothing to install
	sequence  uint64
	open      authz.Claims // of the last authorization
	sent      []byte
	closed    bool // the last authorization's update has ended
	checkIns  []authz.CheckIn
	reports   []authz.Report
	wires     [][]byte
	subjects  []string // common names and key thumbprints that checked in
	errs      []string

	// Faults.
	claims  func(*authz.Claims)
	message func([]byte) []byte
	reply   func(*authz.CheckInReply)
	serve   func(w http.ResponseWriter, r *http.Request, content []byte) bool // true: handled
	answer  func(w http.ResponseWriter, r *http.Request) bool                 // true: handled
}

// firmware is a signed raw image.
type firmware struct {
	authz.Component
	content, envelope []byte
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newKey() ed25519.PrivateKey { _, k, _ := ed25519.GenerateKey(rand.Reader); return k }

func newPeer(t *testing.T) *peer {
	t.Helper()
	p := &peer{
		t: t, root: newKey(), authz: newKey(), log: newKey(), image: newKey(),
		caKey: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), artifacts: map[fw.Digest][]byte{},
	}
	template := must(pki.NewCATemplate("test CA", p.caKey.Public(), 0, time.Now()))
	p.ca = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, template, template, p.caKey.Public(), p.caKey))))
	p.trust = must(authz.OpenTrust(must(authz.SignTrust(p.document().Next(nil), p.root))))
	for range 300 { // more than a tile
		p.edge.Append(randomBytes(32))
	}
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	serverTemplate := must(pki.ServerTemplate(key.Public(), pki.ServerProfile{}, []string{"127.0.0.1"}, time.Now()))
	der := must(x509.CreateCertificate(rand.Reader, serverTemplate, p.ca, key.Public(), p.caKey))
	roots := x509.NewCertPool()
	roots.AddCert(p.ca)
	p.srv = httptest.NewUnstartedServer(http.HandlerFunc(p.handle))
	p.srv.TLS = &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: roots,
	}
	p.srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	p.srv.StartTLS()
	t.Cleanup(p.srv.Close)
	return p
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func trustKey(k ed25519.PrivateKey) authz.TrustKey { return must(authz.NewTrustKey(k.Public())) }

func (p *peer) document() authz.TrustDocument {
	return authz.TrustDocument{
		CreatedAt: time.Now().Unix(), Roots: authz.Roots{Threshold: 1, Keys: []authz.TrustKey{trustKey(p.root)}},
		AuthorizationKeys: []authz.TrustKey{trustKey(p.authz)}, ImageKeys: []authz.TrustKey{trustKey(p.image)},
		LogKeys: []authz.LogKey{{Origin: "test/log", TrustKey: trustKey(p.log)}}, TLSAnchors: [][]byte{p.ca.Raw},
	}
}

// firmware signs content as a raw image and serves it.
func (p *peer) firmware(version string, counter uint64, content []byte) *firmware {
	return p.signed(p.image, version, counter, content, "gw-2")
}

func (p *peer) signed(key ed25519.PrivateKey, version string, counter uint64, content []byte, hardware string) *firmware {
	res := must(raw.Format{}.Sign(p.t.Context(), io.Discard, bytes.NewReader(content), int64(len(content)), key,
		image.SignOptions{Version: version, SecurityCounter: &counter, Hardware: []string{hardware}}))
	f := &firmware{content: content, envelope: res.Envelope, Component: authz.Component{
		Name: "main", Release: fw.ReleaseID(fw.NewID("rel", time.Now())), Version: version, Digest: res.SHA256, Size: res.Size,
		Format: "raw", SecurityCounter: counter, Envelope: fw.DigestOf(res.Envelope),
	}}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.artifacts[f.Digest], p.artifacts[f.Envelope] = content, f.envelope
	return f
}

func (p *peer) handle(w http.ResponseWriter, r *http.Request) {
	if p.answer != nil && p.answer(w, r) {
		return
	}
	if r.URL.Path == pathEnrol || r.URL.Path == pathRenew {
		p.issue(w, r)
		return
	}
	if len(r.TLS.PeerCertificates) == 0 {
		problem(w, http.StatusUnauthorized, "unauthenticated")
		return
	}
	switch {
	case r.URL.Path == pathCheckIn:
		p.checkIn(w, r)
	case r.URL.Path == pathReport:
		p.report(w, r)
	case strings.HasPrefix(r.URL.Path, pathArtifact):
		p.artifact(w, r)
	default:
		problem(w, http.StatusNotFound, "not_found")
	}
}

func problem(w http.ResponseWriter, status int, kind string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `{"kind":"`+kind+`","detail":"test"}`)
}

func (p *peer) issue(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Token string `json:"token"`
		CSR   []byte `json:"csr"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || r.URL.Path == pathEnrol && in.Token != "token" {
		problem(w, http.StatusForbidden, "forbidden")
		return
	}
	csr, err := pki.ParseCSR(in.CSR)
	if err != nil {
		problem(w, http.StatusBadRequest, "invalid")
		return
	}
	template := must(pki.DeviceTemplate(csr, pki.DeviceProfile{}, "gateway", fw.DeviceID(csr.CommonName), time.Now()))
	der := must(x509.CreateCertificate(rand.Reader, template, p.ca, csr.PublicKey, p.caKey))
	_ = json.NewEncoder(w).Encode(map[string]any{"certificates": [][]byte{der, p.ca.Raw}, "trust_bundle": p.trust.Envelope(), "server_time": time.Now().Unix()})
}

func (p *peer) checkIn(w http.ResponseWriter, r *http.Request) {
	in, err := authz.DecodeCheckIn(must(io.ReadAll(r.Body)))
	if err != nil {
		p.fail("check-in: " + err.Error())
		problem(w, http.StatusBadRequest, "invalid")
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	leaf := r.TLS.PeerCertificates[0]
	p.checkIns = append(p.checkIns, in)
	p.subjects = append(p.subjects, leaf.Subject.CommonName+" "+must(authz.Thumbprint(leaf.PublicKey)).Hex())
	reply := authz.CheckInReply{ServerTime: time.Now().Unix(), NextCheckIn: 1, Action: authz.ActionNone}
	if in.TrustVersion < p.trust.Version() {
		reply.TrustBundle = p.trust.Envelope()
	}
	if p.target != nil && p.target.Digest != in.Components[0].Digest {
		if p.sent != nil && !p.closed {
			if p.open.Nonce == in.Nonce {
				p.offer(&reply)
			}
		} else {
			p.authorize(in, leaf)
			p.offer(&reply)
		}
	}
	if p.reply != nil {
		p.reply(&reply)
	}
	_, _ = w.Write(must(authz.EncodeCheckInReply(reply)))
}

func (p *peer) offer(reply *authz.CheckInReply) {
	reply.Action, reply.Authorization = authz.ActionUpdate, p.sent
	c := p.target.Component
	reply.Artifacts = []authz.Artifact{
		{Digest: c.Digest, Size: c.Size, Path: pathArtifact + c.Digest.String(), Component: "main", Kind: authz.ArtifactImage},
		{Digest: fw.DigestOf(p.target.envelope), Size: int64(len(p.target.envelope)), Path: pathArtifact + fw.DigestOf(p.target.envelope).String(), Component: "main", Kind: authz.ArtifactEnvelope},
	}
}

// authorize signs what p.target is for the device that asks, with a receipt
// of the log.
func (p *peer) authorize(in authz.CheckIn, leaf *x509.Certificate) {
	p.sequence++
	component := p.target.Component
	component.From = in.Components[0].Digest
	now := time.Now().Unix()
	commitment := fw.Digest(randomBytes(32))
	c := authz.Claims{
		Issuer: "test", Device: fw.DeviceID(leaf.Subject.CommonName), IssuedAt: now, NotBefore: now, Expires: now + 3600,
		ID: fw.AuthorizationID(fw.NewID("aut", time.Now())), Thumbprint: must(authz.Thumbprint(leaf.PublicKey)), Nonce: in.Nonce, Sequence: p.sequence,
		Campaign: "cmp_test", Update: "upd_test", Hardware: in.Hardware, Plan: fw.DigestOf([]byte("plan")),
		Manifest: fw.DigestOf([]byte("manifest")), Published: fw.DigestOf([]byte("publication")), Components: []authz.Component{component},
		Decision: uint64(p.edge.Size()), Commitment: commitment,
	}
	p.edge.Append(commitment[:])
	if p.claims != nil {
		p.claims(&c)
	}
	p.open = c
	msg := must(authz.Sign(must(authz.Encode(c)), p.authz))
	msg = must(authz.AttachReceipt(msg, p.receipt(int64(c.Decision), p.log)))
	if p.message != nil {
		msg = p.message(msg)
	}
	p.sent, p.closed = msg, false
}

func (p *peer) receipt(index int64, key ed25519.PrivateKey) []byte {
	full := p.edge // tiles are not kept, so the first is not readable
	r := tlog.NewReader(&full, tlog.NewCache(4, func(int, int64) ([]byte, error) { return nil, errors.New("no tiles") }))
	path := must(r.Inclusion(index, r.Size()))
	rs := must(tlog.SignRoot(full.Root(), ed25519.PublicKey(key[32:]), func(b []byte) ([]byte, error) { return ed25519.Sign(key, b), nil }))
	return must(tlog.Receipt(rs, r.Size(), index, path))
}

func (p *peer) report(w http.ResponseWriter, r *http.Request) {
	body := must(io.ReadAll(r.Body))
	rep, err := authz.VerifyReport(body, r.TLS.PeerCertificates[0].PublicKey)
	if err != nil {
		p.fail("report: " + err.Error())
		problem(w, http.StatusBadRequest, "invalid")
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, old := range p.reports {
		if old.Sequence != rep.Sequence {
			continue
		}
		if !bytes.Equal(p.wires[i], body) {
			problem(w, http.StatusConflict, "conflict")
			return
		}
		_, _ = io.WriteString(w, `{"recorded":true,"duplicate":true,"index":1}`)
		return
	}
	p.reports, p.wires = append(p.reports, rep), append(p.wires, body)
	if rep.Event == fw.EventConfirmed || rep.Event == fw.EventFailed || rep.Event == fw.EventRejected {
		p.closed = true
	}
	_, _ = io.WriteString(w, `{"recorded":true,"duplicate":false,"index":1,"state":"x"}`)
}

func (p *peer) artifact(w http.ResponseWriter, r *http.Request) {
	d, err := fw.ParseDigest(strings.TrimPrefix(r.URL.Path, pathArtifact))
	p.mu.Lock()
	content, ok := p.artifacts[d]
	p.mu.Unlock()
	if err != nil || !ok {
		problem(w, http.StatusNotFound, "not_found")
		return
	}
	if p.serve != nil && (p.target == nil || d == p.target.Digest) && p.serve(w, r, content) {
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
}

func (p *peer) fail(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.errs = append(p.errs, s)
}

// set changes the peer under its lock.
func (p *peer) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

func (p *peer) events() []fw.ReportEvent {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []fw.ReportEvent
	for _, r := range p.reports {
		out = append(out, r.Event)
	}
	return out
}

func (p *peer) last() authz.Report {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.reports) == 0 {
		return authz.Report{}
	}
	return p.reports[len(p.reports)-1]
}

// enrol makes a device that runs version 1.0.0.
func (p *peer) enrol(change func(*Config)) (dir string, factory *firmware) {
	p.t.Helper()
	factory = p.firmware("1.0.0", 3, []byte("factory firmware 1.0.0"))
	dir = p.t.TempDir()
	files := p.t.TempDir()
	img, env := filepath.Join(files, "image"), filepath.Join(files, "envelope")
	if err := errors.Join(os.WriteFile(img, factory.content, 0o600), os.WriteFile(env, factory.envelope, 0o600)); err != nil {
		p.t.Fatal(err)
	}
	c := Config{
		Server: p.srv.URL, Device: "SN-0001", Hardware: "gw-2", Poll: Duration(15 * time.Millisecond), MaxBackoff: Duration(60 * time.Millisecond),
		ServerCA: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.ca.Raw})),
	}
	if change != nil {
		change(&c)
	}
	if err := Enrol(p.t.Context(), dir, Enrolment{Config: c, Token: "token", Trust: p.trust.Envelope(), Image: img, Envelope: env}); err != nil {
		p.t.Fatal(err)
	}
	return dir, factory
}

// start runs the device, over its restarts, until stop.
func start(t *testing.T, dir string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		for {
			err := Run(ctx, dir, testLog(t))
			if !errors.Is(err, ErrRestart) {
				done <- err
				return
			}
		}
	}()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil && !errors.Is(err, errDecommissioned) {
			t.Errorf("agent ended with %v", err)
		}
	}
}

func testLog(t *testing.T) *slog.Logger {
	t.Helper()
	if testing.Verbose() {
		return slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	return slog.New(slog.DiscardHandler)
}

// await runs the device until the peer has seen what it should.
func (p *peer) await(dir, what string, cond func() bool) {
	p.t.Helper()
	stop := start(p.t, dir)
	defer stop()
	p.until(what, cond)
}

func (p *peer) until(what string, cond func() bool) {
	p.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			p.t.Fatalf("%s did not happen; reports: %v, peer errors: %v", what, p.events(), p.errs)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (p *peer) reported(e fw.ReportEvent) func() bool {
	return func() bool { return slices.Contains(p.events(), e) }
}

// runs checks what the next start would run, byte for byte.
func runs(t *testing.T, dir string, want slot, f *firmware) {
	t.Helper()
	on, err := activeSlot(dir)
	if err != nil || on != want {
		t.Errorf("active slot is %q, %v; want %q", on, err, want)
	}
	b, err := os.ReadFile(filepath.Join(dir, want.dir(), imageFile))
	if err != nil || sha256.Sum256(b) != f.Digest {
		t.Errorf("slot %s: image %x, %v; want %s", want, sha256.Sum256(b), err, f.Digest)
	}
}

// contextUntil returns a context that ends when cond is true.
func contextUntil(t *testing.T, cond func() bool) (context.Context, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	go func() {
		for ctx.Err() == nil && !cond() {
			time.Sleep(2 * time.Millisecond)
		}
		cancel()
	}()
	return ctx, cancel
}
