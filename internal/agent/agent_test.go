package agent

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/fw"
)

var wholeUpdate = []fw.ReportEvent{fw.EventDelivered, fw.EventInstalled, fw.EventConfirmed}

func TestUpdateIsInstalledConfirmedAndReported(t *testing.T) {
	p := newPeer(t)
	dir, factory := p.enrol(nil)
	v2 := p.firmware("1.1.0", 4, randomBytes(300_000))
	p.target = v2
	p.await(dir, "confirmation", p.reported(fw.EventConfirmed))
	runs(t, dir, slotB, v2)
	if diff := cmp.Diff(wholeUpdate, p.events()); diff != "" {
		t.Error(diff)
	}
	for i, r := range p.reports {
		want := authz.ReportedComponent{Name: "main", Version: "1.1.0", Digest: v2.Digest, SecurityCounter: 4, Slot: "b"}
		if i == 0 {
			want = authz.ReportedComponent{Name: "main", Version: "1.0.0", Digest: factory.Digest, SecurityCounter: 3, Slot: "a"}
		}
		if diff := cmp.Diff([]authz.ReportedComponent{want}, r.Components); diff != "" {
			t.Errorf("report %d: %s", i, diff)
		}
		if r.Sequence != uint64(i+1) || r.Authorization != p.open.ID || r.Nonce != p.open.Nonce {
			t.Errorf("report %d is %+v", i, r)
		}
	}
	if p.reports[0].Boot == p.reports[1].Boot || p.reports[1].Boot != p.reports[2].Boot {
		t.Error("installed and confirmed must come from the start after the one that delivered")
	}
	s, err := ReadStatus(dir)
	if err != nil || s.Update != nil || s.SecurityFloor != 4 || s.LastSequence != 1 || s.Version != "1.1.0" || s.Product != "gateway" {
		t.Errorf("status %+v, %v", s, err)
	}
}

func TestSecondUpdateGoesBackToTheFirstSlot(t *testing.T) {
	p := newPeer(t)
	dir, _ := p.enrol(nil)
	v2, v3 := p.firmware("1.1.0", 4, randomBytes(1000)), p.firmware("1.2.0", 5, randomBytes(1000))
	p.target = v2
	stop := start(t, dir)
	defer stop()
	p.until("first confirmation", p.reported(fw.EventConfirmed))
	p.set(func() { p.target = v3 })
	p.until("second confirmation", func() bool { return len(p.events()) == 6 && p.last().Event == fw.EventConfirmed })
	runs(t, dir, slotA, v3)
}

func TestFailedHealthCheckFallsBack(t *testing.T) {
	p := newPeer(t)
	dir, factory := p.enrol(func(c *Config) { c.Hooks.Health = shell(`! grep -q BROKEN "$1"`) })
	p.target = p.firmware("1.1.0", 4, []byte("this is BROKEN"))
	p.await(dir, "failure", p.reported(fw.EventFailed))
	runs(t, dir, slotA, factory)
	r := p.reports[2]
	if r.Event != fw.EventFailed || r.Reason != fw.FailHealth || r.Components[0].Digest != factory.Digest || r.Boot == p.reports[1].Boot {
		t.Errorf("report %+v; want a failed health check, told by the old slot after a restart", r)
	}
	if s, err := ReadStatus(dir); err != nil || s.SecurityFloor != 0 {
		t.Errorf("status %+v, %v: an image that was not confirmed must not raise the floor", s, err)
	}
}

func TestFailures(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Config)
		faults func(*peer)
		want   fw.Reason
	}{
		{"install hook", func(c *Config) { c.Hooks.Install = shell("echo no; exit 1") }, nil, fw.FailInstall},
		{"activate hook", func(c *Config) { c.Hooks.Activate = shell("exit 1") }, nil, fw.FailActivate},
		{"health hook hangs", func(c *Config) {
			c.Hooks.Health, c.Hooks.Timeout = shell("sleep 60"), Duration(50*time.Millisecond)
		}, nil, fw.FailHealth},
		{"download never gets further", func(c *Config) { c.Downloads = 3 }, func(p *peer) {
			p.serve = func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
				problem(w, http.StatusNotFound, "not_found")
				return true
			}
		}, fw.FailDownload},
		{"download stalls", func(c *Config) { c.Downloads, c.Stall = 2, Duration(30*time.Millisecond) }, func(p *peer) {
			p.serve = func(w http.ResponseWriter, r *http.Request, content []byte) bool {
				w.Header().Set("Content-Length", "1000")
				_, _ = w.Write(content[:10])
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
				return true
			}
		}, fw.FailDownload},
		{"authorization runs out", func(c *Config) { c.Hooks.Install = shell("sleep 1.2") }, func(p *peer) {
			p.claims = func(c *authz.Claims) { c.Expires = c.IssuedAt + 1 }
		}, fw.FailExpired},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPeer(t)
			dir, factory := p.enrol(c.change)
			p.target = p.firmware("1.1.0", 4, randomBytes(1000))
			if c.faults != nil {
				c.faults(p)
			}
			p.await(dir, "failure", p.reported(fw.EventFailed))
			i := slices.Index(p.events(), fw.EventFailed)
			if r := p.reports[i]; r.Reason != c.want || r.Authorization == "" || r.Components[0].Digest != factory.Digest {
				t.Errorf("report %+v; want reason %s", r, c.want)
			}
			runs(t, dir, slotA, factory)
		})
	}
}

// A pause of the campaign is no failure of the device: it drops the update,
// says nothing, and takes up the rest of the download when it may again.
func TestWithdrawnUpdateIsDroppedWithoutAReport(t *testing.T) {
	p := newPeer(t)
	dir, _ := p.enrol(nil)
	v2 := p.firmware("1.1.0", 4, randomBytes(500_000))
	p.target = v2
	var ranges []string
	p.serve = func(w http.ResponseWriter, r *http.Request, content []byte) bool {
		n := 0
		p.set(func() { ranges, n = append(ranges, r.Header.Get("Range")), len(ranges) })
		switch n {
		case 0:
			http.ServeContent(&cutting{ResponseWriter: w, left: 150_000}, r, "", time.Time{}, bytes.NewReader(content))
		case 1:
			p.set(func() { p.closed = true })
			problem(w, http.StatusConflict, "conflict")
		default:
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
		}
		return true
	}
	p.await(dir, "confirmation", p.reported(fw.EventConfirmed))
	runs(t, dir, slotB, v2)
	if diff := cmp.Diff(wholeUpdate, p.events()); diff != "" {
		t.Error(diff)
	}
	if len(ranges) != 3 || ranges[1] == "" || ranges[2] != ranges[1] || p.sequence != 2 {
		t.Errorf("ranges %q under %d authorizations: want the rest of the download under the second", ranges, p.sequence)
	}
}

func TestInterruptedDownloadIsResumed(t *testing.T) {
	p := newPeer(t)
	dir, _ := p.enrol(nil)
	v2 := p.firmware("1.1.0", 4, randomBytes(500_000))
	p.target = v2
	var ranges []string
	p.serve = func(w http.ResponseWriter, r *http.Request, content []byte) bool {
		p.set(func() { ranges = append(ranges, r.Header.Get("Range")) })
		http.ServeContent(&cutting{ResponseWriter: w, left: 150_000}, r, "", time.Time{}, bytes.NewReader(content))
		return true
	}
	p.await(dir, "confirmation", p.reported(fw.EventConfirmed))
	runs(t, dir, slotB, v2)
	if len(ranges) < 4 || ranges[0] != "" || ranges[1] == "" {
		t.Errorf("ranges %q: the download was not resumed", ranges)
	}
}

// cutting breaks the connection after some bytes.
type cutting struct {
	http.ResponseWriter
	left int
}

func (c *cutting) Write(b []byte) (int, error) {
	if len(b) > c.left {
		_, _ = c.ResponseWriter.Write(b[:c.left])
		_ = http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	c.left -= len(b)
	return c.ResponseWriter.Write(b)
}

// A partial file that a loss of power damaged is no attack.
func TestDamagedPartialFileIsDownloadedAnew(t *testing.T) {
	p := newPeer(t)
	dir, _ := p.enrol(nil)
	v2 := p.firmware("1.1.0", 4, randomBytes(1000))
	part := filepath.Join(dir, slotB.dir(), partFile(v2.Component))
	if err := errors.Join(os.MkdirAll(filepath.Dir(part), 0o700), os.WriteFile(part, make([]byte, 300), 0o600)); err != nil {
		t.Fatal(err)
	}
	p.target = v2
	p.await(dir, "confirmation", p.reported(fw.EventConfirmed))
	runs(t, dir, slotB, v2)
	if diff := cmp.Diff(wholeUpdate, p.events()); diff != "" {
		t.Error(diff)
	}
}

func TestDroppedFirmwareIsRefusedAndReported(t *testing.T) {
	p := newPeer(t)
	dir, factory := p.enrol(nil)
	v2 := p.firmware("1.1.0", 4, []byte("well signed, not authorized"))
	file := filepath.Join(t.TempDir(), "v2.bin")
	if err := os.WriteFile(file, v2.content, 0o600); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	if code := Main(t.Context(), []string{"install", file, "--dir", dir}, io.Discard, &stderr); code != ExitRefused {
		t.Errorf("exit code %d, %s", code, &stderr)
	}
	if r := p.last(); r.Event != fw.EventRejected || r.Reason != fw.RejectNoAuthorization || !strings.Contains(r.Detail, v2.Digest.String()) {
		t.Errorf("report %+v", r)
	}
	runs(t, dir, slotA, factory)
	// The running agent takes it from there.
	stop := start(t, dir)
	defer stop()
	p.until("a check-in", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return len(p.checkIns) > 0 })
	if err := Drop(t.Context(), dir, file, testLog(t)); fw.KindOf(err) != fw.Forbidden {
		t.Errorf("Drop = %v", err)
	}
	p.until("second report", func() bool { return len(p.events()) == 2 })
}

func TestRenewalUsesANewKeyAndKeepsTheOldUntilItIsConfirmed(t *testing.T) {
	p := newPeer(t)
	dir, _ := p.enrol(nil)
	before := must(os.ReadFile(filepath.Join(dir, "key.pem")))
	var asked atomic.Bool
	p.reply = func(r *authz.CheckInReply) {
		if asked.CompareAndSwap(false, true) {
			r.Action = authz.ActionRenew
		}
	}
	keys := func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(slices.Compact(slices.Clone(p.subjects)))
	}
	stop := start(t, dir)
	p.until("check-in under the new key", func() bool { return keys() == 2 })
	p.set(func() { p.target = p.firmwareLocked() })
	p.until("confirmation under the new key", p.reported(fw.EventConfirmed))
	stop()
	if bytes.Equal(before, must(os.ReadFile(filepath.Join(dir, "key.pem")))) || exists(filepath.Join(dir, nextID+"key.pem")) {
		t.Error("the new key did not replace the old one")
	}
	if len(p.errs) > 0 {
		t.Error(p.errs)
	}
}

// firmwareLocked makes firmware while p.mu is held.
func (p *peer) firmwareLocked() *firmware {
	p.mu.Unlock()
	defer p.mu.Lock()
	return p.firmware("1.1.0", 4, randomBytes(1000))
}

func TestRefusedNewCertificateLeavesTheOldOne(t *testing.T) {
	p := newPeer(t)
	dir, _ := p.enrol(nil)
	old := must(loadIdentity(dir, currentID)).thumbprint.Hex()
	var asked atomic.Bool
	p.reply = func(r *authz.CheckInReply) {
		if asked.CompareAndSwap(false, true) {
			r.Action = authz.ActionRenew
		}
	}
	var refused atomic.Int32
	p.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if len(r.TLS.PeerCertificates) > 0 && must(authz.Thumbprint(r.TLS.PeerCertificates[0].PublicKey)).Hex() != old {
			refused.Add(1)
			problem(w, http.StatusForbidden, "forbidden")
			return true
		}
		return false
	}
	p.await(dir, "check-in under the old key after the new one was refused", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return refused.Load() > 0 && len(p.checkIns) > 1
	})
	if must(loadIdentity(dir, currentID)).thumbprint.Hex() != old {
		t.Error("the old identity is gone")
	}
}

func TestInterruptedAdoptionIsFinished(t *testing.T) {
	p := newPeer(t)
	dir, _ := p.enrol(nil)
	key := must(ensureKey(dir, nextID))
	csr := must(request(key, "SN-0001"))
	var reply certificates
	pool := x509.NewCertPool()
	pool.AddCert(p.ca)
	if err := newClient(p.srv.URL, pool, nil).postJSON(t.Context(), pathRenew, renewRequest{CSR: csr}, &reply); err != nil {
		t.Fatal(err)
	}
	must(storeChain(dir, nextID, key, reply.Certificates))
	if err := rename(filepath.Join(dir, nextID+"key.pem"), filepath.Join(dir, "key.pem")); err != nil {
		t.Fatal(err)
	}
	id, err := recoverIdentity(dir)
	if err != nil || !id.key.Equal(key) {
		t.Errorf("recovered %v, %v", id, err)
	}
}

func TestNewerTrustBundleIsAcceptedAndAForgedOneReportedOnce(t *testing.T) {
	p := newPeer(t)
	dir, _ := p.enrol(nil)
	stop := start(t, dir)
	p.set(func() {
		p.authz = newKey() // the new bundle has it, the old one has not
		p.trust = must(authz.Accept(p.trust, must(authz.SignTrust(p.document().Next(p.trust), p.root))))
	})
	p.until("trust bundle 2", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.checkIns) > 0 && p.checkIns[len(p.checkIns)-1].TrustVersion == 2
	})
	p.set(func() { p.target = p.firmwareLocked() })
	p.until("confirmation under the new key", p.reported(fw.EventConfirmed))
	p.set(func() {
		thief := newKey()
		doc := p.document()
		doc.Roots.Keys = []authz.TrustKey{trustKey(thief)}
		p.trust = must(authz.OpenTrust(must(authz.SignTrust(doc.Next(p.trust), thief))))
	})
	p.until("rejection", p.reported(fw.EventRejected))
	var n int
	p.set(func() { n = len(p.checkIns) })
	p.until("more check-ins", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return len(p.checkIns) > n+3 })
	stop()
	if r := p.last(); r.Reason != fw.RejectTrustBundle || len(p.events()) != 4 {
		t.Errorf("reports %v, last %+v", p.events(), r)
	}
}

func TestDecommissionedDeviceStopsForGood(t *testing.T) {
	p := newPeer(t)
	dir, _ := p.enrol(nil)
	p.reply = func(r *authz.CheckInReply) { r.Action = authz.ActionDecommission }
	for range 2 {
		if err := Run(t.Context(), dir, testLog(t)); !errors.Is(err, errDecommissioned) {
			t.Errorf("Run = %v", err)
		}
	}
	if len(p.checkIns) != 1 {
		t.Errorf("%d check-ins", len(p.checkIns))
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	a := &Agent{cfg: Config{Poll: Duration(time.Millisecond)}}
	r := &refusal{status: http.StatusServiceUnavailable, after: retryAfter("7")}
	if d := a.backoff(0, r); d < 7*time.Second || d > 8*time.Second {
		t.Errorf("waits %s, asked for 7s", d)
	}
	a.cfg = Config{}
	for i, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		if d := a.backoff(i, io.EOF); d < want/2 || d > want {
			t.Errorf("after %d failures waits %s", i, d)
		}
	}
	if d := a.backoff(1000, io.EOF); d > maxBackoff || d < maxBackoff/2 {
		t.Errorf("waits %s", d)
	}
}

// A server in trouble is asked again with the same nonce, and what it then
// answers counts.
func TestNonceIsKeptUntilAnswered(t *testing.T) {
	p := newPeer(t)
	dir, _ := p.enrol(nil)
	var n atomic.Int32
	var seen []authz.Nonce
	p.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != pathCheckIn || n.Add(1) > 3 {
			return false
		}
		b := must(io.ReadAll(r.Body))
		nonce, _, _ := authz.PeekCheckIn(b)
		seen = append(seen, nonce)
		problem(w, http.StatusServiceUnavailable, "unavailable")
		return true
	}
	p.await(dir, "check-in", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return len(p.checkIns) > 1 })
	if seen[0] != seen[1] || seen[1] != seen[2] || p.checkIns[0].Nonce != seen[0] || p.checkIns[1].Nonce == seen[0] {
		t.Errorf("nonces %v, then %v", seen, p.checkIns[:2])
	}
}

// A device whose state was restored from a backup must not lose its reports.
func TestTakenReportNumbersAreJumpedOver(t *testing.T) {
	p := newPeer(t)
	dir, _ := p.enrol(nil)
	for i := range 9 {
		p.reports = append(p.reports, authz.Report{Sequence: uint64(i + 1)})
		p.wires = append(p.wires, nil)
	}
	p.target = p.firmware("1.1.0", 4, randomBytes(1000))
	p.await(dir, "confirmation", p.reported(fw.EventConfirmed))
	if diff := cmp.Diff(wholeUpdate, p.events()[9:]); diff != "" {
		t.Error(diff)
	}
}

func TestEnrolIsRepeatable(t *testing.T) {
	p := newPeer(t)
	dir := t.TempDir()
	c := Config{Server: p.srv.URL, Device: "SN-1", Hardware: "gw-2", ServerCA: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.ca.Raw}))}
	e := Enrolment{Config: c, Token: "wrong", Trust: p.trust.Envelope()}
	if err := Enrol(t.Context(), dir, e); err == nil {
		t.Fatal("enrolled with a wrong token")
	}
	key := must(os.ReadFile(filepath.Join(dir, "key.pem")))
	e.Token = "token"
	for range 2 {
		if err := Enrol(t.Context(), dir, e); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(key, must(os.ReadFile(filepath.Join(dir, "key.pem")))) {
		t.Error("the key was made anew")
	}
	if fi := must(os.Stat(filepath.Join(dir, "key.pem"))); fi.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %v", fi.Mode())
	}
	if cfg := must(LoadConfig(dir)); cfg.Product != "gateway" {
		t.Errorf("product %q", cfg.Product)
	}
}

func TestEnrolBelievesOnlyKnownRoots(t *testing.T) {
	p := newPeer(t)
	c := Config{Server: p.srv.URL, Device: "SN-1", Hardware: "gw-2", ServerCA: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.ca.Raw}))}
	rootPEM := func(k authz.TrustKey) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.PublicKey})
	}
	if err := Enrol(t.Context(), t.TempDir(), Enrolment{Config: c, Token: "token", Roots: rootPEM(trustKey(p.root))}); err != nil {
		t.Error(err)
	}
	if err := Enrol(t.Context(), t.TempDir(), Enrolment{Config: c, Token: "token", Roots: rootPEM(trustKey(newKey()))}); fw.KindOf(err) != fw.Forbidden {
		t.Errorf("with another root: %v", err)
	}
	if err := Enrol(t.Context(), t.TempDir(), Enrolment{Config: c, Token: "token"}); fw.KindOf(err) != fw.Invalid {
		t.Errorf("with no root: %v", err)
	}
}
