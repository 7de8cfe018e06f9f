package release_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/blob"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/release"
	"github.com/writ-project/writ/internal/review"
	"github.com/writ-project/writ/internal/signer"
	"github.com/writ-project/writ/internal/store"
)

const product fw.ProductID = "thermostat"

// payload is a plain firmware binary.
var payload = bytes.Repeat([]byte("thermostat firmware\n"), 4000)

// world is a server's part that makes releases, on disk, so that it can be
// restarted.
type world struct {
	t   testing.TB
	url string
	dir string

	db        *store.DB
	ledger    *ledger.Ledger
	keystore  *signer.Keystore
	signer    *signer.Signer
	blobs     *blob.Dir
	approvers *review.Approvers
	svc       *release.Service
	changed   []fw.ProductID
	told      []fw.CampaignID // by CampaignApproved

	keys map[fw.PersonID]ssh.Signer
}

// newWorld has the product thermostat with a quorum of 2, the operator rita
// and the approvers ann, ben and cleo.
func newWorld(tb testing.TB, url string) *world {
	tb.Helper()
	w := &world{t: tb, url: url, dir: tb.TempDir(), keys: map[fw.PersonID]ssh.Signer{}}
	w.open()
	tb.Cleanup(w.close)
	for name, purpose := range map[fw.KeyName]fw.Purpose{
		"image": fw.PurposeImage, "log": fw.PurposeLog, "roster-root": fw.PurposeRosterRoot, "statement": fw.PurposeStatement,
	} {
		w.key(name, purpose, "")
	}
	w.key("statement-pq", fw.PurposeStatement, signer.MLDSA65)
	w.openServices()
	for _, p := range []fw.PersonID{"root", "rita", "ann", "ben", "cleo"} {
		w.person(p)
	}
	for _, p := range []fw.PersonID{"ann", "ben", "cleo"} {
		w.approver(p)
	}
	w.product(product, "image", 2)
	return w
}

func (w *world) open() {
	w.t.Helper()
	var err error
	if w.db, err = store.Open(w.t.Context(), store.Options{URL: w.url}); err != nil {
		w.t.Fatal(err)
	}
	if w.keystore, err = signer.OpenKeystore(filepath.Join(w.dir, "keys"), signer.KeystoreOptions{Passphrase: []byte("test"), ScryptLogN: 4}); err != nil {
		w.t.Fatal(err)
	}
	if w.signer, err = signer.Open(w.keystore, signer.Options{}); err != nil {
		w.t.Fatal(err)
	}
	if w.blobs, err = blob.Open(filepath.Join(w.dir, "blobs")); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) openServices() {
	w.t.Helper()
	ls, err := w.signer.LogSigner("log", "writ.test/log")
	if err != nil {
		w.t.Fatal(err)
	}
	if w.ledger, err = ledger.Open(w.t.Context(), w.db, ls); err != nil {
		w.t.Fatal(err)
	}
	w.approvers = review.NewApprovers(review.Options{DB: w.db, Ledger: w.ledger, Signer: w.signer, Keystore: w.keystore})
	w.svc = release.New(release.Options{
		DB: w.db, Ledger: w.ledger, Blobs: w.blobs, Keystore: w.keystore,
		Custody:       signer.NewDesk(w.signer, signer.DeskOptions{Log: ls.Public(), Now: time.Now}),
		StatementKeys: []fw.KeyName{"statement", "statement-pq"},
		Approvers:     w.approvers, Approvals: review.NewApprovals(w.ledger, w.approvers),
		CampaignApproved: func(_ *store.Tx, id fw.CampaignID) error {
			w.told = append(w.told, id)
			return nil
		},
		StageDocument: func(row store.Campaign, stage int, name string) ([]byte, error) {
			return json.Marshal(map[string]any{"campaign": row.ID, "stage": stage, "name": name})
		},
		Changed: func(p fw.ProductID) { w.changed = append(w.changed, p) },
	})
}

func (w *world) close() {
	if err := errors.Join(w.signer.Close(), w.db.Close(), w.blobs.Close()); err != nil {
		w.t.Error(err)
	}
}

// restart ends the process and starts another on the same disk.
func (w *world) restart() {
	w.t.Helper()
	w.close()
	w.open()
	w.openServices()
}

func (w *world) key(name fw.KeyName, purpose fw.Purpose, alg signer.Algorithm) {
	w.t.Helper()
	if _, err := w.keystore.Create(w.t.Context(), name, purpose, alg, time.Now()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) person(id fw.PersonID) {
	w.t.Helper()
	err := w.db.Tx(w.t.Context(), func(tx *store.Tx) error {
		_, err := store.InsertPerson(tx, store.Person{ID: id, Name: string(id), CreatedAt: tx.Now().Unix()})
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func newSSHKey(tb testing.TB) ssh.Signer {
	tb.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	s, err := ssh.NewSignerFromSigner(k)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func (w *world) approver(id fw.PersonID) {
	w.t.Helper()
	w.keys[id] = newSSHKey(w.t)
	if _, err := w.approvers.AddApprover(w.t.Context(), id, string(ssh.MarshalAuthorizedKey(w.keys[id].PublicKey())), "root"); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) product(id fw.ProductID, key fw.KeyName, quorum int) {
	w.t.Helper()
	_, err := w.svc.CreateProduct(w.t.Context(), release.Product{
		Product: id, Name: "Thermostat", Hardware: []fw.HardwareID{"board-a", "board-b"}, ImageKey: key, Quorum: quorum,
	}, "root")
	if err != nil {
		w.t.Fatal(err)
	}
}

// upload uploads b as rita.
func (w *world) upload(b []byte) fw.Digest {
	w.t.Helper()
	up, err := w.svc.Uploads().Start(w.t.Context(), "rita", fw.DigestOf(b), int64(len(b)))
	if err != nil {
		w.t.Fatal(err)
	}
	if !up.Done {
		if _, err := w.svc.Uploads().Write(w.t.Context(), "rita", up.ID, up.Offset, bytes.NewReader(b[up.Offset:])); err != nil {
			w.t.Fatal(err)
		}
	}
	if _, err := w.svc.Uploads().Finish(w.t.Context(), "rita", up.ID); err != nil {
		w.t.Fatal(err)
	}
	return fw.DigestOf(b)
}

// draft is a good draft of one mcuboot component.
func (w *world) draft(version string) release.Draft {
	w.t.Helper()
	return release.Draft{
		Product: product, Version: version, Type: fw.ReleaseFunctional, Notes: "Warmer.",
		Components: []release.DraftComponent{{Name: fw.MainComponent, Format: "mcuboot", Input: w.upload(payload), SecurityCounter: 3}},
	}
}

func (w *world) propose(d release.Draft) store.Release {
	w.t.Helper()
	row, err := w.svc.Propose(w.t.Context(), d, "rita")
	if err != nil {
		w.t.Fatal(err)
	}
	return row
}

func (w *world) sign(person fw.PersonID, doc []byte) release.Signature {
	w.t.Helper()
	armored, err := approval.Sign(doc, w.keys[person])
	if err != nil {
		w.t.Fatal(err)
	}
	return release.Signature{Person: person, Subject: fw.DigestOf(doc), Armored: string(armored)}
}

func (w *world) approve(row store.Release, people ...fw.PersonID) store.Release {
	w.t.Helper()
	for _, p := range people {
		var err error
		if row, err = w.svc.ApproveRelease(w.t.Context(), row.ID, w.sign(p, row.Manifest)); err != nil {
			w.t.Fatal(err)
		}
	}
	return row
}

// approved is a release that can be published.
func (w *world) approved(version string) store.Release {
	w.t.Helper()
	row := w.approve(w.propose(w.draft(version)), "ann", "ben")
	if row.State != fw.ReleaseApproved {
		w.t.Fatalf("release is %s", row.State)
	}
	return row
}

// records returns the records of a stream.
func (w *world) records(s evidence.StreamID) []evidence.Record {
	w.t.Helper()
	rows, err := store.StreamRecords(w.db.Snapshot(w.t.Context()), string(s), 1, 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	out := make([]evidence.Record, len(rows))
	for i, r := range rows {
		if out[i], err = evidence.Decode(r.Body); err != nil {
			w.t.Fatal(err)
		}
	}
	return out
}

func types(records []evidence.Record) (out []evidence.Type) {
	for _, r := range records {
		out = append(out, r.Type)
	}
	return out
}

// blobPath is where the blob lies on the disk.
func (w *world) blobPath(d fw.Digest) string {
	return filepath.Join(w.dir, "blobs", "sha256", d.Hex()[:2], d.Hex()[2:])
}

// damage flips a bit of a stored file, as somebody with a shell would.
func (w *world) damage(d fw.Digest) {
	w.t.Helper()
	path := w.blobPath(d)
	b, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, b, 0o600)); err != nil {
		w.t.Fatal(err)
	}
}

// wantError checks the kind of err and that its message has each of the
// words.
func wantError(tb testing.TB, err error, kind fw.Kind, words ...string) {
	tb.Helper()
	if fw.KindOf(err) != kind {
		tb.Fatalf("got %v (%s), want %s", err, fw.KindOf(err), kind)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			tb.Errorf("message %q does not say %q", err, word)
		}
	}
}
