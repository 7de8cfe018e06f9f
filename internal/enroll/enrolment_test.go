package enroll_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writ-project/writ/internal/enroll"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/fwtest"
	"github.com/writ-project/writ/internal/pki"
	"github.com/writ-project/writ/internal/store"
)

func TestBadRequestsAreRefusedAndLeaveTheTokenUsable(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url_ string) {
		w := newWorld(t, url_)
		w.register("gw-1", "gw-2")
		token := w.token("gw-1")
		key := newKey(t)
		good := csr(t, "gw-1", key)
		weak, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		signature := bytes.Clone(good)
		signature[len(signature)-1] ^= 1
		urn := &url.URL{Scheme: "urn", Opaque: "writ:device:gateway:gw-2"}
		size := w.ledger.Head().Size
		for name, c := range map[string]struct {
			csr  []byte
			kind fw.Kind
		}{
			"nothing":         {nil, fw.Invalid},
			"rubbish":         {[]byte("hello"), fw.Invalid},
			"truncated":       {good[:len(good)/2], fw.Invalid},
			"trailing bytes":  {append(bytes.Clone(good), 0), fw.Invalid},
			"oversized":       {make([]byte, 1<<20), fw.TooLarge},
			"wrong signature": {signature, fw.Invalid},
			"RSA":             {csr(t, "gw-1", weak), fw.Invalid},
			"P-521":           {csr(t, "gw-1", p521), fw.Invalid},
			"extra extension": {csr(t, "gw-1", key, func(r *x509.CertificateRequest) {
				r.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}}}
			}), fw.Invalid},
			"a CA": {csr(t, "gw-1", key, func(r *x509.CertificateRequest) {
				r.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: []byte{0x30, 3, 1, 1, 0xff}}}
			}), fw.Forbidden},
			"an IP address": {csr(t, "gw-1", key, func(r *x509.CertificateRequest) { r.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)} }), fw.Forbidden},
			"two common names": {csr(t, "gw-1", key, func(r *x509.CertificateRequest) {
				r.Subject.ExtraNames = []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "gw-1"}, {Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "gw-2"}}
			}), fw.Invalid},
		} {
			_, err := w.enrolment.Enrol(t.Context(), token, c.csr)
			wantKind(t, name, err, c.kind)
		}
		if got := w.ledger.Head().Size; got != size {
			t.Errorf("malformed requests wrote %d records", got-size)
		}
		// Asking for somebody else's name with a token of one's own is put on
		// record, once.
		for range 3 {
			_, err = w.enrolment.Enrol(t.Context(), token, csr(t, "gw-2", key))
			wantKind(t, "foreign subject", err, fw.Forbidden)
			_, err = w.enrolment.Enrol(t.Context(), token, csr(t, "gw-1", key, func(r *x509.CertificateRequest) { r.URIs = []*url.URL{urn} }))
			wantKind(t, "foreign name", err, fw.Forbidden)
		}
		if denied := w.records(evidence.TypeAccessDenied); len(denied) != 1 || payload[evidence.AccessDenied](t, denied[0]).Reason != enroll.ReasonRequest {
			t.Errorf("%d refusals on record", len(denied))
		}
		if d := w.state("gw-1"); d.State != fw.DeviceClaimed {
			t.Errorf("refused and %s", d.State)
		}
		w.enrol(token, good)
		_, ed, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		w.enrol(w.token("gw-2"), csr(t, "gw-2", ed))
		w.verify()
	})
}

func TestStrangersWriteNothing(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		w.register("gw-1")
		token := w.token("gw-1")
		req := csr(t, "gw-1", newKey(t))
		size := w.ledger.Head().Size
		typo := []byte(token)
		typo[len(typo)-1] ^= 'a' ^ 'b'
		other := newWorld(t, fwtest.SQLite(t))
		other.register("gw-1")
		for name, s := range map[string]string{
			"empty": "", "another kind": "writ_abc", "a typing error": string(typo), "cut short": token[:len(token)-2],
			"unknown": other.token("gw-1"), "longer": token + "aaaaaaaa",
		} {
			_, err := w.enrolment.Enrol(t.Context(), s, req)
			wantKind(t, name, err, fw.Unauthenticated)
		}
		_, err := w.enrolment.Renew(t.Context(), fw.DigestOf([]byte("x")), req)
		wantKind(t, "unknown certificate", err, fw.Unauthenticated)
		if got := w.ledger.Head().Size; got != size {
			t.Errorf("strangers wrote %d records", got-size)
		}
		w.enrol(" "+token+"\n", req) // as pasted
	})
}

func TestTheTokenIsKeptByItsHashAndNeverPrinted(t *testing.T) {
	w := newWorld(t, fwtest.SQLite(t))
	w.register("gw-1")
	tok, err := w.enrolment.EnrolmentToken(t.Context(), "gw-1", time.Hour, ann)
	if err != nil {
		t.Fatal(err)
	}
	text := tok.Secret.Reveal()
	if s := fmt.Sprintf("%v %+v %#v %s", tok, tok, tok, tok.Secret); strings.Contains(s, text) {
		t.Errorf("printed: %s", s)
	}
	if s := string(w.records(evidence.TypeEnrolmentToken)[0].Data); strings.Contains(s, text) {
		t.Errorf("in the log: %s", s)
	}
	for _, ttl := range []time.Duration{0, time.Second, enroll.MaxTokenTTL + 1} {
		_, err := w.enrolment.EnrolmentToken(t.Context(), "gw-1", ttl, ann)
		wantKind(t, ttl.String(), err, fw.Invalid)
	}
}

func TestATokenWorksOnceAndForgivesALostReply(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		w.register("gw-1", "gw-2", "gw-3", "gw-4")
		key, token := newKey(t), w.token("gw-1")
		first := w.enrol(token, csr(t, "gw-1", key))
		w.sleep(enroll.RetryWindow)
		if again := w.enrol(token, csr(t, "gw-1", key)); !again.Equal(first) {
			t.Error("a repeated request made another certificate")
		}
		_, err := w.enrolment.Enrol(t.Context(), token, csr(t, "gw-1", newKey(t)))
		wantKind(t, "replayed with another key", err, fw.Conflict)
		w.sleep(time.Second)
		_, err = w.enrolment.Enrol(t.Context(), token, csr(t, "gw-1", key))
		wantKind(t, "replayed later", err, fw.Conflict)

		old := w.token("gw-2")
		newer := w.token("gw-2")
		_, err = w.enrolment.Enrol(t.Context(), old, csr(t, "gw-2", newKey(t)))
		wantKind(t, "replaced", err, fw.Conflict)
		w.sleep(time.Hour)
		_, err = w.enrolment.Enrol(t.Context(), newer, csr(t, "gw-2", newKey(t)))
		wantKind(t, "expired", err, fw.Forbidden)

		_, err = w.enrolment.Enrol(t.Context(), w.token("gw-3"), csr(t, "gw-3", key))
		wantKind(t, "two devices, one key", err, fw.Conflict)

		gone := w.token("gw-4")
		if err := w.move("gw-4", fw.DeviceDecommissioned); err != nil {
			t.Fatal(err)
		}
		_, err = w.enrolment.Enrol(t.Context(), gone, csr(t, "gw-4", newKey(t)))
		wantKind(t, "decommissioned", err, fw.Forbidden)
		_, err = w.enrolment.EnrolmentToken(t.Context(), "gw-4", time.Hour, ann)
		wantKind(t, "a token for a decommissioned device", err, fw.Conflict)

		want := map[fw.DeviceID]fw.Reason{"gw-1": enroll.ReasonTokenUsed, "gw-3": enroll.ReasonKeyInUse, "gw-4": fw.ReasonLifecycle}
		got := make(map[fw.DeviceID]fw.Reason)
		for _, r := range w.records(evidence.TypeAccessDenied) {
			p := payload[evidence.AccessDenied](t, r)
			got[p.Device] = p.Reason
		}
		for id, reason := range want {
			if got[id] != reason {
				t.Errorf("%s was refused for %q on record, want %q", id, got[id], reason)
			}
		}
		if got["gw-2"] == "" {
			t.Error("the refusals of gw-2 are not on record")
		}
		w.verify()
	})
}

func TestRacingEnrolmentsWithOneTokenMakeOneCertificate(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		w.register("gw-1")
		token := w.token("gw-1")
		var wg sync.WaitGroup
		var mu sync.Mutex
		won := 0
		for range 16 {
			req := csr(t, "gw-1", newKey(t))
			wg.Go(func() {
				_, err := w.enrolment.Enrol(context.Background(), token, req)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won++
				} else if fw.KindOf(err) != fw.Conflict {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		rows, err := store.CertificatesOfDevice(w.q(), "gw-1")
		if won != 1 || len(rows) != 1 || err != nil {
			t.Errorf("%d won and there are %d certificates, %v", won, len(rows), err)
		}
		w.verify()
	})
}

func TestADeviceThatLostItsKeyComesBackByAnOperator(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		old := w.enrolled("gw-1")
		w.use(old)
		_, err := w.enrolment.EnrolmentToken(t.Context(), "gw-1", time.Hour, ann)
		wantKind(t, "an ordinary token", err, fw.Conflict)
		w.sleep(life + time.Hour)
		_, err = w.enrolment.Renew(t.Context(), pki.Fingerprint(old), csr(t, "gw-1", newKey(t)))
		wantKind(t, "renewing after the end", err, fw.Forbidden)
		if err := w.move("gw-1", fw.DeviceQuarantined); err != nil {
			t.Fatal(err)
		}
		tok, err := w.enrolment.ReopenEnrolment(t.Context(), "gw-1", time.Hour, ann)
		if err != nil {
			t.Fatal(err)
		}
		fresh := w.enrol(tok.Secret.Reveal(), csr(t, "gw-1", newKey(t)))
		if d := w.state("gw-1"); d.State != fw.DeviceQuarantined {
			t.Errorf("a new certificate made a quarantined device %s", d.State)
		}
		w.use(fresh)
		if s := w.cert(old).State; s != fw.CertSuperseded {
			t.Errorf("the old certificate is %s", s)
		}
		tokens := w.records(evidence.TypeEnrolmentToken)
		if !payload[evidence.EnrolmentToken](t, tokens[len(tokens)-1]).Reopened {
			t.Error("the record does not say that the enrolment was reopened")
		}
		w.verify()
	})
}

// A key whose reports nobody reads gets no certificate, neither the first nor
// a later one, and the device maker learns which keys do.
func TestAKeyThatCannotReportGetsNoCertificate(t *testing.T) {
	w := newWorld(t, fwtest.SQLite(t))
	w.register("gw-1")
	token := w.token("gw-1")
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	bad := csr(t, "gw-1", p384)
	refused := func(what string, err error) {
		t.Helper()
		wantKind(t, what, err, fw.Invalid)
		for _, word := range []string{"P-384", "P-256", "Ed25519"} {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %q does not name %s", what, err, word)
			}
		}
	}
	_, err = w.enrolment.Enrol(t.Context(), token, bad)
	refused("enrolment", err)
	c := w.enrol(token, csr(t, "gw-1", newKey(t)))
	_, err = w.enrolment.Renew(t.Context(), pki.Fingerprint(c), bad)
	refused("renewal", err)
	w.verify()
}

func TestRenewalsAreRepeatableAndBounded(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		c := w.enrolled("gw-1")
		key := newKey(t)
		renew := func() (*x509.Certificate, error) {
			chain, err := w.enrolment.Renew(t.Context(), pki.Fingerprint(c), csr(t, "gw-1", key))
			if err != nil {
				return nil, err
			}
			return w.leaf(chain), nil
		}
		one, err := renew()
		if err != nil {
			t.Fatal(err)
		}
		if s := w.cert(c).State; s != fw.CertActive {
			t.Errorf("a certificate that renewed is %s, so it is not known to have been used", s)
		}
		if two, err := renew(); err != nil || !two.Equal(one) {
			t.Errorf("a repeated renewal made another certificate: %v", err)
		}
		w.enrolled("gw-2")
		stolen := newKey(t)
		w.register("gw-3")
		w.enrol(w.token("gw-3"), csr(t, "gw-3", stolen))
		_, err = w.enrolment.Renew(t.Context(), pki.Fingerprint(c), csr(t, "gw-1", stolen))
		wantKind(t, "a key of another device", err, fw.Conflict)
		_, err = w.enrolment.Renew(t.Context(), pki.Fingerprint(c), csr(t, "gw-2", newKey(t)))
		wantKind(t, "a name of another device", err, fw.Forbidden)
		for range 20 {
			key = newKey(t)
			if _, err = renew(); err != nil {
				break
			}
		}
		wantKind(t, "renewing in a loop", err, fw.TooMany)
		w.verify()
	})
}

func TestTheStatusOfACertificateIsItsStateAndTheClock(t *testing.T) {
	row := func(s fw.CertState) *store.Certificate {
		return &store.Certificate{State: s, NotBefore: 100, NotAfter: 200}
	}
	for _, c := range []struct {
		row  *store.Certificate
		now  int64
		want fw.Reason
	}{
		{nil, 150, fw.ReasonCertificateUnknown},
		{row(""), 150, fw.ReasonCertificateUnknown},
		{row(fw.CertIssued), 150, ""},
		{row(fw.CertActive), 100, ""},
		{row(fw.CertActive), 200, ""},
		{row(fw.CertActive), 99, fw.ReasonCertificateNotYet},
		{row(fw.CertActive), 201, fw.ReasonCertificateExpired},
		{row(fw.CertHeld), 150, fw.ReasonCertificateHeld},
		{row(fw.CertSuperseded), 150, fw.ReasonCertificateRevoked},
		{row(fw.CertRevoked), 201, fw.ReasonCertificateRevoked},
	} {
		if got := enroll.CertStatus(c.row, c.now); got.Reason != c.want || got.Known != (c.row != nil) {
			t.Errorf("%+v at %d: %+v, want %q", c.row, c.now, got, c.want)
		}
	}
}

func TestRenewalIsDueWhenThePKISaysSo(t *testing.T) {
	for _, p := range []pki.DeviceProfile{{}, {Life: time.Hour}, {Life: time.Hour, RenewBefore: 10 * time.Minute}} {
		d := enroll.New(enroll.Options{Profile: p})
		end := time.Unix(2_000_000_000, 0)
		at := time.Unix(d.RenewAt(&store.Certificate{NotAfter: end.Unix()}), 0)
		if s := p.Status(end.Add(-pki.DefaultDeviceLife), end, at); s != pki.CertValid {
			t.Errorf("%+v: %s when renewal begins", p, s)
		}
		if s := p.Status(end.Add(-pki.DefaultDeviceLife), end, at.Add(time.Second)); s != pki.CertRenewalDue {
			t.Errorf("%+v: %s after renewal begins", p, s)
		}
	}
}

// A companion that fails after it wrote has the whole batch run again: what
// was signed in the first run must be forgotten, not stored or given out.
func TestEnrolmentsSurviveCompanionsThatFail(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		ids := serials(20, "gw-%d")
		w.register(ids...)
		var wg sync.WaitGroup
		for _, id := range ids {
			token, req := w.token(id), csr(t, id, newKey(t))
			wg.Go(func() {
				chain, err := w.enrolment.Enrol(context.Background(), token, req)
				if err != nil {
					t.Error(err)
					return
				}
				d := fw.DigestOf(chain[0])
				if _, err := store.CertificateByFingerprint(w.q(), d[:]); err != nil {
					t.Errorf("%s was given a certificate that is not on file: %v", id, err)
				}
			})
			wg.Go(func() {
				_ = w.db.Tx(context.Background(), func(tx *store.Tx) error {
					if err := store.PutSetting(tx, "x", []byte("x")); err != nil {
						return err
					}
					return fw.Errorf(fw.Internal, "fails")
				})
			})
		}
		wg.Wait()
		if got := len(w.records(evidence.TypeCertificateIssued)); got != len(ids)+1 {
			t.Errorf("%d certificates on record, want %d and the CA's", got, len(ids))
		}
		w.verify()
	})
}
