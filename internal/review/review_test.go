package review_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/fwtest"
	"github.com/writ-project/writ/internal/ledger"
	"github.com/writ-project/writ/internal/review"
	"github.com/writ-project/writ/internal/signer"
	"github.com/writ-project/writ/internal/store"
)

// desk is a server's part that keeps approvals.
type desk struct {
	t         *testing.T
	url, keys string
	db        *store.DB
	signer    *signer.Signer
	keystore  *signer.Keystore
	approvers *review.Approvers
	approvals *review.Approvals
}

func newDesk(t *testing.T, url string) *desk {
	t.Helper()
	d := &desk{t: t, url: url, keys: t.TempDir()}
	d.open()
	t.Cleanup(d.close)
	err := d.db.Tx(t.Context(), func(tx *store.Tx) error {
		for _, p := range []fw.PersonID{"root", "ann", "ben", "gone"} {
			if _, err := store.InsertPerson(tx, store.Person{ID: p, Name: string(p)}); err != nil {
				return err
			}
		}
		return store.SetPersonDisabled(tx, "gone")
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *desk) open() {
	d.t.Helper()
	ctx := d.t.Context()
	var err error
	if d.db, err = store.Open(ctx, store.Options{URL: d.url}); err != nil {
		d.t.Fatal(err)
	}
	if d.keystore, err = signer.OpenKeystore(d.keys, signer.KeystoreOptions{Passphrase: []byte("test"), ScryptLogN: 4}); err != nil {
		d.t.Fatal(err)
	}
	if len(d.keystore.List()) == 0 {
		for name, purpose := range map[fw.KeyName]fw.Purpose{"log": fw.PurposeLog, "root": fw.PurposeRosterRoot} {
			if _, err := d.keystore.Create(ctx, name, purpose, "", time.Now()); err != nil {
				d.t.Fatal(err)
			}
		}
	}
	if d.signer, err = signer.Open(d.keystore, signer.Options{}); err != nil {
		d.t.Fatal(err)
	}
	ls, err := d.signer.LogSigner("log", "writ.test/log")
	if err != nil {
		d.t.Fatal(err)
	}
	l, err := ledger.Open(ctx, d.db, ls)
	if err != nil {
		d.t.Fatal(err)
	}
	d.approvers = review.NewApprovers(review.Options{DB: d.db, Ledger: l, Signer: d.signer, Keystore: d.keystore})
	d.approvals = review.NewApprovals(l, d.approvers)
}

func (d *desk) close() {
	if err := errors.Join(d.signer.Close(), d.db.Close()); err != nil {
		d.t.Error(err)
	}
}

func newKey(t *testing.T) (ssh.Signer, string) {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromSigner(k)
	if err != nil {
		t.Fatal(err)
	}
	return s, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.PublicKey()))) + " comment"
}

func (d *desk) add(person fw.PersonID) ssh.Signer {
	d.t.Helper()
	key, line := newKey(d.t)
	if _, err := d.approvers.AddApprover(d.t.Context(), person, line, "root"); err != nil {
		d.t.Fatal(err)
	}
	return key
}

var document = []byte(`{"a":"document"}`)

var subject = review.Subject{Kind: review.KindLifecycle, Document: document, Proposer: "rita", Streams: []evidence.StreamID{evidence.DeviceStream("sn-1")}}

func (d *desk) submit(s review.Subject, person fw.PersonID, armored []byte) (a store.Approval, err error) {
	err = d.db.Tx(d.t.Context(), func(tx *store.Tx) error {
		var err error
		a, err = d.approvals.Submit(tx, s, person, string(armored))
		return err
	})
	return a, err
}

func mustSign(t *testing.T, doc []byte, key ssh.Signer) []byte {
	t.Helper()
	b, err := approval.Sign(doc, key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (d *desk) stream(s evidence.StreamID) (out []evidence.Record) {
	d.t.Helper()
	rows, err := store.StreamRecords(d.db.Snapshot(d.t.Context()), string(s), 1, 1000)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, row := range rows {
		r, err := evidence.Decode(row.Body)
		if err != nil {
			d.t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

func decode[T any](t *testing.T, b []byte) (v T) {
	t.Helper()
	if err := dsse.Decode(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func wantError(t *testing.T, err error, kind fw.Kind, words string) {
	t.Helper()
	if fw.KindOf(err) != kind || !strings.Contains(err.Error(), words) {
		t.Errorf("got %v (%s), want %s with %q", err, fw.KindOf(err), kind, words)
	}
}

func TestRostersFormAChainOnRecord(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		d := newDesk(t, url)
		ctx := t.Context()
		_, err := d.approvers.Roster(d.db.Snapshot(ctx))
		wantError(t, err, fw.NotFound, "writ approver add")

		// The first approver of a server adds themselves: nobody else is there.
		key, line := newKey(t)
		if _, err := d.approvers.AddApprover(ctx, "root", line, "root"); err != nil {
			t.Fatal(err)
		}
		if again, err := d.approvers.AddApprover(ctx, "root", line, "ann"); err != nil || again.Version() != 1 {
			t.Fatalf("adding the same key: %v", err)
		}
		d.add("ann")
		d.close()
		d.open()
		d.add("ann") // a second key
		roster, err := d.approvers.RemoveApprover(ctx, "root", "ann")
		if err != nil {
			t.Fatal(err)
		}
		if roster.Version() != 4 || len(roster.Keys("ann")) != 2 || len(roster.Keys("root")) != 0 {
			t.Errorf("version %d: %+v", roster.Version(), roster.Approvers())
		}
		if _, ok := roster.Owner(ssh.FingerprintSHA256(key.PublicKey())); ok {
			t.Error("the removed key is still there")
		}

		var prev *approval.Roster
		info, err := d.keystore.Public("root")
		if err != nil {
			t.Fatal(err)
		}
		pub, err := info.Public()
		if err != nil {
			t.Fatal(err)
		}
		root, ok := pub.(ed25519.PublicKey)
		if !ok {
			t.Fatalf("the root key is a %T", pub)
		}
		uses := d.stream(evidence.KeyStream("root"))
		for i, r := range d.rosterRecords() {
			next, err := approval.OpenRoster(decode[evidence.Proposed](t, r.Data).Document, root)
			if err != nil {
				t.Fatal(err)
			}
			if err := next.Follows(prev); err != nil {
				t.Error(err)
			}
			if use := decode[evidence.KeyUse](t, uses[i].Data); use.Subject != next.Digest() || !bytes.Equal(use.Document, next.Document()) || use.Reason == "" {
				t.Errorf("version %d stands on %+v", next.Version(), use)
			}
			prev = next
		}
		if prev == nil || prev.Digest() != roster.Digest() {
			t.Error("the newest roster is not on record")
		}
	})
}

func (d *desk) rosterRecords() (out []evidence.Record) {
	for _, r := range d.stream(evidence.LogStream) {
		if r.Type == evidence.TypeRoster {
			out = append(out, r)
		}
	}
	return out
}

func TestRosterChangesAreRefused(t *testing.T) {
	d := newDesk(t, fwtest.SQLite(t))
	ctx := t.Context()
	_, own := newKey(t)
	_, annLine := newKey(t)
	_, err := d.approvers.RemoveApprover(ctx, "ann", "root")
	wantError(t, err, fw.NotFound, "not an approver")
	if _, err := d.approvers.AddApprover(ctx, "ann", annLine, "root"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		kind  fw.Kind
		words string
		run   func() (*approval.Roster, error)
	}{
		{fw.Forbidden, "themselves", func() (*approval.Roster, error) { return d.approvers.AddApprover(ctx, "root", own, "root") }},
		{fw.Forbidden, "themselves", func() (*approval.Roster, error) { return d.approvers.AddApprover(ctx, "ann", own, "ann") }},
		{fw.NotFound, "no operator", func() (*approval.Roster, error) { return d.approvers.AddApprover(ctx, "zoe", own, "root") }},
		{fw.Conflict, "disabled", func() (*approval.Roster, error) { return d.approvers.AddApprover(ctx, "gone", own, "root") }},
		{fw.Conflict, "is ann's", func() (*approval.Roster, error) { return d.approvers.AddApprover(ctx, "ben", annLine, "root") }},
		{fw.Invalid, "SSH public key", func() (*approval.Roster, error) { return d.approvers.AddApprover(ctx, "ben", "key", "root") }},
		{fw.Conflict, "add another one first", func() (*approval.Roster, error) { return d.approvers.RemoveApprover(ctx, "ann", "root") }},
	} {
		_, err := c.run()
		wantError(t, err, c.kind, c.words)
	}
	if n := len(d.rosterRecords()); n != 1 {
		t.Errorf("%d rosters on record", n)
	}
	if _, err := d.keystore.Create(ctx, "root-2", fw.PurposeRosterRoot, "", time.Now()); err != nil {
		t.Fatal(err)
	}
	_, err = d.approvers.AddApprover(ctx, "ben", own, "root")
	wantError(t, err, fw.Conflict, "2 active roster root keys")
}

// Somebody with a database shell adds themselves to the roster.
func TestARosterThatTheRootDidNotSignCountsNobody(t *testing.T) {
	d := newDesk(t, fwtest.SQLite(t))
	d.add("ann")
	mallory, line := newKey(t)
	_, fake, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.approvers.Roster(d.db.Snapshot(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := approval.RosterDocument{
		Version: 2, Previous: r.Digest(), Approvers: append(r.Approvers(), approval.Approver{Person: "ben", Keys: []string{line}}),
	}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	forged, err := dsse.Seal(approval.RosterPayloadType, doc, fake)
	if err != nil {
		t.Fatal(err)
	}
	good, err := store.LatestVersioned(d.db.Snapshot(t.Context()), store.RosterTable)
	if err != nil {
		t.Fatal(err)
	}
	for _, envelope := range [][]byte{forged, good.Envelope} { // or shows an old one as new
		err := d.db.Tx(t.Context(), func(tx *store.Tx) error {
			if err := store.ExecForTest(tx, "DELETE FROM roster WHERE version = 2"); err != nil {
				return err
			}
			return store.InsertVersioned(tx, store.RosterTable, store.Versioned{Version: 2, Envelope: envelope})
		})
		if err != nil {
			t.Fatal(err)
		}
		d.close()
		d.open()
		_, err = d.submit(subject, "ben", mustSign(t, document, mallory))
		wantError(t, err, fw.Corrupt, "restore the database")
		_, _, err = d.approvals.Count(d.db.Snapshot(t.Context()), document, 1, "rita")
		wantError(t, err, fw.Corrupt, "restore the database")
	}
}

// The process ended, more than once, between filing a roster and telling the
// signer.
func TestTheSignerCatchesUpWithTheRosters(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		d := newDesk(t, url)
		d.add("ann")
		d.close()
		journal := filepath.Join(d.keys, "journal.jsonl")
		before, err := os.ReadFile(journal)
		if err != nil {
			t.Fatal(err)
		}
		d.open()
		d.add("ben")
		d.add("ben")
		newest, err := store.LatestVersioned(d.db.Snapshot(t.Context()), store.RosterTable)
		if err != nil {
			t.Fatal(err)
		}
		d.close()
		if err := os.WriteFile(journal, before, 0o600); err != nil {
			t.Fatal(err)
		}
		d.open()
		wantError(t, d.signer.AdoptRoster(newest.Envelope, time.Now()), fw.Conflict, "in between")
		if err := d.approvers.SyncSigner(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
		if err := d.signer.AdoptRoster(newest.Envelope, time.Now()); err != nil {
			t.Error(err)
		}
		d.add("ann")
	})
}

func TestAnApprovalProvesItself(t *testing.T) {
	fwtest.EachDatabase(t, func(t *testing.T, url string) {
		d := newDesk(t, url)
		key := d.add("ann")
		armored := mustSign(t, document, key)
		first, err := d.submit(subject, "ann", armored)
		if err != nil {
			t.Fatal(err)
		}
		again, err := d.submit(subject, "ann", mustSign(t, document, key))
		if err != nil || !cmp.Equal(again, first) {
			t.Errorf("the same again: %+v, %v", again, err)
		}
		records := d.stream(evidence.DeviceStream("sn-1"))
		if len(records) != 1 || records[0].Index != first.Index || records[0].Type != evidence.TypeApproval || records[0].Actor != "ann" {
			t.Fatalf("%+v", records)
		}
		rec := decode[evidence.Approval](t, records[0].Data)
		pub, err := approval.NewKey(key.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		if err := approval.Verify(rec.Document, []byte(rec.Signature), pub); err != nil || rec.Fingerprint != pub.Fingerprint() || rec.Subject != fw.DigestOf(document) || rec.SubjectType != "lifecycle" {
			t.Errorf("%+v: %v", rec, err)
		}
		q, err := d.approvals.Quorum(d.db.Snapshot(t.Context()), document, 1, "rita")
		if err != nil || !q.Result.Met() || q.Roster != rec.Roster || len(q.Evidence.Approvals) != 1 {
			t.Errorf("%+v, %v", q, err)
		}
		if res, _, err := d.approvals.Count(d.db.Snapshot(t.Context()), []byte("other"), 1, "rita"); err != nil || res.Met() {
			t.Errorf("other bytes: %+v, %v", res, err)
		}
	})
}

func TestApprovalsAreRefused(t *testing.T) {
	d := newDesk(t, fwtest.SQLite(t))
	stranger, _ := newKey(t)
	_, err := d.submit(subject, "ann", mustSign(t, document, stranger))
	wantError(t, err, fw.Conflict, "writ approver add")
	if res, _, err := d.approvals.Count(d.db.Snapshot(t.Context()), document, 1, "rita"); err != nil || res.Met() {
		t.Errorf("without a roster: %+v, %v", res, err)
	}
	ann, ben := d.add("ann"), d.add("ben")
	own := subject
	own.Proposer = "ann"
	elsewhere, err := sshsig.Sign(bytes.NewReader(document), ann, sshsig.HashSHA512, "git")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, words string
		s           review.Subject
		person      fw.PersonID
		armored     []byte
	}{
		{"own proposal", "cannot approve", own, "ann", mustSign(t, document, ann)},
		{"not an approver", "not on roster", subject, "root", mustSign(t, document, stranger)},
		{"somebody else's key", "not one of this person's keys", subject, "ann", mustSign(t, document, ben)},
		{"unknown key", "not one of this person's keys", subject, "ann", mustSign(t, document, stranger)},
		{"other bytes", "not over these bytes", subject, "ann", mustSign(t, append(bytes.Clone(document), '\n'), ann)},
		{"other namespace", "-n writ-approval", subject, "ann", sshsig.Armor(elsewhere)},
		{"no signature", "ssh-keygen", subject, "ann", []byte("yes")},
		{"proposer not known", "proposer is not known", review.Subject{Kind: review.KindStage, Document: document}, "ann", mustSign(t, document, ann)},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := d.submit(c.s, c.person, c.armored)
			wantError(t, err, fw.Forbidden, c.words)
		})
	}
	if rows, err := store.Approvals(d.db.Snapshot(t.Context()), fw.DigestOf(document)); err != nil || len(rows) != 0 {
		t.Errorf("%d approvals on file, %v", len(rows), err)
	}
}

func TestWhoIsRemovedNoLongerCounts(t *testing.T) {
	d := newDesk(t, fwtest.SQLite(t))
	ann := d.add("ann")
	d.add("ben")
	if _, err := d.submit(subject, "ann", mustSign(t, document, ann)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.approvers.RemoveApprover(t.Context(), "ann", "root"); err != nil {
		t.Fatal(err)
	}
	count := func() int {
		res, _, err := d.approvals.Count(d.db.Snapshot(t.Context()), document, 1, "rita")
		if err != nil {
			t.Fatal(err)
		}
		return len(res.Counted)
	}
	if n := count(); n != 0 {
		t.Errorf("%d count after the removal", n)
	}
	// Back with another key: the old signature does not speak for it, and a
	// person approves the same bytes once.
	_, err := d.submit(subject, "ann", mustSign(t, document, d.add("ann")))
	wantError(t, err, fw.Conflict, "propose an edit")
	if n := count(); n != 0 {
		t.Errorf("%d count with a new key", n)
	}
}
