package signer

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/writ-project/writ/internal/approval"
	"github.com/writ-project/writ/internal/authz"
	"github.com/writ-project/writ/internal/dsse"
	"github.com/writ-project/writ/internal/evidence"
	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/statement"
	wtlog "github.com/writ-project/writ/internal/tlog"
)

// deskWorld is a desk with a log of one record per decision.
type deskWorld struct {
	*world

	desk  *Desk
	log   ed25519.PrivateKey
	pub   ed25519.PublicKey
	index int64
}

func newDesk(t *testing.T) *deskWorld {
	t.Helper()
	w := &deskWorld{world: newWorld(t)}
	for _, k := range []struct {
		name fw.KeyName
		alg  Algorithm
	}{{"statement-1", Ed25519}} {
		if _, err := w.ks.Create(t.Context(), k.name, fw.PurposeStatement, k.alg, t0); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if w.pub, w.log, err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	w.manifest.Components[0].Format = "mcuboot"
	w.open2(t)
	return w
}

// open2 makes the desk over the signer as it is now.
func (w *deskWorld) open2(t *testing.T) {
	t.Helper()
	info, err := w.ks.Public("root-1")
	if err != nil {
		t.Fatal(err)
	}
	pub, err := info.Public()
	if err != nil {
		t.Fatal(err)
	}
	root, ok := pub.(ed25519.PublicKey)
	if !ok {
		t.Fatalf("the root is a %T", pub)
	}
	w.s.opt.Roots = &Roots{Keys: []ed25519.PublicKey{root}, Threshold: 1}
	w.desk = NewDesk(w.s, DeskOptions{Log: w.pub, Now: func() time.Time { return t0 }})
}

// decide puts a decision into a log of its own and returns it with its proof.
func (w *deskWorld) decide(t *testing.T, use evidence.KeyUse, by ed25519.PrivateKey) Decision {
	t.Helper()
	w.index++
	return decisionOf(t, w.index, evidence.TypeKeyUse, use, by)
}

func decisionOf(t *testing.T, index int64, typ evidence.Type, use evidence.KeyUse, by ed25519.PrivateKey) Decision {
	t.Helper()
	data, err := json.Marshal(use)
	if err != nil {
		t.Fatal(err)
	}
	body, err := evidence.Encode(evidence.Record{
		Index: index, Type: typ, MS: t0.UnixMilli(), Actor: "erin", Data: data, Streams: []evidence.Link{{Stream: "key/x", N: 1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	salt := evidence.NewSalt()
	c := evidence.Commit(salt, body)
	pub, ok := by.Public().(ed25519.PublicKey)
	if !ok {
		t.Fatal("not Ed25519")
	}
	rs, err := wtlog.SignRoot(tlog.RecordHash(c[:]), pub, func(m []byte) ([]byte, error) { return ed25519.Sign(by, m), nil })
	if err != nil {
		t.Fatal(err)
	}
	// A tree of this one entry: its root is the leaf.
	receipt, err := wtlog.Receipt(rs, 1, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	return Decision{Salt: salt[:], Record: body, Receipt: receipt}
}

func (w *deskWorld) imageOrder(t *testing.T, by ...fw.PersonID) ImageOrder {
	t.Helper()
	e := w.request(t, by...).Evidence
	return ImageOrder{Component: "main", Evidence: e, By: "erin", Decision: w.decide(t, evidence.KeyUse{
		Purpose: fw.PurposeImage, Key: "image-1", Subject: fw.DigestOf(w.input), Reason: "test", Document: e.Document,
	}, w.log)}
}

func (w *deskWorld) journalLines(t *testing.T) []Entry {
	t.Helper()
	b, err := os.ReadFile(w.dir + "/journal.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	var out []Entry
	for line := range bytes.SplitSeq(bytes.TrimSpace(b), []byte("\n")) {
		var e Entry
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

func (w *deskWorld) signed(t *testing.T) (n int) {
	t.Helper()
	for _, e := range w.journalLines(t) {
		if e.Kind == EntrySigned && e.Purpose != fw.PurposeRosterRoot {
			n++
		}
	}
	return n
}

func TestADeskSignsWhatTheLogAndTheApproversAllow(t *testing.T) {
	w := newDesk(t)
	o := w.imageOrder(t, "alice", "bob")
	task, err := w.desk.Image(o)
	if err != nil || task.Input != fw.DigestOf(w.input) || task.Size != int64(len(w.input)) || task.Permit == "" {
		t.Fatalf("%+v, %v", task, err)
	}
	var out bytes.Buffer
	r, err := w.desk.SignImage(t.Context(), o, bytes.NewReader(w.input), &out)
	if err != nil {
		t.Fatal(err)
	}
	if r.Output != fw.DigestOf(out.Bytes()) || r.Size != int64(out.Len()) || r.Input != task.Input || r.Permit != task.Permit ||
		r.By != "erin" || r.Custody != "embedded-file" || len(r.Approvals) != 2 || r.At != t0.Unix() || r.Evidence != 1 || r.Key != "image-1" {
		t.Errorf("%+v", r)
	}
	lines := w.journalLines(t)
	last := lines[len(lines)-1]
	if last.Kind != EntrySigned || last.Output != r.Output || last.By != "erin" || len(last.Approvals) != 2 || last.Component != "main" ||
		last.Document != fw.DigestOf(o.Evidence.Document) || last.KeyID != r.KeyID {
		t.Errorf("%+v", last)
	}
	// The same order again, also after a restart: its permit is spent.
	for range 2 {
		_, err = w.desk.SignImage(t.Context(), o, bytes.NewReader(w.input), io.Discard)
		if fw.KindOf(err) != fw.Conflict || !strings.Contains(err.Error(), "new decision") {
			t.Errorf("again: %v", err)
		}
		w.reopen(t)
		w.open2(t)
	}
	if n := w.signed(t); n != 1 {
		t.Errorf("%d signatures", n)
	}
}

func TestADeskRefuses(t *testing.T) {
	w := newDesk(t)
	_, foreign, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := w.imageOrder(t, "alice", "bob")
	use := evidence.KeyUse{Purpose: fw.PurposeImage, Key: "image-1", Subject: fw.DigestOf(w.input), Document: good.Evidence.Document}
	for name, c := range map[string]struct {
		words  string
		change func(*ImageOrder)
	}{
		"a decision in another log": {"evidence log", func(o *ImageOrder) { o.Decision = w.decide(t, use, foreign) }},
		"a decision changed later": {"receipt", func(o *ImageOrder) {
			o.Decision.Record = bytes.Replace(o.Decision.Record, []byte("erin"), []byte("evil"), 1)
		}},
		"a receipt for another":  {"receipt", func(o *ImageOrder) { o.Decision.Receipt = w.decide(t, use, w.log).Receipt }},
		"no salt":                {"salt", func(o *ImageOrder) { o.Decision.Salt = nil }},
		"no decision":            {"form", func(o *ImageOrder) { o.Decision.Record = nil }},
		"another kind of record": {"key_use", func(o *ImageOrder) { o.Decision = decisionOf(t, 99, evidence.TypeReport, use, w.log) }},
		"a decision about statements": {"not image", func(o *ImageOrder) {
			u := use
			u.Purpose = fw.PurposeStatement
			u.Key = "statement-1"
			o.Decision = w.decide(t, u, w.log)
		}},
		"a key that is not approved": {"approved manifest names", func(o *ImageOrder) { w.other(t); u := use; u.Key = "image-2"; o.Decision = w.decide(t, u, w.log) }},
		"a digest of their choice": {"approved manifest names", func(o *ImageOrder) {
			u := use
			u.Subject = fw.DigestOf([]byte("malware"))
			o.Decision = w.decide(t, u, w.log)
		}},
		"another document":           {"another document", func(o *ImageOrder) { u := use; u.Document = []byte("{}"); o.Decision = w.decide(t, u, w.log) }},
		"one approval":               {"1 of 2", func(o *ImageOrder) { o.Evidence.Approvals = o.Evidence.Approvals[:1] }},
		"fewer are enough, they say": {"at least 2", func(o *ImageOrder) { o.Evidence.Need, o.Evidence.Approvals = 1, o.Evidence.Approvals[:1] }},
		"one person twice":           {"1 of 2", func(o *ImageOrder) { o.Evidence.Approvals[1] = o.Evidence.Approvals[0] }},
		"another proposer":           {"proposed by", func(o *ImageOrder) { o.Evidence.Proposer = "dave" }},
		"another component":          {"exactly one component", func(o *ImageOrder) { o.Component = "boot" }},
		"a roster by another root":   {"root keys", func(o *ImageOrder) { o.Evidence.Roster = forgeRoster(t, w, foreign) }},
	} {
		o := good
		o.Evidence.Approvals = append([]approval.Approval{}, good.Evidence.Approvals...)
		c.change(&o)
		_, err := w.desk.SignImage(t.Context(), o, bytes.NewReader(w.input), io.Discard)
		if !IsRefusal(err) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", name, err)
		}
		lines := w.journalLines(t)
		if last := lines[len(lines)-1]; last.Kind != EntryRefused || last.Reason == "" || last.By != "erin" {
			t.Errorf("%s: the journal ends with %+v", name, last)
		}
	}
	// Other bytes than were approved, of the same length.
	evil := bytes.Repeat([]byte("malware! "), len(w.input)/9)
	if _, err := w.desk.SignImage(t.Context(), good, bytes.NewReader(evil), io.Discard); fw.KindOf(err) != fw.Forbidden {
		t.Errorf("other bytes: %v", err)
	}
	if n := w.signed(t); n != 0 {
		t.Errorf("%d signatures", n)
	}
	w.desk.o.Log = nil
	if _, err := w.desk.Image(good); fw.KindOf(err) != fw.Conflict || !strings.Contains(err.Error(), "trust-log") {
		t.Errorf("without a log key: %v", err)
	}
}

func (w *deskWorld) other(t *testing.T) {
	t.Helper()
	if _, err := w.ks.Create(t.Context(), "image-2", fw.PurposeImage, "", t0); err != nil {
		t.Fatal(err)
	}
}

func forgeRoster(t *testing.T, w *deskWorld, root ed25519.PrivateKey) []byte {
	t.Helper()
	r, err := approval.ParseRoster(w.rosterDocument(t))
	if err != nil {
		t.Fatal(err)
	}
	doc := approval.RosterDocument{Version: 2, Previous: r.Digest(), Approvers: r.Approvers()}
	b, err := doc.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return sealWith(t, approval.RosterPayloadType, b, root)
}

// Refusals cannot fill the disk.
func TestAFloodOfRefusalsIsCounted(t *testing.T) {
	w := newDesk(t)
	now := t0
	w.desk.o.Now = func() time.Time { return now }
	o := w.imageOrder(t, "alice")
	for range 200 {
		if _, err := w.desk.Image(o); err == nil {
			t.Fatal("one approval is enough")
		}
	}
	now = now.Add(time.Minute)
	if _, err := w.desk.Image(o); err == nil {
		t.Fatal("one approval is enough")
	}
	lines, refused := w.journalLines(t), 0
	for _, e := range lines {
		if e.Kind == EntryRefused {
			refused++
		}
	}
	if last := lines[len(lines)-1]; refused != refusalsPerMinute+1 || last.Count != 200-refusalsPerMinute {
		t.Errorf("%d lines, %d counted", refused, last.Count)
	}
}

func TestAStatementIsAboutImagesThatWereSigned(t *testing.T) {
	w := newDesk(t)
	order := w.imageOrder(t, "alice", "bob")
	var out bytes.Buffer
	r, err := w.desk.SignImage(t.Context(), order, bytes.NewReader(w.input), &out)
	if err != nil {
		t.Fatal(err)
	}
	state := func(e ApprovalEvidence, output fw.Digest) (Record, error) {
		st, err := statement.Make(e.Document, []fw.SignedImage{{
			Component: "main", Format: "mcuboot", Version: w.manifest.Version, SecurityCounter: 7, Digest: output, Size: r.Size, KeyID: r.KeyID,
		}})
		if err != nil {
			t.Fatal(err)
		}
		doc, err := st.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return w.desk.SignStatement(t.Context(), StatementOrder{Statement: doc, Evidence: e, By: "erin", Decision: w.decide(t, evidence.KeyUse{
			Purpose: fw.PurposeStatement, Key: "statement-1", Subject: fw.DigestOf(doc), Document: doc,
		}, w.log)})
	}
	if _, err := state(order.Evidence, fw.DigestOf([]byte("malware"))); fw.KindOf(err) != fw.Forbidden || !strings.Contains(err.Error(), "did not make") {
		t.Errorf("an image that was not signed: %v", err)
	}
	// The image of one manifest in the statement about another.
	w.manifest.Version = "9.9.9"
	if _, err := state(w.request(t, "alice", "bob").Evidence, r.Output); fw.KindOf(err) != fw.Forbidden {
		t.Errorf("an image of another release: %v", err)
	}
	w.manifest.Version = "1.2.3"
	w.reopen(t)
	w.open2(t)
	got, err := state(order.Evidence, r.Output)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := statement.Open(got.Envelope); err != nil || got.Output != fw.DigestOf(got.Envelope) || len(got.Approvals) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	// A pre-signed image is what was approved, byte for byte.
	if _, err := state(order.Evidence, fw.DigestOf(w.input)); err != nil {
		t.Errorf("the approved bytes themselves: %v", err)
	}
}

func TestADeskSignsTrustOnlyInItsOwnKeys(t *testing.T) {
	w := newDesk(t)
	key := func(name fw.KeyName) authz.TrustKey {
		info, err := w.ks.Public(name)
		if err != nil {
			t.Fatal(err)
		}
		return trustKey(t, info)
	}
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	evil, err := authz.NewTrustKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(doc authz.TrustDocument) (Record, error) {
		b, err := doc.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return w.desk.SignTrustBundle(t.Context(), TrustOrder{Document: b, By: "server", Decision: w.decide(t, evidence.KeyUse{
			Purpose: fw.PurposeRosterRoot, Key: "root-1", Subject: fw.DigestOf(b), Document: b,
		}, w.log)})
	}
	base := authz.TrustDocument{
		CreatedAt: 1, Roots: authz.Roots{Threshold: 1, Keys: []authz.TrustKey{key("root-1")}},
		ImageKeys: []authz.TrustKey{key("image-1")}, StatementKeys: []authz.TrustKey{key("statement-1")},
	}
	first, err := sign(base.Next(nil))
	if err != nil {
		t.Fatal(err)
	}
	one, err := authz.OpenTrust(first.Envelope)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*authz.TrustDocument){
		"another image key":       func(d *authz.TrustDocument) { d.ImageKeys = append(d.ImageKeys, evil) },
		"another statement key":   func(d *authz.TrustDocument) { d.StatementKeys = []authz.TrustKey{evil} },
		"a key of another kind":   func(d *authz.TrustDocument) { d.ImageKeys = []authz.TrustKey{key("statement-1")} },
		"another root":            func(d *authz.TrustDocument) { d.Roots.Keys = append(d.Roots.Keys, evil) },
		"only another root":       func(d *authz.TrustDocument) { d.Roots.Keys = []authz.TrustKey{evil} },
		"a version that is ahead": func(d *authz.TrustDocument) { d.Version = 4 },
		"another predecessor":     func(d *authz.TrustDocument) { d.Previous = fw.DigestOf(nil) },
	} {
		doc := base.Next(one)
		change(&doc)
		if _, err := sign(doc); !IsRefusal(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.reopen(t)
	w.open2(t)
	second, err := sign(base.Next(one))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := authz.Accept(one, second.Envelope); err != nil {
		t.Error(err)
	}
	// The server crashed before it stored version 2 and makes another one.
	again := base.Next(one)
	again.CreatedAt++
	if _, err := sign(again); err != nil {
		t.Errorf("version 2 again: %v", err)
	}
	if _, err := sign(base.Next(nil)); fw.KindOf(err) != fw.Conflict {
		t.Errorf("version 1 after version 2: %v", err)
	}
	w.s.opt.Roots.Threshold = 2
	if _, err := sign(base.Next(one)); !IsRefusal(err) || !strings.Contains(err.Error(), "ceremony") {
		t.Errorf("with a threshold of two: %v", err)
	}
}

func TestMirroredKeysVerifyAndDoNotSign(t *testing.T) {
	w := newWorld(t)
	other := newWorld(t)
	if _, err := other.ks.Create(t.Context(), "image-9", fw.PurposeImage, "", t0); err != nil {
		t.Fatal(err)
	}
	info, err := other.ks.Public("image-9")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := w.ks.Mirror([]KeyInfo{info}); err != nil {
			t.Fatal(err)
		}
	}
	w.reopen(t)
	if got, err := w.ks.Public("image-9"); err != nil || got != info || w.ks.Holds("image-9") || !w.ks.Holds("image-1") {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := w.s.Mint(Grant{Purpose: fw.PurposeImage, Key: "image-9", Subject: fw.DigestOf(nil), Verdict: VerdictAllow}); err == nil {
		t.Error("minted for a key that is elsewhere")
	}
	mine, err := other.ks.Public("image-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.ks.Mirror([]KeyInfo{mine}); fw.KindOf(err) != fw.Conflict {
		t.Errorf("another key of the same name: %v", err)
	}
	own, err := w.ks.Public("image-1")
	if err != nil {
		t.Fatal(err)
	}
	own.State = KeyRetired
	if err := w.ks.Mirror([]KeyInfo{own}); fw.KindOf(err) != fw.Conflict || !strings.Contains(err.Error(), "delete") {
		t.Errorf("a key that is here too: %v", err)
	}
}

func trustKey(t *testing.T, i KeyInfo) authz.TrustKey {
	t.Helper()
	pub, err := i.Public()
	if err != nil {
		t.Fatal(err)
	}
	k, err := authz.NewTrustKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sealWith(t *testing.T, payloadType string, payload []byte, key ed25519.PrivateKey) []byte {
	t.Helper()
	env, err := dsse.Seal(payloadType, payload, key)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

// rosterDocument is the payload of version 1.
func (w *deskWorld) rosterDocument(t *testing.T) []byte {
	t.Helper()
	_, payload, err := dsse.Open(w.roster, approval.RosterPayloadType, dsse.Limits{Bytes: 1 << 20, Signatures: 8})
	if err != nil {
		t.Fatal(err)
	}
	return payload
}
