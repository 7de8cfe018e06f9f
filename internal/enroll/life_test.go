package enroll_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/writ-project/writ/internal/enroll"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/fwtest"
	"github.com/writ-project/writ/internal/pki"
	"github.com/writ-project/writ/internal/store"
)

func TestADeviceLivesFromItsRegistrationToItsEnd(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		first := w.enrolled("gw-1")
		if d := w.state("gw-1"); d.State != fw.DeviceActive {
			t.Fatalf("enrolled and %s", d.State)
		}
		w.use(first)
		w.use(first) // again does nothing

		w.sleep(life * 3 / 4)
		if row := w.cert(first); w.devices.RenewAt(&row) > w.now().Unix() {
			t.Error("renewal is not due after three quarters of the life")
		}
		chain, err := w.enrolment.Renew(t.Context(), pki.Fingerprint(first), csr(t, "gw-1", newKey(t)))
		if err != nil {
			t.Fatal(err)
		}
		second := w.leaf(chain)
		if s := w.cert(first).State; s != fw.CertActive {
			t.Errorf("the old certificate is %s before the new one was used", s)
		}
		w.use(second)
		if s := w.cert(first).State; s != fw.CertSuperseded {
			t.Errorf("the old certificate is %s after the new one was used", s)
		}
		_, err = w.enrolment.Renew(t.Context(), pki.Fingerprint(first), csr(t, "gw-1", newKey(t)))
		wantKind(t, "renewing with a superseded certificate", err, fw.Forbidden)

		for _, to := range []fw.DeviceState{fw.DeviceSuspended, fw.DeviceActive, fw.DeviceQuarantined, fw.DeviceRevoked} {
			before := w.changed["gw-1"]
			if err := w.move("gw-1", to); err != nil {
				t.Fatal(err)
			}
			if w.changed["gw-1"] == before {
				t.Errorf("nobody was told that gw-1 is %s", to)
			}
		}
		if s := w.cert(second).State; s != fw.CertRevoked {
			t.Errorf("the certificate of a revoked device is %s", s)
		}
		_, err = w.enrolment.Renew(t.Context(), pki.Fingerprint(second), csr(t, "gw-1", newKey(t)))
		wantKind(t, "renewing for a revoked device", err, fw.Forbidden)
		res, err := w.devices.Register(t.Context(), product, []enroll.NewDevice{{ID: "gw-1", Hardware: rev}}, ann)
		if err != nil || res[0].Outcome != enroll.OutcomeBlocked {
			t.Errorf("registering a revoked id again: %+v, %v", res, err)
		}
		w.verify()
	})
}

func TestASerialListIsAnsweredLineByLine(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		w.register("a", "b", "c")
		if err := w.move("c", fw.DeviceDecommissioned); err != nil {
			t.Fatal(err)
		}
		res, err := w.devices.Register(t.Context(), product, []enroll.NewDevice{
			{ID: "a", Hardware: rev},
			{ID: "b", Hardware: "rev-b"},
			{ID: "c", Hardware: rev},
			{ID: "d", Hardware: "toaster"},
			{ID: "no spaces", Hardware: rev},
			{ID: "e", Hardware: rev, State: fw.DeviceActive},
			{ID: "f", Hardware: rev, Attributes: map[string]string{"region": "eu\n"}},
			{ID: "g", Hardware: rev, Attributes: map[string]string{"region": "eu"}},
			{ID: "g", Hardware: rev, Attributes: map[string]string{"region": "us"}},
			{ID: "h", Hardware: rev, State: fw.DeviceManufactured},
		}, ann)
		if err != nil {
			t.Fatal(err)
		}
		want := []enroll.Outcome{
			enroll.OutcomeExists, enroll.OutcomeConflict, enroll.OutcomeBlocked, enroll.OutcomeInvalid, enroll.OutcomeInvalid,
			enroll.OutcomeInvalid, enroll.OutcomeInvalid, enroll.OutcomeRegistered, enroll.OutcomeConflict, enroll.OutcomeRegistered,
		}
		for i, r := range res {
			if r.Outcome != want[i] || (r.Detail == "") != (r.Outcome == enroll.OutcomeRegistered || r.Outcome == enroll.OutcomeExists) {
				t.Errorf("line %d: %+v, want %s", i, r, want[i])
			}
		}
		if d := w.state("h"); d.State != fw.DeviceManufactured {
			t.Errorf("h is %s", d.State)
		}
		_, err = w.enrolment.EnrolmentToken(t.Context(), "h", time.Hour, ann)
		wantKind(t, "a token for a device without an owner", err, fw.Conflict)
		if err := w.move("h", fw.DeviceClaimed); err != nil {
			t.Error(err)
		}
		_, err = w.devices.Register(t.Context(), "nothing", []enroll.NewDevice{{ID: "z", Hardware: rev}}, ann)
		wantKind(t, "an unknown product", err, fw.NotFound)
		_, err = w.devices.Register(t.Context(), product, make([]enroll.NewDevice, enroll.MaxRegister+1), ann)
		wantKind(t, "too long a list", err, fw.TooLarge)

		if err := w.devices.SetAttributes(t.Context(), "a", map[string]string{"ring": "1"}, ann); err != nil {
			t.Error(err)
		}
		if d := w.state("a"); d.Attributes != `{"ring":"1"}` {
			t.Errorf("attributes %s", d.Attributes)
		}
		wantKind(t, "attributes of a decommissioned device", w.devices.SetAttributes(t.Context(), "c", nil, ann), fw.Conflict)
		w.verify()
	})
}

func TestLeavingQuarantineTakesASecondPersonAndAGoodVersion(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		w.enrolled("gw-1")
		confirm := func() {
			w.tx(func(tx *store.Tx) error { return store.SetDeviceIntegrity(tx, "gw-1", "", tx.Now().Unix()) })
		}
		confirm() // before the doubt: proves nothing, even within the same second
		quarantine := func() {
			w.tx(func(tx *store.Tx) error { return w.devices.Quarantine(tx, "gw-1", "rejected an image") })
		}
		quarantine()
		quarantine() // again does nothing
		if d := w.state("gw-1"); d.State != fw.DeviceQuarantined {
			t.Fatal(d.State)
		}
		wantKind(t, "one person", w.move("gw-1", fw.DeviceActive), fw.Forbidden)
		wantKind(t, "no request", w.devices.Release(t.Context(), "gw-1", bob), fw.NotFound)
		ask := func(evidence string) []byte {
			doc, err := w.devices.ProposeRelease(t.Context(), enroll.ReleaseTerms{Device: "gw-1", Reason: "reflashed", Evidence: evidence}, ann)
			if err != nil {
				t.Fatal(err)
			}
			return doc
		}
		doc := ask("")
		w.approve(doc, bob)
		wantKind(t, "nothing speaks for it", w.devices.Release(t.Context(), "gw-1", ann), fw.Conflict)
		w.sleep(time.Second)
		confirm()
		w.approve(doc, ann)
		wantKind(t, "approved by the one who asked", w.devices.Release(t.Context(), "gw-1", bob), fw.Forbidden)
		w.approve(doc, bob)
		if err := w.devices.Release(t.Context(), "gw-1", ann); err != nil {
			t.Fatal(err)
		}
		states := w.records(evidence.TypeDeviceState)
		last := payload[evidence.DeviceState](t, states[len(states)-1])
		if last.To != fw.DeviceActive || !bytes.Equal(last.Document, doc) || last.RequestedBy != ann || last.Approvals == nil {
			t.Errorf("the record says %+v", last)
		}

		// An approval is of one quarantine.
		quarantine()
		wantKind(t, "the old request", w.devices.Release(t.Context(), "gw-1", bob), fw.NotFound)
		doc = ask("bench report 17, sha256:00")
		wantKind(t, "nobody approved", w.devices.Release(t.Context(), "gw-1", bob), fw.Forbidden)
		w.approve(doc, bob)
		if err := w.devices.Release(t.Context(), "gw-1", bob); err != nil {
			t.Errorf("with evidence that was examined since: %v", err)
		}
		w.verify()
	})
}

func TestATransferLeavesTheFormerOwnerNothing(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		old := w.enrolled("gw-1")
		tok, err := w.enrolment.ReopenEnrolment(t.Context(), "gw-1", time.Hour, ann)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.move("gw-1", fw.DeviceClaimed); err != nil {
			t.Fatal(err)
		}
		_, err = w.enrolment.Enrol(t.Context(), tok.Secret.Reveal(), csr(t, "gw-1", newKey(t)))
		wantKind(t, "a token of the former owner", err, fw.Conflict)
		if s := w.cert(old).State; s != fw.CertRevoked {
			t.Errorf("the former owner's certificate is %s", s)
		}
		w.enrol(w.token("gw-1"), csr(t, "gw-1", newKey(t)))
		w.verify()
	})
}

func TestTheRevocationListFollowsTheStates(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		a := w.enrolled("gw-1")
		w.enrolled("gw-2")
		list := func() *x509.RevocationList {
			t.Helper()
			der, err := w.authority.CRL(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			l, err := x509.ParseRevocationList(der)
			if err != nil {
				t.Fatal(err)
			}
			if err := l.CheckSignatureFrom(w.authority.CA()); err != nil {
				t.Fatal(err)
			}
			return l
		}
		first := list()
		if len(first.RevokedCertificateEntries) != 0 || list().Number.Cmp(first.Number) != 0 {
			t.Errorf("a new list without a change: %v", first.RevokedCertificateEntries)
		}
		if err := w.move("gw-1", fw.DeviceRevoked); err != nil {
			t.Fatal(err)
		}
		at := w.now()
		w.sleep(time.Hour)
		second := list()
		if second.Number.Cmp(first.Number) <= 0 || len(second.RevokedCertificateEntries) != 1 {
			t.Fatalf("list %v with %v", second.Number, second.RevokedCertificateEntries)
		}
		e := second.RevokedCertificateEntries[0]
		if e.SerialNumber.Cmp(a.SerialNumber) != 0 || !e.RevocationTime.Equal(at) || e.ReasonCode != int(pki.ReasonKeyCompromise) {
			t.Errorf("entry %+v", e)
		}
		w.open() // a restart keeps the list
		if list().Number.Cmp(second.Number) != 0 {
			t.Error("a new list after a restart")
		}
		w.sleep(4 * 24 * time.Hour)
		if list().Number.Cmp(second.Number) <= 0 {
			t.Error("an old list was not renewed")
		}
	})
}

func TestTheServerCertificateChainsToTheCAOfTheFirstRun(t *testing.T) {
	w := newWorld(t, fwtest.SQLite(t))
	root := w.authority.CA()
	w.open()
	if !w.authority.CA().Equal(root) {
		t.Error("a restart made another CA")
	}
	c, err := w.authority.ServerCertificate(t.Context(), []string{"writ.example", "127.0.0.1"}, pki.ServerProfile{})
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	if _, err := c.Leaf.Verify(x509.VerifyOptions{DNSName: "writ.example", Roots: roots, CurrentTime: w.now()}); err != nil {
		t.Error(err)
	}
	if strings.Contains(string(w.records(evidence.TypeCertificateIssued)[0].Data), "PRIVATE") {
		t.Error("a private key in the log")
	}
	// Another key directory is another CA.
	s, ks := fwtest.Signer(t)
	_, err = enroll.OpenAuthority(t.Context(), enroll.AuthorityOptions{DB: w.db, Ledger: w.ledger, Signer: s, Keystore: ks, Key: "device-ca", Now: w.now})
	wantKind(t, "the key of another CA", err, fw.Conflict)
	_, err = enroll.OpenAuthority(t.Context(), enroll.AuthorityOptions{DB: w.db, Ledger: w.ledger, Signer: s, Keystore: ks, Key: "image", Now: w.now})
	wantKind(t, "a key for images", err, fw.Invalid)
}

// Whatever happens in whatever order, final states are never left, every
// state has its records, and trust never rises by one person.
func TestNoOrderOfEventsBreaksTheLifecycle(t *testing.T) {
	w := newWorld(t, fwtest.SQLite(t))
	n, start := 0, w.now()
	rapid.Check(t, func(rt *rapid.T) {
		n++
		if w.now().Sub(start) > 2*365*24*time.Hour { // or the CA would grow old
			w = newWorld(t, fwtest.SQLite(t))
			start = w.now()
		}
		id := serials(n, "p-%d")[n-1]
		w.register(id)
		var chain [][]byte
		ctx := context.Background()
		for range rapid.IntRange(1, 15).Draw(rt, "events") {
			before := w.state(id).State
			second := false
			w.sleep(time.Duration(rapid.SampledFrom([]int{0, 1, 700, 86400 * 70}).Draw(rt, "seconds")) * time.Second)
			switch rapid.SampledFrom([]string{"move", "move", "enrol", "enrol", "reopen", "renew", "use", "doubt", "ask", "release"}).Draw(rt, "event") {
			case "move":
				_ = w.move(id, rapid.SampledFrom(fw.DeviceStates).Draw(rt, "to"))
			case "enrol":
				if tok, err := w.enrolment.EnrolmentToken(ctx, id, time.Hour, ann); err == nil {
					if chain, err = w.enrolment.Enrol(ctx, tok.Secret.Reveal(), csr(t, id, newKey(t))); err != nil {
						rt.Fatalf("a fresh token for a %s device: %v", before, err)
					}
				}
			case "reopen":
				if tok, err := w.enrolment.ReopenEnrolment(ctx, id, time.Hour, ann); err == nil {
					if chain, err = w.enrolment.Enrol(ctx, tok.Secret.Reveal(), csr(t, id, newKey(t))); err != nil {
						rt.Fatalf("a reopened enrolment of a %s device: %v", before, err)
					}
				}
			case "renew":
				if chain != nil {
					if next, err := w.enrolment.Renew(ctx, fw.DigestOf(chain[0]), csr(t, id, newKey(t))); err == nil {
						chain = next
					}
				}
			case "use":
				if chain != nil {
					_ = w.db.Tx(ctx, func(tx *store.Tx) error {
						d := fw.DigestOf(chain[0])
						row, err := store.CertificateByFingerprint(tx, d[:])
						if err != nil {
							return err
						}
						return w.devices.ConfirmCertificate(tx, &row)
					})
				}
			case "doubt":
				w.tx(func(tx *store.Tx) error { return w.devices.Quarantine(tx, id, "doubt") })
			case "ask":
				if doc, err := w.devices.ProposeRelease(ctx, enroll.ReleaseTerms{Device: id, Reason: "fine", Evidence: "seen"}, ann); err == nil {
					w.approve(doc, rapid.SampledFrom([]fw.PersonID{ann, bob}).Draw(rt, "approver"))
				}
			case "release":
				_ = w.devices.Release(ctx, id, bob)
				if doc, _, err := enroll.OpenRelease(w.q(), id); err == nil && w.approved[string(doc)] != ann {
					rt.Fatal("an approved request was not enough")
				}
				second = true
			}
			after := w.state(id).State
			if before.Final() && after != before || before != after && !before.CanMove(after) {
				rt.Fatalf("from %s to %s", before, after)
			}
			if before.RaisesTrust(after) && !second {
				rt.Fatalf("from %s to %s by one person", before, after)
			}
		}
	})
	w.verify()
}

func TestAFleetIsAStreamOfCalls(t *testing.T) {
	if testing.Short() {
		t.Skip("registers thousands of devices")
	}
	w := newWorld(t, fwtest.SQLite(t))
	start := time.Now()
	all := serials(5000, "sn-%06d")
	for len(all) > 0 {
		w.register(all[:enroll.MaxRegister]...)
		all = all[enroll.MaxRegister:]
	}
	t.Logf("5000 devices in %v", time.Since(start).Round(time.Millisecond))
	if got := len(w.records(evidence.TypeDeviceRegistered)); got != 5000 {
		t.Errorf("%d records", got)
	}
}
