package enroll_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/enroll"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/fwtest"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/pki"
	"github.com/writ-project/writ/internal/signer"
	"github.com/writ-project/writ/internal/store"
)

const (
	product = fw.ProductID("gateway")
	rev     = fw.HardwareID("rev-a")
	ann     = fw.PersonID("ann")
	bob     = fw.PersonID("bob")
	life    = 90 * 24 * time.Hour
)

// world is a register over a real database, log and key store, with a clock
// that the test moves.
type world struct {
	t         testing.TB
	db        *store.DB
	ledger    *ledger.Ledger
	signer    *signer.Signer
	keys      *signer.Keystore
	authority *enroll.Authority
	devices   *enroll.Devices
	enrolment *enroll.Enrolment

	mu       sync.Mutex
	at       time.Time
	approved map[string]fw.PersonID // document to who approved it
	changed  map[fw.DeviceID]int
}

func newWorld(t testing.TB, url string) *world {
	t.Helper()
	w := &world{t: t, at: time.Now().Truncate(time.Second), approved: make(map[string]fw.PersonID), changed: make(map[fw.DeviceID]int)}
	w.signer, w.keys = fwtest.Signer(t)
	var err error
	if w.db, err = store.Open(t.Context(), store.Options{URL: url, Now: w.now}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.db.Close(); err != nil {
			t.Error(err)
		}
	})
	ls, err := w.signer.LogSigner(fwtest.Keys[fw.PurposeLog], "writ.test/log")
	if err != nil {
		t.Fatal(err)
	}
	if w.ledger, err = ledger.Open(t.Context(), w.db, ls); err != nil {
		t.Fatal(err)
	}
	w.open()
	w.tx(func(tx *store.Tx) error {
		_, err := store.InsertProduct(tx, store.Product{ID: product, Name: "Gateway", Hardware: `["rev-a","rev-b"]`, ImageKey: "image", Quorum: 1})
		return err
	})
	return w
}

// open makes the services, as a restart does.
func (w *world) open() {
	w.t.Helper()
	var err error
	w.authority, err = enroll.OpenAuthority(w.t.Context(), enroll.AuthorityOptions{
		DB: w.db, Ledger: w.ledger, Signer: w.signer, Keystore: w.keys, Key: fwtest.Keys[fw.PurposeDeviceCA], Now: w.now,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	o := enroll.Options{DB: w.db, Ledger: w.ledger, Authority: w.authority, Profile: pki.DeviceProfile{Life: life}, Count: w.count, Changed: w.note}
	w.devices, w.enrolment = enroll.New(o), enroll.NewEnrolment(o)
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at
}

func (w *world) sleep(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = w.at.Add(d)
}

func (w *world) note(id fw.DeviceID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changed[id]++
}

func (w *world) approve(doc []byte, who fw.PersonID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.approved[string(doc)] = who
}

// count stands in for signatures, which internal/approval tests.
func (w *world) count(_ store.Queryer, doc []byte, need int, proposer fw.PersonID) (approval.Result, fw.Digest, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	res := approval.Result{Need: need}
	if who := w.approved[string(doc)]; who != "" && who != proposer {
		res.Counted = []approval.Counted{{Person: who}}
	}
	return res, fw.Digest{}, nil
}

func (w *world) tx(f func(*store.Tx) error) {
	w.t.Helper()
	if err := w.db.Tx(context.Background(), f); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) q() store.Queryer { return w.db.Snapshot(context.Background()) }

func (w *world) register(ids ...fw.DeviceID) {
	w.t.Helper()
	list := make([]enroll.NewDevice, len(ids))
	for i, id := range ids {
		list[i] = enroll.NewDevice{ID: id, Hardware: rev}
	}
	res, err := w.devices.Register(context.Background(), product, list, ann)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range res {
		if r.Outcome != enroll.OutcomeRegistered {
			w.t.Fatalf("%s: %s %s", r.ID, r.Outcome, r.Detail)
		}
	}
}

func (w *world) token(id fw.DeviceID) string {
	w.t.Helper()
	tok, err := w.enrolment.EnrolmentToken(context.Background(), id, time.Hour, ann)
	if err != nil {
		w.t.Fatal(err)
	}
	return tok.Secret.Reveal()
}

// enrolled registers and enrols a device and returns its certificate.
func (w *world) enrolled(id fw.DeviceID) *x509.Certificate {
	w.t.Helper()
	w.register(id)
	return w.enrol(w.token(id), csr(w.t, id, newKey(w.t)))
}

func (w *world) enrol(token string, req []byte) *x509.Certificate {
	w.t.Helper()
	chain, err := w.enrolment.Enrol(context.Background(), token, req)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.leaf(chain)
}

// leaf checks a chain as a relying party does.
func (w *world) leaf(chain [][]byte) *x509.Certificate {
	w.t.Helper()
	if len(chain) != 2 || !bytes.Equal(chain[1], w.authority.CA().Raw) {
		w.t.Fatalf("a chain of %d", len(chain))
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		w.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(w.authority.CA())
	id, err := pki.VerifyDevice([]*x509.Certificate{leaf}, roots, pki.DeviceProfile{Life: life}, w.now())
	if err != nil {
		w.t.Fatal(err)
	}
	row := w.cert(leaf)
	if row.Serial != id.Serial || row.Device != id.Device || !bytes.Equal(row.Thumbprint, id.Thumbprint[:]) || row.NotAfter != leaf.NotAfter.Unix() {
		w.t.Fatalf("the row %+v is not the certificate's %+v", row, id)
	}
	return leaf
}

func (w *world) cert(c *x509.Certificate) store.Certificate {
	w.t.Helper()
	d := pki.Fingerprint(c)
	row, err := store.CertificateByFingerprint(w.q(), d[:])
	if err != nil {
		w.t.Fatal(err)
	}
	return row
}

// use has the device use its certificate, as a check-in does.
func (w *world) use(c *x509.Certificate) {
	w.t.Helper()
	w.tx(func(tx *store.Tx) error {
		d := pki.Fingerprint(c)
		row, err := store.CertificateByFingerprint(tx, d[:])
		if err != nil {
			return err
		}
		return w.devices.ConfirmCertificate(tx, &row)
	})
}

func (w *world) state(id fw.DeviceID) store.Device {
	w.t.Helper()
	d, err := store.DeviceByID(w.q(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

func (w *world) move(id fw.DeviceID, to fw.DeviceState) error {
	return w.devices.Move(context.Background(), id, to, "because", ann)
}

// records returns every record of a type.
func (w *world) records(t evidence.Type) []evidence.Record {
	w.t.Helper()
	var out []evidence.Record
	for from := int64(0); ; {
		rows, err := store.Records(w.q(), from, 1000)
		if err != nil {
			w.t.Fatal(err)
		}
		if len(rows) == 0 {
			return out
		}
		for _, row := range rows {
			from = row.Index + 1
			r, err := evidence.Decode(row.Body)
			if err != nil {
				w.t.Fatal(err)
			}
			if r.Type == t {
				out = append(out, r)
			}
		}
	}
}

// verify checks that states are what their records say, and the log.
func (w *world) verify() {
	w.t.Helper()
	devices := make(map[fw.DeviceID]fw.DeviceState)
	for _, r := range w.records(evidence.TypeDeviceRegistered) {
		p := payload[evidence.Registered](w.t, r)
		devices[p.Device] = p.State
	}
	for _, r := range w.records(evidence.TypeDeviceState) {
		p := payload[evidence.DeviceState](w.t, r)
		if devices[p.Device] != p.From || !p.From.CanMove(p.To) {
			w.t.Errorf("record %d moves %s from %s to %s, and it was %s", r.Index, p.Device, p.From, p.To, devices[p.Device])
		}
		devices[p.Device] = p.To
	}
	certs := make(map[string]fw.CertState)
	uses := len(w.records(evidence.TypeKeyUse))
	issued := w.records(evidence.TypeCertificateIssued)
	if uses < len(issued) {
		w.t.Errorf("%d certificates and %d uses of the key", len(issued), uses)
	}
	for _, r := range issued {
		p := payload[evidence.Certificate](w.t, r)
		certs[p.Serial] = p.To
	}
	for _, r := range w.records(evidence.TypeCertificateState) {
		p := payload[evidence.Certificate](w.t, r)
		if certs[p.Serial] != p.From || !p.From.CanMove(p.To) {
			w.t.Errorf("record %d moves certificate %s from %s to %s, and it was %s", r.Index, p.Serial, p.From, p.To, certs[p.Serial])
		}
		certs[p.Serial] = p.To
	}
	for id, want := range devices {
		if got := w.state(id).State; got != want {
			w.t.Errorf("%s is %s, its records say %s", id, got, want)
		}
		rows, err := store.CertificatesOfDevice(w.q(), id)
		if err != nil {
			w.t.Fatal(err)
		}
		live := make(map[fw.CertState]int)
		for _, c := range rows {
			live[c.State]++
			if certs[c.Serial] != c.State {
				w.t.Errorf("certificate %s of %s is %s, its records say %s", c.Serial, id, c.State, certs[c.Serial])
			}
			if want == fw.DeviceRevoked && c.State != fw.CertRevoked {
				w.t.Errorf("%s is revoked and its certificate %s is %s", id, c.Serial, c.State)
			}
		}
		if live[fw.CertIssued] > 1 || live[fw.CertActive] > 1 {
			w.t.Errorf("%s has %v", id, live)
		}
	}
	if _, err := w.ledger.Verify(w.q()); err != nil {
		w.t.Error(err)
	}
}

func payload[T any](t testing.TB, r evidence.Record) (p T) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(r.Data))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		t.Fatalf("record %d: %v", r.Index, err)
	}
	return p
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func csr(t testing.TB, id fw.DeviceID, key crypto.Signer, change ...func(*x509.CertificateRequest)) []byte {
	t.Helper()
	req := &x509.CertificateRequest{Subject: pkix.Name{CommonName: string(id)}}
	for _, f := range change {
		f(req)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, req, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func wantKind(t testing.TB, what string, err error, want fw.Kind) {
	t.Helper()
	if got := fw.KindOf(err); got != want {
		t.Errorf("%s: got %q (%v), want %q", what, got, err, want)
	}
}

func serials(n int, format string) []fw.DeviceID {
	out := make([]fw.DeviceID, n)
	for i := range out {
		out[i] = fw.DeviceID(fmt.Sprintf(format, i))
	}
	return out
}
